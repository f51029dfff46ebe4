"""Ways to make the return of an episode less noisy, and their cost: measured on the digits.

    python -m benchmarks.noise [--schedules 24] [--seeds 6] [--folder FOLDER]

Random schedules are trained with the same seeds each. For every measure the table says how the
return varies between seeds of one schedule (what a search must average out), how far it varies
with the schedule in a way that images outside the reward split confirm (what a search looks for),
what an episode costs in processor time, and from these the noise after a minute of search: the
standard error of the mean return over that confirmed standard deviation. Lower is better. The ratio
is to the plain return, with a 95% bootstrap interval over schedules and seeds.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from automix.experiments.common.summaries import align
from automix.experiments.config import SearchConfig
from automix.random_streams import Stream, derived_seed
from benchmarks.noise_runs import Trained, train_all

_CONFIG = Path("configs/search/digits.yaml")
_MINUTE = 60.0
_NUM_BOOTSTRAP = 2000
# Ridge of the regressions on states, on standardized features.
_RIDGE = 3.0
# The state before these segments, counted from 1, is taken as known.
_KNOWN_BEFORE = (5, 7, 8)
_HEADINGS = (
    "measure",
    "sd of seeds",
    "confirmed sd",
    "confirmed",
    "agreement",
    "s per return",
    "noise",
    "ratio, 95% interval",
)
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One way to look at the return.

    Attributes:
        returns: (M, K), of every schedule and seed, without what is known of the noise of a seed.
        signal: (M, K), the same before anything was taken out.
        seconds: processor time of what one return takes.
    """

    returns: Floats
    signal: Floats
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """The figures of a measure.

    Attributes:
        within: standard deviation between seeds of one schedule.
        confirmed: standard deviation between schedules, of the part that goes along with the loss
            on other images after training runs with other seeds.
        agreement: correlation of the expected return with that other loss, over schedules.
        seconds: processor time of one return.
    """

    within: float
    confirmed: float
    agreement: float
    seconds: float

    @property
    def confirmed_fraction(self) -> float:
        """Fraction of the variance of a return that is confirmed to be the schedule's."""
        return self.confirmed**2 / (self.confirmed**2 + self.within**2)

    @property
    def after_a_minute(self) -> float:
        """Standard error of the mean return of a minute, in confirmed standard deviations.

        Infinite where nothing is confirmed.
        """
        if self.confirmed <= 0:
            return math.inf
        return self.within / self.confirmed * math.sqrt(self.seconds / _MINUTE)


