"""Summaries of paired runs: statistics as plain values for JSON, and their cells as text."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from automix.escapes import one_line
from automix.evaluation.significance import holm, paired_p_value
from automix.evaluation.statistics import (
    Interval,
    interquartile_mean,
    paired_difference,
    probability_of_improvement,
)
from automix.reporting.tables import Direction

Series = Mapping[Any, float]
"""One value per run, by what pairs it with the runs of other series, such as the seed. NaN is a
run that diverged."""

METRICS: Mapping[str, tuple[str, Direction]] = MappingProxyType(
    {
        "calibrated_nll": ("calibrated NLL (nats)", Direction.LOWER),
        "nll": ("NLL (nats)", Direction.LOWER),
        "accuracy": ("accuracy", Direction.HIGHER),
    }
)
"""Metrics that are compared, by their key in a result: title, and which way they are better."""

HEADINGS = ("mean", "IQM", "difference, 95% interval", "P(better)", "p (Holm)")
"""Columns of `summary_cells`."""


def summarize(
    series: Sequence[Series], *, better: Direction, seed: int, baseline: int = 0
) -> list[dict[str, Any]]:
    """Return the summary of each series as plain values for JSON; None where there is no number.

    A summary holds `num_runs`; `mean` with its `interval`; `interquartile_mean`;
    `standard_deviation`; and, over the runs that both share and neither diverged on, against the
    baseline: the mean paired `difference` (BCa bootstrap), `probability_of_improvement` (fraction
    of the pairs it wins, Wilson's interval), `p_value` (sign flips) and `p_value_holm`, corrected
    for the number of series. Intervals are of 95%. `values` are those of the runs, in their order.

    Args:
        series: one per method; those without a run are summarized as having none.
        better: which way the values are better.
        seed: of bootstrap and permutations.
        baseline: position of the series that the others are compared with.
    """
    summaries = [
        _alone(values, seed=seed)
        | _against(None if values is series[baseline] else series[baseline], values, better, seed)
        for values in series
    ]
    # One family of tests: every series that has enough pairs with the baseline.
    tested = [summary for summary in summaries if summary["p_value"] is not None]
    corrected = holm([summary["p_value"] for summary in tested])
    for summary, p_value in zip(tested, corrected, strict=True):
        summary["p_value_holm"] = float(p_value)
    return summaries


def _alone(series: Series, *, seed: int) -> dict[str, Any]:
    values = np.array(list(series.values()), dtype=np.float64)
    # A mean over the runs that did not diverge would praise a method for diverging.
    is_whole = len(values) > 0 and bool(np.isfinite(values).all())
    is_several = is_whole and len(values) > 1
    return {
        "num_runs": len(values),
        "mean": float(values.mean()) if is_whole else None,
        "interval": mean_interval(values, seed=seed) if is_several else None,
        "interquartile_mean": interquartile_mean(values) if is_whole else None,
        "standard_deviation": float(values.std(ddof=1)) if is_several else None,
        "values": [float(value) if math.isfinite(value) else None for value in values],
    }


def mean_interval(values: np.ndarray[Any, np.dtype[np.float64]], *, seed: int) -> dict[str, float]:
    """Return the BCa interval of a mean: that of the difference to zeros."""
    return plain(paired_difference(values, np.zeros_like(values), seed=seed))


def _against(
    baseline: Series | None, series: Series, better: Direction, seed: int
) -> dict[str, Any]:
    # The baseline has no comparison with itself, but the same keys as the others.
    comparison: dict[str, Any] = dict.fromkeys(
        ("difference", "probability_of_improvement", "p_value", "p_value_holm")
    )
    pairs = [
        (value, baseline[key])
        for key, value in series.items()
        if baseline is not None
        and key in baseline
        # A run that diverged has no difference; its pair is left out on both sides.
        and math.isfinite(value)
        and math.isfinite(baseline[key])
    ]
    # One pair has no interval.
    if len(pairs) < 2:
        return comparison
    values, reference = np.array(pairs, dtype=np.float64).T
    # With the sign, more is better: the probability is that of being better, not of being larger.
    improvement = probability_of_improvement(
        better.sign * values, better.sign * reference, paired=True
    )
    return comparison | {
        "difference": plain(paired_difference(values, reference, seed=seed)),
        "probability_of_improvement": plain(improvement),
        "p_value": paired_p_value(values, reference, seed=seed),
    }


def plain(interval: Interval) -> dict[str, float]:
    """Return an interval as it stands in a result: estimate, low, high, confidence."""
    return dataclasses.asdict(interval)


def summary_cells(summary: Mapping[str, Any]) -> list[str]:
    """Return a summary as one cell per heading."""
    if summary["mean"] is None:
        return ["diverged" if summary["num_runs"] else "no run", "", "", "", ""]
    difference, improvement = summary["difference"], summary["probability_of_improvement"]
    return [
        f"{summary['mean']:.4f}",
        f"{summary['interquartile_mean']:.4f}",
        "" if difference is None else interval_text(difference, "+.4f"),
        "" if improvement is None else interval_text(improvement, ".0%"),
        "" if summary["p_value_holm"] is None else f"{summary['p_value_holm']:.2g}",
    ]


def interval_text(interval: Mapping[str, float], style: str) -> str:
    """Return an interval as text; ``style`` is the format of its numbers."""
    estimate, low, high = (format(interval[key], style) for key in ("estimate", "low", "high"))
    return f"{estimate} [{low}, {high}]"


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return one line per row, with columns as wide as their widest cell."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
