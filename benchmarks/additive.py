"""CPU seconds of the additive model: dense formulas, a fit, and a further rollout.

    OMP_NUM_THREADS=1 python -m benchmarks.additive

The episodes are simulated, in the shape of the digits' search: 8 segments, 9 decisions and, with
states, 31 features. The dense formulas, with (E, E) matrices, are those that the tests compare with
(`tests/agents/dense_additive.py`). In a fit of these sizes, all episodes choose hyperparameters. In
the further rollout of 16 they stay, where there are states; they are chosen again after E / 8.
"""

import argparse
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.additive import AdditiveModel
from automix.schedule import Schedule, even_schedule
from envs.actions import ActionCodec
from envs.config import EnvironmentConfig
from tests.agents.dense_additive import fit_dense

SIZES = (256, 512, 1024, 2048, 4096)
ROLLOUT = 16
ENVIRONMENT = EnvironmentConfig(num_strengths=2, probabilities=(1.0,))
CHOICES = ActionCodec(ENVIRONMENT).decisions()
NUM_LATENT, NUM_LOSSES, NUM_FEATURES = 6, 15, 31


class Run(NamedTuple):
    """Episodes: schedules, values, (E, S, F) states, or None."""

    schedules: list[Schedule]
    values: list[float]
    states: NDArray[np.float64] | None

    def part(self, first: int, stop: int) -> "Run":
        """Return some of them."""
        states = None if self.states is None else self.states[first:stop]
        return Run(self.schedules[first:stop], self.values[first:stop], states)


def simulated_run(count: int) -> Run:
    """Return episodes whose states drift, and whose effects react to them.

    As in an observation, 7 features are constant within a segment, 2 are differences of others, and
    7 tell the last decision.
    """
    generator = np.random.default_rng(0)
    decisions = generator.integers(len(CHOICES), size=(count, ENVIRONMENT.num_segments))
    worth = generator.normal(scale=0.01, size=(ENVIRONMENT.num_segments, len(CHOICES)))
    slopes = generator.normal(scale=0.004, size=(len(CHOICES), NUM_LATENT))
    loadings = generator.normal(size=(NUM_LATENT, NUM_LOSSES))
    states = np.zeros((*decisions.shape, NUM_FEATURES))
    latent = np.zeros((count, NUM_LATENT))
    values = generator.normal(scale=0.02, size=count)
    for segment, taken in enumerate(decisions.T):
        latent = 0.8 * latent + generator.normal(scale=0.4, size=latent.shape)
        losses = latent @ loadings + generator.normal(scale=0.3, size=(count, NUM_LOSSES))
        states[:, segment, :7] = segment / ENVIRONMENT.num_segments
        states[:, segment, 7:22] = losses
        states[:, segment, 22:24] = losses[:, :2] - losses[:, 2:4]
        if segment:
            # None is the first decision, then comes each operator, weak and strong.
            last = decisions[:, segment - 1]
            states[np.arange(count), segment, 24 + (last + 1) // 2] = 1
            states[:, segment, 29] = (last > 0) * ((last + 1) % 2)
            states[:, segment, 30] = last > 0
        values += worth[segment, taken] + (slopes[taken] * latent).sum(axis=1)
    values += 0.03 * latent[:, 0]
    schedules = [even_schedule([CHOICES[index] for index in row]) for row in decisions]
    # Observations are float32.
    return Run(schedules, values.tolist(), states.astype(np.float32).astype(np.float64))


def cpu_seconds(call: Callable[[], object]) -> float:
    """Return the processor time of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def fit_and_follow(run: Run, size: int) -> tuple[float, float]:
    """Return the seconds of a fit to so many episodes, and to a further rollout."""
    model = AdditiveModel(CHOICES, num_segments=ENVIRONMENT.num_segments)

    def follow(part: Run) -> None:
        model.add(*part)
        model.fit()

    first = cpu_seconds(lambda: follow(run.part(0, size)))
    return first, cpu_seconds(lambda: follow(run.part(size, size + ROLLOUT)))


def dense_seconds(run: Run) -> float:
    """Return the seconds of the dense formulas."""
    return cpu_seconds(
        lambda: fit_dense(
            run.schedules,
            run.values,
            CHOICES,
            num_segments=ENVIRONMENT.num_segments,
            states=run.states,
        )
    )


def main(*, largest_dense: int, rounds: int) -> None:
    """Measure and print a table; the least of the rounds."""
    whole = simulated_run(max(SIZES) + ROLLOUT)
    print("| episodes | states | dense, s | fit, s | dense / fit | 16 more, ms |")
    print("|---:|---|---:|---:|---:|---:|")
    for size in SIZES:
        for run in (whole._replace(states=None), whole):
            dense = dense_seconds(run.part(0, size)) if size <= largest_dense else float("nan")
            times = [fit_and_follow(run, size) for _ in range(rounds)]
            fit, further = (min(column) for column in zip(*times, strict=True))
            compared = f"{dense:.2f} | {fit:.3f} | {dense / fit:.1f}".replace("nan", "")
            states = "no" if run.states is None else "yes"
            print(f"| {size:,} | {states} | {compared} | {1000 * further:.0f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--largest-dense", type=int, default=2048, help="by the dense formulas")
    parser.add_argument("--rounds", type=int, default=5)
    main(**vars(parser.parse_args()))
