"""Statistics over training runs: paired differences, rank correlation, and their intervals.

Pure functions over finite arrays of (num_runs,) or (num_runs, num_tasks), as in rliable
(https://arxiv.org/abs/2108.13264). In all of them ``confidence`` is the nominal coverage in (0, 1),
``num_bootstrap`` the number of resamples, at least 100, and ``seed`` that of the resampling. They
raise ValueError for shapes that do not fit, too few values and values that are not finite.
"""

import bisect
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

Statistic = Literal["mean", "iqm"]

NUM_BOOTSTRAP = 10_000
"""Resamples of an interval by default."""

MOST_RUNS = 10_000
"""Paired runs beyond which `runs_to_decide` gives up."""

_FEWEST_RESAMPLES = 100
_FEWEST_ITEMS = 4
# From 20 values on the bootstrap alone covers 95% (see `paired_difference`).
_FEW_VALUES = 20
# Two runs ask for a level that rounds to 1; the interval is then the range of the resamples.
_HIGHEST_LEVEL = 1 - 1e-12
_MAX_BATCH_NUMBERS = 4_000_000  # 32 MB of resampled values at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with a two-sided confidence interval, all in the same unit.

    ``low`` is at most ``high``; ``confidence`` is the nominal coverage in (0, 1).
    """

    estimate: float
    low: float
    high: float
    confidence: float


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    confidence: float = 0.95,
    num_bootstrap: int = NUM_BOOTSTRAP,
    seed: int,
    statistic: Statistic = "mean",
) -> Interval:
    """Return the mean (or interquartile mean) of ``a - b`` over paired runs, with an interval.

    The interval is a bias-corrected and accelerated bootstrap (BCa) of the runs, within each task
    separately, at a widened level (`widened_level`). It cannot reach beyond the observed runs,
    which of five normal runs covers 92% and of three 75% at a nominal 95%; the interval of the
    mean of fewer than 20 values is therefore the hull of that and Student's. Measured coverage of
    the mean over 2,000 synthetic experiments: normal runs 96% (3 runs), 94% (5), 97% (10),
    95% (20); exponential runs, which are skewed, 89% (3), 88% (5), 93% (10 and 20).

    Where all differences are equal, the interval has no width. Row i of ``b`` used the same seed as
    row i of ``a``, and there are at least two. ``statistic`` "iqm" is the mean of the middle half
    of all differences.

    Examples:
        >>> difference = paired_difference([0.91, 0.93, 0.92], [0.90, 0.91, 0.90], seed=0)
        >>> round(difference.estimate, 4)
        0.0167
    """
    first, second = _finite(a, "a"), _finite(b, "b")
    if first.shape != second.shape:
        raise ValueError(f"b: expected the shape of a, {first.shape}, got {second.shape}")
    # Runs of one seed share initialization and order of the data: their difference varies less
    # than either.
    differences = first - second
    differences = differences.reshape(len(differences), -1)
    num_runs, num_tasks = differences.shape
    if num_runs < 2:
        raise ValueError(f"a, b: expected at least 2 paired runs, got {num_runs}")
    pool = _pooled_mean if statistic == "mean" else _pooled_iqm
    level = widened_level(confidence, num_runs, num_tasks)
    interval = bootstrap_interval(
        tuple(differences.T), pool, confidence=level, num_bootstrap=num_bootstrap, seed=seed
    )
    if differences.size < _FEW_VALUES and statistic == "mean":
        student = student_interval(differences, confidence=confidence)
        low, high = min(interval.low, student.low), max(interval.high, student.high)
        interval = replace(interval, low=low, high=high)
    return replace(interval, confidence=confidence)


def interquartile_mean(values: ArrayLike) -> float:
    """Return the mean of the middle half of all values (runs and tasks pooled).

    A quarter of the values, rounded down, is dropped at each end (the IQM of rliable). NaN among
    the values (a run that diverged) gives NaN.
    """
    array = _array(values, "values").ravel()
    return float("nan") if np.isnan(array).any() else float(_pooled_iqm(array))


def probability_of_improvement(
    a: ArrayLike, b: ArrayLike, *, confidence: float = 0.95, paired: bool = False
) -> Interval:
    """Return the probability that a run of ``a`` has a larger value than a run of ``b``.

    Ties count half, and tasks are averaged. Unpaired, every run of one is compared with every run
    of the other (Mann-Whitney), and the interval inverts the variance of that statistic
    (Newcombe 2006, method 5, https://doi.org/10.1002/sim.2324). Paired, only runs of equal seed
    are compared, and the interval is Wilson's. Neither collapses to a point when one side always
    wins, as a bootstrap does. Runs of different tasks are taken as independent. Unpaired intervals
    of arrays that share seeds are too wide rather than too narrow. The numbers of runs may differ
    unless they are paired.
    """
    first, second = _finite(a, "a"), _finite(b, "b")
    if first.shape[1:] != second.shape[1:] or (paired and len(first) != len(second)):
        raise ValueError(
            f"b: expected {'the shape' if paired else 'the tasks'} of a, shape {first.shape}, "
            f"got shape {second.shape}"
        )
    check_confidence(confidence)
    gaps = first - second if paired else first[:, None] - second[None, :]
    # The sign is 1 for a win, 0 for a tie and -1 for a loss: (mean + 1) / 2 counts ties half.
    estimate = float((np.sign(gaps).mean() + 1) / 2)
    num_tasks = first[0].size
    m, n = (1, 1) if paired else (len(first), len(second))
    num_repeats = num_tasks * len(first) if paired else num_tasks

    def variance(p: float) -> float:
        # Hanley and McNeil (1982), with the mean of the two numbers of runs in place of each:
        # p (1 - p) / (m n) (1 + ((m + n) / 2 - 1) ((1 - p) / (2 - p) + p / (1 + p))).
        # With one run on each side it is p (1 - p).
        spread = (1 - p) / (2 - p) + p / (1 + p)
        return float(p * (1 - p) / (m * n) * (1 + ((m + n) / 2 - 1) * spread) / num_repeats)

    return score_interval(estimate, variance, confidence)


def intraclass_correlation(table: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Return the fraction of the variance between rows: ICC(1), one-way random effects.

    With schedules as rows and repeated runs as columns it says how much of the variance is due to
    the schedule and how much is seed noise. The interval is exact for normal data (Shrout and
    Fleiss 1979, https://doi.org/10.1037/0033-2909.86.2.420). The estimate is unbiased rather than
    non-negative: it can be as low as -1 / (num_columns - 1). The table is at least 2 by 2, and its
    values are not all equal.
    """
    values = _finite(table, "table")
    if values.ndim != 2 or min(values.shape) < 2:
        raise ValueError(f"table: expected at least 2 schedules by 2 runs, got {values.shape}")
    if np.ptp(values) == 0:
        raise ValueError("table: expected values that differ, got one value everywhere")
    check_confidence(confidence)
    num_rows, num_columns = values.shape
    freedom = (num_rows - 1, num_rows * (num_columns - 1))
    # Mean squares of the analysis of variance; their ratio F has an F distribution.
    between = num_columns * values.mean(axis=1).var(ddof=1)
    within = values.var(axis=1, ddof=1).mean()
    quantile = (1 + confidence) / 2
    limits = (
        1.0,
        float(scipy.stats.f.ppf(quantile, *freedom)),
        1 / float(scipy.stats.f.ppf(quantile, freedom[1], freedom[0])),
    )
    # ICC = (F - 1) / (F + k - 1) for k columns; the ends have F over its quantile, or times it.
    estimate, low, high = (
        float((between - limit * within) / (between + (num_columns - 1) * limit * within))
        for limit in limits
    )
    return Interval(estimate=estimate, low=low, high=high, confidence=confidence)


def spearman(
    a: ArrayLike,
    b: ArrayLike,
    *,
    confidence: float = 0.95,
    num_bootstrap: int = NUM_BOOTSTRAP,
    seed: int,
) -> Interval:
    """Return the rank correlation of two scores of the same items, with a BCa interval.

    Ties get their mean rank. Measured coverage at a nominal 95%: 95 to 97% for 12 to 60 items and
    true correlations of 0 to 0.9. A perfect correlation in the sample gives no width. Each of ``a``
    and ``b`` has one score per item, such as that of each schedule on a small network and on a
    large one; there are at least four items, and neither score is constant.
    """
    first, second = _finite(a, "a"), _finite(b, "b")
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(
            f"b: expected one value for each item of a, got shapes {first.shape}, {second.shape}"
        )
    if len(first) < _FEWEST_ITEMS:
        raise ValueError(f"a, b: expected at least {_FEWEST_ITEMS} items, got {len(first)}")
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        raise ValueError("a, b: expected scores that differ between items, got a constant score")
    return bootstrap_interval(
        (first, second),
        rank_correlation,
        confidence=confidence,
        num_bootstrap=num_bootstrap,
        seed=seed,
        is_paired=True,
    )


def rank_correlation(first: Floats, second: Floats, *, axis: int = -1) -> Floats:
    """Return Spearman's correlation along ``axis``; 0 where one side is constant."""
    # Pearson's correlation of the ranks. A resample may hold one item only: 0 / 0, taken as 0.
    ranks = [scipy.stats.rankdata(values, axis=axis) for values in (first, second)]
    centered = [values - values.mean(axis=axis, keepdims=True) for values in ranks]
    norms = [np.sqrt(np.square(values).sum(axis=axis)) for values in centered]
    product = norms[0] * norms[1]
    covariance = (centered[0] * centered[1]).sum(axis=axis)
    return np.asarray(np.where(product > 0, covariance / np.where(product > 0, product, 1), 0.0))


def proportion_interval(
    proportion: float, num_images: int, *, confidence: float = 0.95
) -> Interval:
    """Return a proportion of ``num_images`` independent images with Wilson's interval.

    It covers the choice of the images, not the seed of a training run.
    """
    return score_interval(proportion, lambda p: p * (1 - p) / num_images, confidence)


def score_interval(
    estimate: float, variance: Callable[[float], float], confidence: float
) -> Interval:
    """Return all probabilities p that are within the normal quantile of the estimate.

    That is |estimate - p| <= z sqrt(variance(p)), Wilson's interval when the variance is
    p (1 - p) / n. ``variance`` is that of the estimate, a proportion in [0, 1], when the true
    probability is p; it is 0 at 0 and 1.
    """
    check_confidence(confidence)
    quantile = float(scipy.stats.norm.ppf((1 + confidence) / 2))

    def excess(p: float) -> float:
        return (estimate - p) ** 2 - quantile**2 * variance(p)

    # One root on each side. At an estimate of 0 or 1 the estimate itself is a root, but not an
    # end of the interval, so the search begins a little beside it.
    low = high = estimate
    if estimate > 0:
        low = float(scipy.optimize.brentq(excess, 0, estimate - 1e-12 * estimate))
    if estimate < 1:
        high = float(scipy.optimize.brentq(excess, estimate + 1e-12 * (1 - estimate), 1))
    return Interval(estimate=estimate, low=low, high=high, confidence=confidence)


def student_interval(columns: Floats, *, confidence: float) -> Interval:
    """Return the mean of each column's runs, averaged over columns, with Student's interval.

    ``columns`` is (num_runs, num_tasks), with at least 2 runs.
    """
    check_confidence(confidence)
    num_runs, num_tasks = columns.shape
    estimate = float(columns.mean())
    # The variance of a mean over tasks is the sum of s_j^2 / n, over the square of their number.
    error = np.sqrt(columns.var(axis=0, ddof=1).sum() / num_runs) / num_tasks
    half = float(scipy.stats.t.ppf((1 + confidence) / 2, (num_runs - 1) * num_tasks) * error)
    return Interval(
        estimate=estimate, low=estimate - half, high=estimate + half, confidence=confidence
    )


def runs_to_decide(
    differences: ArrayLike, *, confidence: float = 0.95, power: float = 0.8
) -> int | None:
    """Return how many paired runs show a mean difference like that of ``differences``.

    The fewest with which Student's interval at ``confidence`` leaves out 0 with probability
    ``power``, if mean and standard deviation are those observed: of at least 2 runs, themselves
    uncertain, so this is a magnitude. None: more than `MOST_RUNS`.

    Examples:
        >>> runs_to_decide([0.1, -0.05, 0.1, 0.05])
        18
    """
    check_confidence(confidence)
    values = _finite(differences, "differences")
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"differences: expected at least 2 values, got shape {values.shape}")
    mean, deviation = abs(float(values.mean())), float(values.std(ddof=1))

    def is_enough(runs: int) -> bool:
        # n such that |mean| >= (t_(1 - alpha / 2) + t_power) s / sqrt(n), as in a t test (with the
        # central t distribution for the power, which differs by less than a run from 6 runs on).
        quantiles = scipy.stats.t.ppf([(1 + confidence) / 2, power], runs - 1)
        return bool(mean * np.sqrt(runs) >= np.sum(quantiles) * deviation)

    if mean == 0 or not is_enough(MOST_RUNS):
        return None
    return 2 + bisect.bisect_left(range(2, MOST_RUNS), True, key=is_enough)


