"""P-values by permutation, and their correction for many comparisons."""

import numpy as np
import scipy
from numpy.typing import ArrayLike

from automix.evaluation.statistics import Floats

NUM_PERMUTATIONS = 10_000
"""Permutations drawn where there are more than that; the smallest p-value is then 1 in 10,001."""


def holm(p_values: ArrayLike) -> Floats:
    """Return p-values corrected for their number, in the order given (Holm 1979, step-down).

    Rejecting every hypothesis whose corrected value is at most alpha keeps the probability of any
    false rejection at alpha, whatever the dependence between the comparisons.

    Raises:
        ValueError: a value is not in [0, 1], or the array is not one-dimensional.
    """
    values = np.asarray(p_values, dtype=np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"p_values: expected numbers from 0 to 1 in one row, got {p_values!r}")
    # The k-th smallest of m values is multiplied by m - k + 1, and none may fall below a smaller
    # one: a hypothesis is rejected only if all with smaller values are.
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    corrected = np.empty_like(values)
    corrected[order] = np.maximum.accumulate(np.minimum(values[order] * factors, 1))
    return corrected


def paired_p_value(
    a: ArrayLike, b: ArrayLike, *, num_permutations: int = NUM_PERMUTATIONS, seed: int
) -> float:
    """Return the two-sided p-value that paired runs differ in the mean, by flipping signs.

    Under the null hypothesis each difference is as likely as its negative. Exact when all 2^n sign
    patterns are at most ``num_permutations``; otherwise patterns are drawn and the observed one
    counts as one of them, so the value is never 0. Entry i of ``a`` and of ``b``, (num_runs,), used
    the same seed; ``seed`` is that of the drawn patterns.

    Raises:
        ValueError: the arrays are not one row of at least two finite values of equal number.
    """
    first, second = (np.asarray(values, dtype=np.float64) for values in (a, b))
    if first.ndim != 1 or first.shape != second.shape or len(first) < 2:
        raise ValueError(
            "a, b: expected two rows of equal length with at least 2 values, "
            f"got shapes {first.shape} and {second.shape}"
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("a, b: expected finite values, got some that are not")

    def mean_difference(x: Floats, y: Floats, axis: int) -> Floats:
        return np.asarray((x - y).mean(axis=axis))

    # "samples" swaps the two values of a pair, which flips the sign of their difference.
    result = scipy.stats.permutation_test(
        (first, second),
        mean_difference,
        permutation_type="samples",
        vectorized=True,
        n_resamples=num_permutations,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)
