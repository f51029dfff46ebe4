"""What runs that share their seeds say about each other: means, intervals, corrected p-values."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from automix.evaluation.significance import holm, paired_p_value
from automix.evaluation.statistics import (
    Interval,
    interquartile_mean,
    paired_difference,
    probability_of_improvement,
)
from automix.reporting.values import Direction

Series = Mapping[Any, float]
"""One value per run, by what pairs it with the runs of other series, such as the seed. NaN is a
run that diverged."""


def summarise(
    series: Sequence[Series], *, better: Direction, seed: int, baseline: int = 0
) -> list[dict[str, Any]]:
    """Return the summary of each series as plain values for JSON; None where there is no number.

    A summary holds `num_runs`; `mean` with its `interval`; `interquartile_mean`;
    `standard_deviation`; and, over the runs that both share and neither diverged on, against the
    baseline: the mean paired `difference` (BCa bootstrap), `probability_of_improvement` (share of
    the pairs it wins, Wilson's interval), `p_value` (sign flips) and `p_value_holm`, corrected for
    the number of series. Intervals are of 95%. `values` are those of the runs, in their order.

    Args:
        series: what is summarised; those without a run are summarised as having none.
        better: which way the values are better.
        seed: of bootstrap and permutations.
        baseline: position of the series that the others are compared with.
    """
    summaries = [
        _alone(values, seed=seed)
        | _against(None if values is series[baseline] else series[baseline], values, better, seed)
        for values in series
    ]
    tested = [summary for summary in summaries if summary["p_value"] is not None]
    corrected = holm([summary["p_value"] for summary in tested])
    for summary, p_value in zip(tested, corrected, strict=True):
        summary["p_value_holm"] = float(p_value)
    return summaries


def _alone(series: Series, *, seed: int) -> dict[str, Any]:
    values = np.array(list(series.values()), dtype=np.float64)
    is_whole = len(values) > 0 and bool(np.isfinite(values).all())
    is_several = is_whole and len(values) > 1
    zeros = np.zeros_like(values)
    return {
        "num_runs": len(values),
        "mean": float(values.mean()) if is_whole else None,
        "interval": _plain(paired_difference(values, zeros, seed=seed)) if is_several else None,
        "interquartile_mean": interquartile_mean(values) if is_whole else None,
        "standard_deviation": float(values.std(ddof=1)) if is_several else None,
        "values": [float(value) if math.isfinite(value) else None for value in values],
    }


def _against(
    baseline: Series | None, series: Series, better: Direction, seed: int
) -> dict[str, Any]:
    comparison: dict[str, Any] = dict.fromkeys(
        ("difference", "probability_of_improvement", "p_value", "p_value_holm")
    )
    pairs = [
        (value, baseline[key])
        for key, value in series.items()
        if baseline is not None
        and key in baseline
        and math.isfinite(value)
        and math.isfinite(baseline[key])
    ]
    if len(pairs) < 2:
        return comparison
    own, other = np.array(pairs, dtype=np.float64).T
    improvement = probability_of_improvement(better.sign * own, better.sign * other, paired=True)
    return comparison | {
        "difference": _plain(paired_difference(own, other, seed=seed)),
        "probability_of_improvement": _plain(improvement),
        "p_value": paired_p_value(own, other, seed=seed),
    }


def _plain(interval: Interval) -> dict[str, float]:
    return dataclasses.asdict(interval)
