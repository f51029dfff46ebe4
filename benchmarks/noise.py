"""What makes the return of an episode less noisy, and what that costs: measured on the digits.

    python -m benchmarks.noise [--schedules 16] [--seeds 4]

Random schedules are trained with the same seeds each. For every measure the table says how the
return varies between seeds of one schedule (what a search must average out), which share of its
variance is the schedule's, what an episode costs, and from these the noise after a minute of
search: the standard error of the mean return, in standard deviations between schedules. Lower is
better; the ratio is to the plain return.
"""

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from agents.policies import roll_out
from automix.config import Config
from automix.data.splits import Split
from automix.experiments.config import SearchConfig
from automix.experiments.text_tables import align
from automix.random_streams import Stream, derived_seed
from automix.training.build import load_search_data
from envs.actions import Action
from envs.mixing_env import MixingEnv
from envs.observations import Observation

_CONFIG = Path("configs/search/digits.yaml")
_MINUTE = 60.0
# Ridge of the regressions on states, on standardised features.
_RIDGE = 3.0
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured of one way to look at a return.

    Attributes:
        returns: of every schedule and seed, (M, K).
        seconds: of one episode.
        between: standard deviation between schedules, of what the returns estimate.
    """

    returns: Floats
    seconds: float
    between: float

    @property
    def within(self) -> float:
        """Standard deviation between seeds of one schedule."""
        return float(np.sqrt(self.returns.var(axis=1, ddof=1).mean()))

    @property
    def share(self) -> float:
        """Share of the variance that is the schedule's."""
        return self.between**2 / (self.between**2 + self.within**2)

    @property
    def noise(self) -> float:
        """Standard error after a minute of search, in standard deviations between schedules."""
        return self.within / self.between * math.sqrt(self.seconds / _MINUTE)


class _Script:
    """A policy that does what it was told, and remembers what it saw."""

    def __init__(self, actions: Sequence[Action]) -> None:
        self._actions = list(actions)
        self.seen: list[Observation] = []

    def start_episode(self) -> None:
        self.seen = []

    def act(self, observation: Observation) -> Action:
        self.seen.append(observation)
        return self._actions[len(self.seen) - 1]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    measured = _measure(SearchConfig.from_yaml(_CONFIG), arguments.schedules, arguments.seeds)
    plain = next(iter(measured.values()))
    rows = [["measure", "sd of seeds", "share of schedule", "s per episode", "noise", "ratio"]]
    for name, each in measured.items():
        rows.append(
            [
                name,
                f"{each.within:.4f}",
                f"{each.share:.2f}",
                f"{each.seconds:.2f}",
                f"{each.noise:.3f}",
                f"{each.noise / plain.noise:.2f}",
            ]
        )
    print("\n".join(align(rows)))


def _measure(config: SearchConfig, num_schedules: int, num_seeds: int) -> dict[str, Measured]:
    env = MixingEnv(config.task, config.environment, data=load_search_data(config.task.data))
    generator = np.random.default_rng(derived_seed(config.seed, Stream.POLICY))
    shape = (num_schedules, config.environment.num_segments, len(env.action_space.nvec))  # type: ignore[attr-defined]
    schedules = generator.integers(env.action_space.nvec, size=shape)  # type: ignore[attr-defined]
    seeds = [derived_seed(config.seed, Stream.PROBE, step=index) for index in range(num_seeds)]
    half = env.data.reward.subset(torch.arange(0, len(env.data.reward), 2))
    averaged, last, seconds = _run(env, schedules, seeds, [half, env.data.selection])
    # No mixing at all: the same reference for all schedules.
    reference, _, _ = _run(env, np.zeros_like(schedules[:1]), seeds, [])
    raw_task = _replaced(config.task, trainer=_replaced(config.task.trainer, ema_decay=0.0))
    raw_env = MixingEnv(raw_task, config.environment, data=env.data)  # type: ignore[arg-type]
    raw, _, raw_seconds = _run(raw_env, schedules, seeds, [])
    plain = averaged[..., 0]
    between = _between(plain)
    both = (plain + averaged[..., 2]) / 2
    ran = np.broadcast_to(reference[..., :1], (*plain.shape, 1))
    same = {"seconds": seconds, "between": between}
    found = {
        "plain: 550 images, averaged weights": Measured(returns=plain, **same),
        "last weights": Measured(
            returns=raw[..., 0], seconds=raw_seconds, between=_between(raw[..., 0])
        ),
        "half the reward split": Measured(returns=averaged[..., 1], **same),
        "twice the reward split": Measured(returns=both, seconds=seconds, between=_between(both)),
        "state before the last segment known": Measured(returns=_without(plain, last), **same),
        "reference run of the same seed": Measured(
            returns=_without(plain, ran), seconds=2 * seconds, between=between
        ),
    }
    twins = plain[:, : num_seeds - num_seeds % 2].reshape(num_schedules, -1, 2).mean(axis=2)
    if twins.shape[1] > 1:
        found["twin trainings averaged"] = Measured(
            returns=twins, seconds=2 * seconds, between=between
        )
    return found


def _run(
    env: MixingEnv, schedules: NDArray[np.int64], seeds: Sequence[int], splits: Sequence[Split]
) -> tuple[Floats, Floats, float]:
    """Return negative calibrated NLL (M, K, 1 + splits), states (M, K, F), seconds per episode."""
    returns = np.zeros((len(schedules), len(seeds), 1 + len(splits)))
    states, spent = [], 0.0
    for row, actions in enumerate(schedules):
        for column, seed in enumerate(seeds):
            script = _Script(actions)
            started = time.perf_counter()
            roll_out(script, env, training_seed=seed)
            spent += time.perf_counter() - started
            for index, split in enumerate([env.data.reward, *splits]):
                returns[row, column, index] = -env.trainer.evaluate(split).calibrated_nll
            states.append(script.seen[-1])
    count = len(schedules) * len(seeds)
    return returns, np.reshape(states, (len(schedules), len(seeds), -1)), spent / count


def _without(returns: Floats, known: Floats) -> Floats:
    """Return what a regression within schedules on what is known leaves; means stay.

    Leave-one-out residuals, because so few returns are easily fitted.
    """
    shape = returns.shape
    centred = (known - known.mean(axis=1, keepdims=True)).reshape(-1, known.shape[-1])
    scaled = centred / (centred.std(axis=0) + 1e-9)
    target = (returns - returns.mean(axis=1, keepdims=True)).ravel()
    gram = scaled.T @ scaled + _RIDGE * np.eye(scaled.shape[1])
    hat = scaled @ np.linalg.solve(gram, scaled.T)
    residual = (target - hat @ target) / (1 - np.diag(hat))
    result: Floats = residual.reshape(shape) + returns.mean(axis=1, keepdims=True)
    return result


def _between(returns: Floats) -> float:
    """Return the standard deviation between schedules, that of seeds taken out."""
    noise = returns.var(axis=1, ddof=1).mean() / returns.shape[1]
    return math.sqrt(max(float(returns.mean(axis=1).var(ddof=1) - noise), 1e-12))


def _replaced(config: Config, **values: object) -> Config:
    return config.model_copy(update=values)


if __name__ == "__main__":
    main()
