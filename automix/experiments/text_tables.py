"""Summaries as plain text for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

HEADINGS = ("mean", "IQM", "difference, 95% interval", "P(better)", "p (Holm)")
"""Columns of `summary_cells`."""


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return one line per row, with columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def summary_cells(summary: Mapping[str, Any]) -> list[str]:
    """Return a summary of `automix.experiments.summaries` as one cell per heading."""
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
