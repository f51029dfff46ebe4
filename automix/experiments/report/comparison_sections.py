"""Sections of the report about comparisons: forest plots, numbers, gain against cost."""

import dataclasses
import functools
import math
from collections.abc import Sequence

from automix.evaluation.calibration import TEMPERATURE_FROM
from automix.evaluation.statistics import Interval
from automix.experiments.common.equal_schedules import names_of, row_label
from automix.experiments.common.summaries import METRICS
from automix.experiments.common.verdicts import verdict_text
from automix.experiments.compare.verdict import Row, in_prose, operator_of
from automix.experiments.report.finished_runs import ComparedSplit, FinishedRun, titled
from automix.reporting.figures.comparison import (
    Comparison,
    ComparisonRow,
    GainPoint,
    comparison_figure,
    gain_figure,
)
from automix.reporting.page import ReportFigure, Section
from automix.reporting.tables import Column, Table, interval_of

# Metrics with a figure; the others have a table alone.
_DRAWN = ("calibrated_nll", "accuracy")
_CONTROLS = ("shuffled ", "shuffled-before-end ", "marginal-matched ")


def comparison_section(split: ComparedSplit, searches: Sequence[FinishedRun]) -> Section:
    """Return a comparison as figures and tables, per metric.

    ``searches`` are those that may have found a schedule in it, for what it cost.
    """
    # Per metric the picture, then its numbers; then cost against gain.
    num_seeds = split.run.result["num_seeds"]
    blocks: list[ReportFigure | Table] = []
    for metric in METRICS:
        name = f"{split.slug}-{metric}"
        comparison = _comparison(split, metric, searches) if metric in _DRAWN else None
        if comparison is not None:
            blocks.append(
                ReportFigure(
                    name=name,
                    title=f"{METRICS[metric][0]}: schedules side by side",
                    description=f"Mean {METRICS[metric][0]} of each schedule, paired differences.",
                    draw=functools.partial(comparison_figure, comparison),
                    caption=f"{num_seeds} paired seeds, {split.name} split, 95% BCa intervals.",
                )
            )
        blocks.append(_summary_table(split, metric, name))
    blocks += _gain(split, searches)
    return Section(
        title=titled(f"Comparison on the {split.name} split", split.run),
        text=(verdict_text(split.run.result),) if split.is_judged else (),
        blocks=tuple(blocks),
        source=split.run.source,
        link=split.run.link,
    )


def _comparison(
    split: ComparedSplit, metric: str, searches: Sequence[FinishedRun]
) -> Comparison | None:
    """Return rows from the best to the worst; None where the baseline has no interval."""
    name, better = METRICS[metric]
    baseline = split.run.result["baseline"]
    # A schedule has no mean where a seed diverged, no difference where the baseline did, and no
    # interval from a single seed.
    shown = [
        row
        for row in split.rows
        if row[metric]["interval"] is not None
        and (row[metric]["difference"] is None) == (row["name"] == baseline)
    ]
    if baseline not in [row["name"] for row in shown]:
        return None
    rows = tuple(
        ComparisonRow(
            label=row_label(row),
            value=Interval(**row[metric]["interval"]),
            difference=interval_of(row[metric]["difference"]),
            operator=operator_of(row),
            link=_link_of(row, split, searches),
        )
        for row in sorted(shown, key=lambda row: -better.sign * row[metric]["mean"])
    )
    statistic = f"mean of {split.run.result['num_seeds']} seeds"
    return Comparison(metric=name, statistic=statistic, better=better, rows=rows)