def noise_of(measured: Measured, judge: Floats, seeds: NDArray[np.int64] | None = None) -> Noise:
    """Return the figures, from pairs of runs with different seeds: none is biased by seed noise.

    Args:
        measured: M schedules, K seeds.
        judge: (M, K) negative losses on images that no measure uses.
        seeds: (K,) numbers of the seeds; equal ones, which a bootstrap has, are no pair.
    """
    number = np.arange(judge.shape[1]) if seeds is None else seeds
    pairs = np.not_equal.outer(number, number)

    def covariance(first: Floats, second: Floats) -> float:
        centered = [values - values.mean(axis=0) for values in (first, second)]
        return float((centered[0].T @ centered[1])[pairs].mean() / (len(first) - 1))

    differences = measured.returns[:, :, None] - measured.returns[:, None, :]
    shared = covariance(measured.signal, judge)
    # Where seed noise hides all differences, nothing is confirmed.
    judged = covariance(judge, judge)
    judged = judged if judged > 0 else math.inf
    variance = max(covariance(measured.signal, measured.signal), 1e-12)
    return Noise(
        within=math.sqrt(float(np.square(differences[:, pairs]).mean()) / 2),
        confirmed=shared / math.sqrt(judged),
        agreement=shared / math.sqrt(variance * judged),
        seconds=measured.seconds,
    )


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument(
        "--folder", type=Path, help="keeps training runs; an interrupted run resumes"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = SearchConfig.from_yaml(_CONFIG)
    trained = train_all(
        config,
        num_schedules=arguments.schedules,
        num_seeds=arguments.seeds,
        folder=arguments.folder,
    )
    measured, judge = _measures(trained), trained.seen["judge"]
    plain = noise_of(next(iter(measured.values())), judge).after_a_minute
    if math.isinf(plain):
        parser.error("expected more schedules or seeds: these do not tell schedules apart")
    ratios = _bootstrap(measured, judge, seed=config.seed)
    rows = [list(_HEADINGS)]
    for name, measure in measured.items():
        noise = noise_of(measure, judge)
        low, high = np.quantile(ratios[name], [0.025, 0.975], method="nearest")
        rows.append(
            [
                name,
                f"{noise.within:.4f}",
                f"{noise.confirmed:.4f}",
                f"{noise.confirmed_fraction:.2f}",
                f"{noise.agreement:.2f}",
                f"{noise.seconds:.2f}",
                f"{noise.after_a_minute:.3f}",
                f"{noise.after_a_minute / plain:.2f} [{low:.2f}, {high:.2f}]",
            ]
        )
    print("\n".join(align(rows)))


def _bootstrap(measured: dict[str, Measured], judge: Floats, *, seed: int) -> dict[str, Floats]:
    """Return, for every measure, ratios of its noise to the first's over resampled runs."""
    generator = np.random.default_rng(derived_seed(seed, Stream.BOOTSTRAP))
    num_schedules, num_seeds = judge.shape
    samples: dict[str, list[float]] = {name: [] for name in measured}
    while len(next(iter(samples.values()))) < _NUM_BOOTSTRAP:
        rows = generator.integers(num_schedules, size=num_schedules)
        columns = np.array(generator.integers(num_seeds, size=num_seeds))
        if np.ptp(columns) == 0:
            continue
        cells = np.ix_(rows, columns)
        values = [
            noise_of(
                Measured(
                    returns=measure.returns[cells],
                    signal=measure.signal[cells],
                    seconds=measure.seconds,
                ),
                judge[cells],
                columns,
            ).after_a_minute
            for measure in measured.values()
        ]
        if math.isinf(values[0]):
            continue
        for name, value in zip(samples, values, strict=True):
            samples[name].append(value / values[0])
    return {name: np.array(values) for name, values in samples.items()}


def _measures(trained: Trained) -> dict[str, Measured]:
    """Return every measure by name, the plain return first."""
    seen, seconds = trained.seen, trained.seconds
    plain, cost, size, extra = seen["plain"], seconds["plain"], *trained.sizes
    larger = (size * plain + extra * seen["extra"]) / (size + extra)

    def row(returns: Floats, seconds: float = cost, signal: Floats | None = None) -> Measured:
        return Measured(
            returns=returns, signal=returns if signal is None else signal, seconds=seconds
        )

    measures = {
        f"plain: {size} images, averaged weights, state observed": row(plain),
        "nothing observed but time and last decision": row(plain, seconds["blind"]),
        "last weights": row(seen["last"], seconds["last"]),
        "NLL without temperature": row(seen["nll"]),
        "accuracy": row(seen["accuracy"]),
        "a quarter of the reward split": row(
            seen["quarter"], cost - 0.75 * size * seconds["image"]
        ),
        "half the reward split": row(seen["half"], cost - 0.5 * size * seconds["image"]),
        "one and a half reward splits": row(larger, cost + extra * seconds["image"]),
    }
    count = trained.states.shape[2]
    for segment in _KNOWN_BEFORE:
        residuals = _without(plain, trained.states[:, :, segment - 1])
        measures[f"state known before segment {segment} of {count}"] = row(residuals, signal=plain)
    reference = np.broadcast_to(trained.reference[None, :, None], (*plain.shape, 1))
    measures["reference run of the same seed"] = row(_without(plain, reference), 2 * cost, plain)
    measures["same seeds for all schedules"] = row(_without_seeds(plain), signal=plain)
    # The mean of two has half the variance, whatever is measured.
    means = plain.mean(axis=1, keepdims=True)
    twins = means + (plain - means) / math.sqrt(2)
    measures["twin training runs averaged"] = row(twins, 2 * cost, plain)
    return measures


def _without(returns: Floats, features: Floats) -> Floats:
    """Return what a regression within schedules on features leaves; means stay.

    Each seed is predicted by a regression on the other seeds: training runs with the same seed may
    share their seed noise, and so few returns are easily fitted.

    Args:
        returns: (M, K).
        features: (M, K, F).
    """
    count = returns.shape[1]
    residuals = np.zeros_like(returns)
    for column in range(count):
        others = np.delete(np.arange(count), column)
        mean_features = features[:, others].mean(axis=1)
        mean_return = returns[:, others].mean(axis=1)
        centered = (features[:, others] - mean_features[:, None]).reshape(-1, features.shape[-1])
        target = (returns[:, others] - mean_return[:, None]).ravel()
        scale = centered.std(axis=0) + 1e-9
        scaled = centered / scale
        gram = scaled.T @ scaled + _RIDGE * np.eye(scaled.shape[1])
        slopes = np.linalg.solve(gram, scaled.T @ target) / scale
        residuals[:, column] = returns[:, column] - mean_return
        residuals[:, column] -= (features[:, column] - mean_features) @ slopes
    # The mean of the others has a variance of its own, which makes these residuals larger.
    result: Floats = returns.mean(axis=1, keepdims=True) + residuals * (count - 1) / count
    return result


def _without_seeds(returns: Floats) -> Floats:
    """Return what is left after the mean of each seed over all schedules; means stay."""
    count = len(returns)
    means = returns.mean(axis=1, keepdims=True)
    residuals = returns - means - (returns - means).mean(axis=0, keepdims=True)
    result: Floats = means + residuals * math.sqrt(count / (count - 1))
    return result


if __name__ == "__main__":
    main()
