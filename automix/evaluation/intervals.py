"""Confidence intervals: the value, the bootstrap behind most of them, and score intervals."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

Floats = NDArray[np.float64]

NUM_BOOTSTRAP = 10_000
"""Resamples of an interval by default."""

_FEWEST_RESAMPLES = 100
_HIGHEST_LEVEL = 1 - 1e-12  # two runs ask for more; the interval is the range of the resamples
_INSIDE = 1e-12
_MAX_BATCH_NUMBERS = 4_000_000  # 32 MB of resampled values at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with a two-sided confidence interval.

    Attributes:
        estimate: the statistic of the data.
        low: lower end, at most the upper end; same unit as the estimate.
        high: upper end.
        confidence: nominal coverage in (0, 1).
    """

    estimate: float
    low: float
    high: float
    confidence: float


ArrayStatistic = Callable[..., Floats]
"""Takes one or more samples and the keyword ``axis``; reduces that axis to one number each."""


def check_confidence(confidence: float) -> None:
    """Raise ValueError unless ``confidence`` lies between 0 and 1."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number between 0 and 1, got {confidence}")


def bootstrap_interval(
    samples: tuple[Floats, ...],
    statistic: ArrayStatistic,
    *,
    confidence: float,
    num_bootstrap: int,
    seed: int,
    is_paired: bool = False,
) -> Interval:
    """Return the statistic with its BCa interval; samples are resampled independently or as pairs.

    Where every resample gives the same value the interval has no width. Where BCa is otherwise
    undefined (the statistic ignores each single observation, or lies beyond all resamples), the
    percentile interval of the same resamples is returned.

    Raises:
        ValueError: the confidence or the number of resamples is out of range.
    """
    check_confidence(confidence)
    if num_bootstrap < _FEWEST_RESAMPLES:
        raise ValueError(
            f"num_bootstrap: expected at least {_FEWEST_RESAMPLES}, got {num_bootstrap}"
        )
    estimate = float(statistic(*samples, axis=-1))
    batch = max(1, _MAX_BATCH_NUMBERS // sum(sample.size for sample in samples))
    with warnings.catch_warnings():
        # Degenerate data is dealt with below.
        warnings.simplefilter("ignore")
        result = stats.bootstrap(
            samples,
            statistic,
            n_resamples=num_bootstrap,
            batch=batch,
            vectorized=True,
            paired=is_paired,
            confidence_level=confidence,
            method="BCa",
            rng=np.random.default_rng(seed),
        )
    low, high = (float(end) for end in result.confidence_interval)
    if not (np.isfinite(low) and np.isfinite(high)):
        tails = ((1 - confidence) / 2, (1 + confidence) / 2)
        low, high = (float(end) for end in np.quantile(result.bootstrap_distribution, tails))
    return Interval(estimate=estimate, low=low, high=high, confidence=confidence)


def widened_level(confidence: float, num_runs: int, num_tasks: int = 1) -> float:
    """Return the level at which a bootstrap of few runs has about the coverage ``confidence``.

    The bootstrap's spread is too small by sqrt((n - 1) / n), and normal quantiles stand where
    Student's belong; both are made up for at once (https://arxiv.org/abs/1411.5279).

    Args:
        confidence: coverage asked for, in (0, 1).
        num_runs: runs per task, at least 2.
        num_tasks: tasks resampled separately and pooled.

    Raises:
        ValueError: ``confidence`` is out of range.
    """
    check_confidence(confidence)
    quantile = float(stats.t.ppf((1 + confidence) / 2, (num_runs - 1) * num_tasks))
    level = 1 - 2 * float(stats.norm.sf(quantile * np.sqrt(num_runs / (num_runs - 1))))
    return min(level, _HIGHEST_LEVEL)


def student_interval(columns: Floats, *, confidence: float) -> Interval:
    """Return the mean of each column's runs, averaged over columns, with Student's interval.

    Args:
        columns: (num_runs, num_tasks), at least 2 runs.
        confidence: nominal coverage in (0, 1).
    """
    check_confidence(confidence)
    num_runs, num_tasks = columns.shape
    estimate = float(columns.mean())
    error = np.sqrt(columns.var(axis=0, ddof=1).sum() / num_runs) / num_tasks
    half = float(stats.t.ppf((1 + confidence) / 2, (num_runs - 1) * num_tasks) * error)
    return Interval(
        estimate=estimate, low=estimate - half, high=estimate + half, confidence=confidence
    )


def score_interval(
    estimate: float, variance: Callable[[float], float], confidence: float
) -> Interval:
    """Return all probabilities p that are within the normal quantile of the estimate.

    That is |estimate - p| <= z sqrt(variance(p)), Wilson's interval when the variance is
    p (1 - p) / n.

    Args:
        estimate: a proportion in [0, 1].
        variance: variance of the estimate when the true probability is p; 0 at 0 and 1.
        confidence: nominal coverage in (0, 1).
    """
    check_confidence(confidence)
    quantile = float(stats.norm.ppf((1 + confidence) / 2))

    def excess(probability: float) -> float:
        return (estimate - probability) ** 2 - quantile**2 * variance(probability)

    # At an estimate of 0 or 1 the estimate itself is a root, but not the one that is looked for.
    low = high = estimate
    if estimate > 0:
        low = float(optimize.brentq(excess, 0, estimate - _INSIDE * estimate))
    if estimate < 1:
        high = float(optimize.brentq(excess, estimate + _INSIDE * (1 - estimate), 1))
    return Interval(estimate=estimate, low=low, high=high, confidence=confidence)


def share_interval(share: float, num_images: int, *, confidence: float = 0.95) -> Interval:
    """Return a share of ``num_images`` independent images with Wilson's interval.

    It covers the choice of the images, not the seed of a training.
    """
    return score_interval(share, lambda p: p * (1 - p) / num_images, confidence)