def _link_of(row: Row, split: ComparedSplit, searches: Sequence[FinishedRun]) -> str:
    """Return a link to the run behind a row: the search that found it, or else the comparison."""
    search = _search_of(row, searches)
    return split.run.link if search is None else search.link


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
        # A gain is positive where the schedule is better, also for metrics to minimize.
        low, high = sorted(better.sign * end for end in (difference.low, difference.high))
        gain = dataclasses.replace(
            difference, estimate=better.sign * difference.estimate, low=low, high=high
        )
        points.append(
            GainPoint(
                label=row_label(row),
                # In training runs: the one that uses the schedule, and all that found it.
                cost=1.0 + search_cost(row, searches),
                gain=gain,
                operator=operator_of(row),
                link=_link_of(row, split, searches),
            )
        )
    # A baseline alone is no picture, nor are points one above the other: without a search in this
    # folder, each costs one training run.
    if len({point.cost for point in points}) < 2:
        return []
    # In calibrated NLL, by which selection ranks the schedules.
    return [
        ReportFigure(
            name=f"{split.slug}-gain",
            title=f"Gain over {in_prose(split.run.result['baseline'])}, and what it cost",
            description="Gain of each schedule over its cost in plain training runs.",
            draw=functools.partial(gain_figure, points, metric=name, better=better),
            caption="Cost of one training run and of the search behind its schedule, if that is in "
            "this folder. A constant operator that was chosen among several cost the others as "
            "well. 95% BCa intervals.",
        )
    ]


def search_cost(row: Row, searches: Sequence[FinishedRun]) -> float:
    """Return the training runs of the search that found what a row replays or redraws."""
    search = _search_of(row, searches)
    return 0.0 if search is None else float(search.result["cost"]["trainings"])


def _search_of(row: Row, searches: Sequence[FinishedRun]) -> FinishedRun | None:
    """Return the search that found what a row replays or redraws.

    None where one of the names of the schedule needs no search.
    """
    runs = [_search_of_name(name, searches) for name in names_of(row)]
    return None if None in runs else runs[0]


def _search_of_name(name: str, searches: Sequence[FinishedRun]) -> FinishedRun | None:
    # Controls that redraw a learned schedule need its search just as much.
    for control in _CONTROLS:
        name = name.removeprefix(control)
    for run in searches:
        finalists = [row for row in run.result["final"] if row["origin"] == "learned"]
        learned = {name for row in finalists for name in names_of(row)}
        if name == run.path.name or name in learned:
            return run
    return None


def _summary_table(split: ComparedSplit, metric: str, name: str) -> Table:
    """Return every statistic of a metric over the seeds, the best first."""
    title, better = METRICS[metric]
    # What decides comes first: a phone shows two columns.
    columns = (
        Column(name="schedule"),
        Column(name="difference", unit=f"to {split.run.result['baseline']}"),
        Column(name="mean", unit=f"{split.run.result['num_seeds']} seeds", better=better),
        Column(name="better in"),
        Column(name="p-value", unit="after Holm", digits=2),
        Column(name="interquartile mean", better=better),
        Column(name="standard deviation"),
    )
    rows = [
        (
            row_label(row),
            interval_of(row[metric]["difference"]),
            interval_of(row[metric]["interval"]) or row[metric]["mean"],
            interval_of(row[metric]["probability_of_improvement"]),
            row[metric]["p_value_holm"],
            row[metric]["interquartile_mean"],
            row[metric]["standard_deviation"],
        )
        for row in sorted(split.rows, key=lambda row: _rank(row, metric, better.sign))
    ]
    calibration = f" {TEMPERATURE_FROM.capitalize()}." if metric == "calibrated_nll" else ""
    return Table(
        name=name,
        title=title,
        columns=columns,
        rows=tuple(rows),
        caption=f"{split.run.result['num_seeds']} training runs per schedule, {split.name} split, "
        f"{better} is better.{calibration} Against {in_prose(split.run.result['baseline'])}: "
        "paired difference; fraction of the seeds on which a schedule is better, with Wilson's 95% "
        "interval; p-value by sign flips, corrected for the number of schedules.",
    )


def _rank(row: Row, metric: str, sign: int) -> float:
    # A schedule on which a seed diverged has no mean, and comes last.
    mean = row[metric]["mean"]
    return math.inf if mean is None else -sign * float(mean)
