"""The parts of a report about comparisons: side by side, and what a gain costs."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from automix.evaluation.statistics import Interval
from automix.experiments.compare import METRICS
from automix.experiments.finished import ComparedSplit, FinishedRun, operator_of
from automix.reporting.figure_tables import comparison_table
from automix.reporting.figures.comparison import Comparison, ComparisonRow, comparison_figure
from automix.reporting.figures.cost import GainPoint, gain_figure
from automix.reporting.report import ReportFigure, Section
from automix.reporting.sweep_tables import interval_of
from automix.reporting.tables import Cell, Column, Table

_DRAWN = ("calibrated_nll", "accuracy")


def comparison_section(split: ComparedSplit, searches: Sequence[FinishedRun]) -> Section:
    """Return a comparison as figures and tables, per metric.

    Args:
        split: what is shown.
        searches: those that may have found a schedule in it, for what it cost.
    """
    num_seeds = split.run.result["num_seeds"]
    blocks: list[ReportFigure | Table] = []
    for metric in _DRAWN:
        comparison = _comparison(split, metric)
        if comparison is None:
            continue
        name = f"{split.slug}-{metric}"
        blocks.append(
            ReportFigure(
                name=name,
                title=f"{METRICS[metric][0]}: schedules side by side",
                description=f"Mean {METRICS[metric][0]} of each schedule, paired differences.",
                draw=functools.partial(comparison_figure, comparison),
                caption=f"{num_seeds} paired seeds, {split.name} split, 95% BCa intervals.",
                source=split.run.source,
            )
        )
        blocks.append(comparison_table(comparison, name=name, title=METRICS[metric][0]))
    blocks += _gain(split, searches)
    blocks.append(_summary_table(split))
    return Section(title=f"Comparison on the {split.name} split", blocks=tuple(blocks))


def _comparison(split: ComparedSplit, metric: str) -> Comparison | None:
    """Return rows from the best to the worst; None where the baseline diverged."""
    name, better = METRICS[metric]
    baseline = split.run.result["baseline"]
    shown = [
        row
        for row in split.rows
        if row[metric]["mean"] is not None
        and (row[metric]["difference"] is None) == (row["name"] == baseline)
    ]
    if baseline not in [row["name"] for row in shown]:
        return None
    rows = tuple(
        ComparisonRow(
            label=row["name"],
            value=Interval(**row[metric]["interval"]),
            difference=interval_of(row[metric]["difference"]),
            operator=operator_of(row["name"]),
        )
        for row in sorted(shown, key=lambda row: -better.sign * row[metric]["mean"])
    )
    statistic = f"mean of {split.run.result['num_seeds']} seeds"
    return Comparison(metric=name, statistic=statistic, better=better, rows=rows)


def _gain(split: ComparedSplit, searches: Sequence[FinishedRun]) -> list[ReportFigure]:
    """Return what each schedule gains over the baseline for what was spent on it."""
    name, better = METRICS["calibrated_nll"]
    points = []
    for row in split.rows:
        difference = interval_of(row["calibrated_nll"]["difference"])
        if row["name"] == split.run.result["baseline"]:
            # Nothing over itself; without it the picture would not show what the others gain over.
            difference = Interval(estimate=0.0, low=0.0, high=0.0, confidence=0.95)
        if difference is None:
            continue
        low, high = sorted(better.sign * end for end in (difference.low, difference.high))
        gain = dataclasses.replace(
            difference, estimate=better.sign * difference.estimate, low=low, high=high
        )
        cost = 1.0 + _search_cost(row["name"], searches)
        operator = operator_of(row["name"])
        points.append(GainPoint(label=row["name"], cost=cost, gain=gain, operator=operator))
    if len(points) < 2:
        return []
    draw = functools.partial(gain_figure, points, metric=name, better=better)
    return [
        ReportFigure(
            name=f"{split.slug}-gain",
            title=f"Gain over {split.run.result['baseline']}, and what it cost",
            description="Gain of each schedule over its cost in plain trainings.",
            draw=draw,
            caption="Cost of one training and of the search behind its schedule, if that is in "
            "this folder. A constant operator that was chosen among several cost the others as "
            "well. 95% BCa intervals.",
            source=split.run.source,
        )
    ]


def _search_cost(name: str, searches: Sequence[FinishedRun]) -> float:
    """Return the cost, in trainings, of the search that found what a row replays or redraws."""
    found = name.removeprefix("shuffled ").removeprefix("marginal-matched ")
    for run in searches:
        if found == run.path.name:
            cost = run.result["cost"]
            seconds = cost["search_seconds"] + cost["selection_seconds"]
            return float(seconds / cost["seconds_per_training"])
    return 0.0


def _summary_table(split: ComparedSplit) -> Table:
    """Return every statistic of every metric over the seeds."""
    columns = [Column(name="schedule")]
    for name, better in METRICS.values():
        columns += [
            Column(name=f"{name}: mean", better=better),
            Column(name="interquartile mean", better=better),
            Column(name="standard deviation"),
            Column(name="probability of improvement"),
            Column(name="p-value after Holm", digits=2),
        ]
    rows = tuple(
        (row["name"], *(cell for metric in METRICS for cell in _statistics(row[metric])))
        for row in split.rows
    )
    return Table(
        name=f"{split.slug}-summary",
        title="Every metric",
        columns=tuple(columns),
        rows=rows,
        caption=f"{split.run.result['num_seeds']} trainings per schedule, {split.name} split. "
        f"Against {split.run.result['baseline']}: share of the seeds on which a schedule is "
        "better, with Wilson's 95% interval; p-value of the paired difference by sign flips, "
        "corrected for the number of schedules.",
    )


def _statistics(summary: dict[str, Any]) -> list[Cell]:
    return [
        summary["mean"],
        summary["interquartile_mean"],
        summary["standard_deviation"],
        interval_of(summary["probability_of_improvement"]),
        summary["p_value_holm"],
    ]