def widened_level(confidence: float, num_runs: int, num_tasks: int = 1) -> float:
    """Return the level at which a bootstrap of few runs has about the coverage ``confidence``.

    There are ``num_runs`` per task, at least 2; tasks are resampled separately and pooled.
    """
    check_confidence(confidence)
    # The bootstrap's spread is too small by sqrt((n - 1) / n), and normal quantiles stand where
    # Student's belong. Hesterberg's "expanded" percentiles make up for both at once:
    # alpha' / 2 = Phi(-sqrt(n / (n - 1)) t_(1 - alpha / 2)) (https://arxiv.org/abs/1411.5279).
    quantile = float(scipy.stats.t.ppf((1 + confidence) / 2, (num_runs - 1) * num_tasks))
    level = 1 - 2 * float(scipy.stats.norm.sf(quantile * np.sqrt(num_runs / (num_runs - 1))))
    return min(level, _HIGHEST_LEVEL)


def bootstrap_interval(
    samples: tuple[Floats, ...],
    statistic: Callable[..., Floats],
    *,
    confidence: float,
    num_bootstrap: int,
    seed: int,
    is_paired: bool = False,
) -> Interval:
    """Return the statistic with its BCa interval; samples are resampled independently or as pairs.

    Where every resample gives the same value the interval has no width. Where BCa is otherwise
    undefined (the statistic ignores each single observation, or lies beyond all resamples), the
    percentile interval of the same resamples is returned. ``statistic`` takes the samples, each
    1-d, and the keyword ``axis``, which it reduces.
    """
    check_confidence(confidence)
    if num_bootstrap < _FEWEST_RESAMPLES:
        raise ValueError(
            f"num_bootstrap: expected at least {_FEWEST_RESAMPLES}, got {num_bootstrap}"
        )
    estimate = float(statistic(*samples, axis=-1))
    batch = max(1, _MAX_BATCH_NUMBERS // sum(sample.size for sample in samples))
    # BCa (Efron 1987, https://doi.org/10.2307/2289144) takes the quantiles of the resamples at
    # Phi(z0 + (z0 + z) / (1 - a (z0 + z))), where z is the normal quantile of either tail,
    # z0 = Phi^-1(fraction of resamples below the estimate) corrects the bias, and the acceleration
    # a = sum d^3 / (6 (sum d^2)^1.5), d the deviations of the jackknife, corrects the skewness.
    with warnings.catch_warnings():
        # Degenerate data is dealt with below.
        warnings.simplefilter("ignore")
        result = scipy.stats.bootstrap(
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
    # z0 is infinite or a is 0 / 0: plain percentiles are still an interval.
    if not (np.isfinite(low) and np.isfinite(high)):
        tails = ((1 - confidence) / 2, (1 + confidence) / 2)
        low, high = (float(end) for end in np.quantile(result.bootstrap_distribution, tails))
    return Interval(estimate=estimate, low=low, high=high, confidence=confidence)


def _pooled_mean(*tasks: Floats, axis: int = -1) -> Floats:
    return np.asarray(np.concatenate(tasks, axis=axis).mean(axis=axis))


def _pooled_iqm(*tasks: Floats, axis: int = -1) -> Floats:
    # A plain sort: trim_mean took 60% of the time of a bootstrap of 20 runs.
    ordered = np.sort(np.concatenate(tasks, axis=axis), axis=axis)
    num_values = ordered.shape[axis]
    middle = range(num_values // 4, num_values - num_values // 4)
    return np.asarray(ordered.take(middle, axis=axis).mean(axis=axis))


def check_confidence(confidence: float) -> None:
    """Raise ValueError unless ``confidence`` lies between 0 and 1."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number between 0 and 1, got {confidence}")


def _array(values: ArrayLike, name: str) -> Floats:
    """Return ``values`` as float64 after checking that there are some."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or array.size == 0:
        raise ValueError(f"{name}: expected one value for each run, got shape {array.shape}")
    return array


def _finite(values: ArrayLike, name: str) -> Floats:
    """Return ``values`` as float64 after checking that all are finite."""
    array = _array(values, name)
    if not np.isfinite(array).all():
        raise ValueError(
            f"{name}: expected finite values, got {np.count_nonzero(~np.isfinite(array))} "
            f"of {array.size} that are not; a diverged run needs a value of its own"
        )
    return array
