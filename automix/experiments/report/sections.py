"""Sections of the report about searches, replays and comparisons."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from automix.configuration.task import ReplayConfig, TaskConfig
from automix.errors import CheckpointError, DataError
from automix.evaluation.statistics import Interval
from automix.experiments.common.saved_classifier import load_classifier
from automix.experiments.common.summaries import METRICS
from automix.experiments.config import SearchConfig
from automix.experiments.report.finished_runs import ComparedSplit, FinishedRun, operator_of
from automix.experiments.search.run import SCHEDULE_NAME
from automix.experiments.search.worth import explanation_text
from automix.experiments.show import make_sheet, spread_over_classes
from automix.operator_info import Operator
from automix.reporting.figures.comparison import (
    Comparison,
    ComparisonRow,
    Cost,
    GainPoint,
    comparison_figure,
    comparison_table,
    cost_figure,
    cost_table,
    gain_figure,
)
from automix.reporting.figures.learning import learning_curve_figure
from automix.reporting.figures.schedule import SchedulePanel, schedule_figure, schedule_table
from automix.reporting.page import ReportFigure, Section
from automix.reporting.tables import Column, Direction, Table, interval_of
from automix.schedule import Decision, Schedule
from automix.training.trainer import build_trainer, load_search_data

_SHEET_ROWS = 6
# Schedules drawn one by one; more would not be looked at.
_MOST_PANELS = 6
# Metrics with a figure; the table at the end has all of them.
_DRAWN = ("calibrated_nll", "accuracy")


def schedule_section(runs: Sequence[FinishedRun]) -> Section:
    """Return the schedules that searches selected, which differ in their seed alone.

    Several are drawn one by one and as a whole: means over them, with quartiles.
    """
    # One panel per search, then the whole in front: one seed's schedule is one draw.
    schedules = [Schedule.load(run.path / SCHEDULE_NAME) for run in runs]
    panels = [
        SchedulePanel(title=f"selected by {run.path.name}", schedules=(schedule,))
        for run, schedule in zip(runs, schedules, strict=True)
    ]
    caption = ""
    if len(runs) > 1:
        whole = SchedulePanel(title=f"all {len(runs)} seeds", schedules=tuple(schedules))
        panels = [whole, *panels[: _MOST_PANELS - 1]]
        caption = "All seeds: means; whiskers and bands are quartiles over the searches."
    figure = ReportFigure(
        name=f"{runs[0].slug}-schedule",
        title="The selected schedule" if len(runs) == 1 else "The selected schedules",
        description="Fraction of batches mixed by each operator over the training run.",
        draw=functools.partial(schedule_figure, panels),
        caption=caption,
    )
    tables = [
        schedule_table(schedule, name=f"{run.slug}-schedule", title=f"Segments of {run.path.name}")
        for run, schedule in zip(runs, schedules, strict=True)
    ]
    return Section(title="Schedule", blocks=(figure, *tables), source=runs[0].source)


def learning_section(run: FinishedRun) -> Section:
    """Return the learning curve and the cost of a search."""
    config: SearchConfig = run.config(SearchConfig)
    potentials = [episode["potential"] for episode in run.result["episodes"]]
    per_rollout = config.agent.episodes_per_rollout
    cost = run.result["cost"]
    # Apart: more episodes lengthen the first, more candidates the second.
    stages = Cost(
        stages=tuple(cost["seconds_by_stage"].items()),
        training_seconds=cost["seconds_per_training"],
    )
    learning = ReportFigure(
        name=f"{run.slug}-learning",
        title="What the agent learned",
        description="Final potential of the episodes of each rollout.",
        draw=functools.partial(learning_curve_figure, potentials, per_rollout=per_rollout),
        caption=f"{config.environment.potential} on the reward split at the end of each "
        "training run, with the sign that makes higher better; quartiles per rollout.",
    )
    return Section(
        title=f"Search: {run.path.name}",
        blocks=(
            # A race alone has no episodes.
            *([learning] if potentials else []),
            ReportFigure(
                name=f"{run.slug}-cost",
                title="What it cost",
                description="Seconds of each stage.",
                draw=functools.partial(cost_figure, stages),
            ),
            cost_table(stages, name=f"{run.slug}-cost", title="Cost"),
        ),
        source=run.source,
    )


def final_section(run: FinishedRun) -> Section:
    """Return the final, on images and seeds that chose nothing."""
    verdict = run.result["verdict"]
    differences = [verdict["differences"].get(row["name"]) for row in run.result["final"]]
    section = _ranking(
        run,
        "Final",
        list(zip(run.result["final"], differences, strict=True)),
        difference="selected minus this",
        caption=f"{verdict['sentence']}. On the selection split, with seeds that no stage before "
        "had; 95% intervals of the mean and of the paired difference.",
    )
    why = run.result.get("why")  # searches of earlier versions have none
    return dataclasses.replace(section, text=(explanation_text(why),)) if why else section


def selection_section(run: FinishedRun) -> Section:
    """Return the standings of the selection stage."""
    return _ranking(
        run,
        "Selection",
        [(standing, standing["difference_to_first"]) for standing in run.result["standings"]],
        difference="difference to first",
        caption="Retrained with fresh seeds, compared on the reward split by successive halving; "
        "95% intervals of the mean and of the paired difference. A single seed has none, and its "
        "loss is left out; means over different numbers of seeds are not comparable to the last "
        "digit.",
    )


def _ranking(
    run: FinishedRun,
    title: str,
    rows: Sequence[tuple[Mapping[str, Any], Mapping[str, float] | None]],
    *,
    difference: str,
    caption: str,
) -> Section:
    """Return a stage of a search as a table: its schedules, each with a paired difference."""
    table = Table(
        name=f"{run.slug}-{title.lower()}",
        title=title,
        columns=(
            Column(name="schedule"),
            Column(name="kind"),
            Column(name="seeds"),
            Column(name="calibrated NLL", unit="nats", better=Direction.LOWER),
            Column(name=difference, unit="nats"),
        ),
        rows=tuple(
            (
                row["name"],
                row["origin"],
                row["num_seeds"],
                interval_of(row.get("interval")),
                interval_of(to_other),
            )
            for row, to_other in rows
        ),
        caption=caption,
    )
    return Section(title=f"{title}: {run.path.name}", blocks=(table,))


def replay_section(replays: Sequence[FinishedRun]) -> Section:
    """Return the results of replayed training runs."""
    rows = tuple(
        (
            run.path.name,
            run.result["steps"],
            run.result["test"]["accuracy"],
            run.result["test"]["calibrated_nll"],
            run.result["test"]["nll"],
        )
        for run in replays
    )
    table = Table(
        name="replay",
        title="Replayed training runs",
        columns=(
            Column(name="run"),
            Column(name="steps", digits=9),
            Column(name="test accuracy", better=Direction.HIGHER),
            Column(name="calibrated NLL", unit="nats", better=Direction.LOWER),
            Column(name="NLL", unit="nats", better=Direction.LOWER),
        ),
        rows=rows,
        caption="One training run each: one seed says little.",
    )
    return Section(title="Replay", blocks=(table,))


def sheet_section(run: FinishedRun, replays: Sequence[FinishedRun]) -> Section:
    """Return a contact sheet per operator, on training images of the search."""
    config: SearchConfig = run.config(SearchConfig)
    try:
        data = load_search_data(config.task.data)
    except DataError as error:
        # The runs may have come from another machine, without the images.
        return Section(title="What the operators do", text=(f"Not shown: {error}.",))
    indices = spread_over_classes(data.train.labels, _SHEET_ROWS, seed=config.seed)
    images, labels = data.train.take(indices)
    saliency, origin = _saliency(config.task, replays, images, labels)
    # At the strength that was selected, where the operator was; else at its default.
    schedule = Schedule.load(run.path / SCHEDULE_NAME)
    decisions = {
        decision.operator: decision
        for segment in schedule.segments
        for decision in segment.mixture.decisions
    }
    sheets = [
        make_sheet(
            decisions.get(operator, Decision(operator=operator)),
            images,
            labels,
            class_names=data.class_names,
            saliency_BHW=saliency,
            seed=config.seed,
        )
        # What ships may use operators that the environment lacks.
        for operator in dict.fromkeys((*config.environment.operators, *schedule.operators))
        if operator is not Operator.NONE
    ]
    return Section(title="What the operators do", text=(origin,), blocks=tuple(sheets))


def _saliency(
    task: TaskConfig, replays: Sequence[FinishedRun], images: Tensor, labels: Tensor
) -> tuple[Tensor | None, str]:
    """Return maps of the classifier of a replay of the same task, if there is one."""
    for run in replays:
        config: ReplayConfig = run.config(ReplayConfig)
        if (config.task.data, config.task.model) == (task.data, task.model):
            model, facts = load_classifier(run.path)
            # Its own weights: those that the configuration may name are not looked for.
            network = task.model.model_copy(update={"weights": None})
            if facts.model != network:
                raise CheckpointError(f"{run.path}: expected the classifier of its configuration")
            plain = task.model_copy(update={"model": network})
            trainer = build_trainer(plain, load_search_data(task.data), seed=config.seed)
            trainer.model.load_state_dict(model.state_dict())
            # With the running statistics: six images are too few for those of a batch.
            trainer.model.eval()
            maps = trainer.saliency_of(images, labels).cpu()
            return maps, f"Saliency: input gradient of the classifier of {run.path.name}."
    return None, "Saliency: spectral residual, as there is no replayed classifier of this task."


def comparison_section(split: ComparedSplit, searches: Sequence[FinishedRun]) -> Section:
    """Return a comparison as figures and tables, per metric.

    ``searches`` are those that may have found a schedule in it, for what it cost.
    """
    # Per metric the picture, then its numbers; then cost against gain; the longest table last.
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
            )
        )
        blocks.append(comparison_table(comparison, name=name, title=METRICS[metric][0]))
    blocks += _gain(split, searches)
    blocks.append(_summary_table(split))
    title = f"Comparison on the {split.name} split"
    return Section(title=title, blocks=tuple(blocks), source=split.run.source)


def _comparison(split: ComparedSplit, metric: str) -> Comparison | None:
    """Return rows from the best to the worst; None where the baseline diverged."""
    name, better = METRICS[metric]
    baseline = split.run.result["baseline"]
    # A schedule has no mean where a seed diverged, and no difference where the baseline did.
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
        # A gain is positive where the schedule is better, also for metrics to minimize.
        low, high = sorted(better.sign * end for end in (difference.low, difference.high))
        gain = dataclasses.replace(
            difference, estimate=better.sign * difference.estimate, low=low, high=high
        )
        # In training runs: the one that uses the schedule, and all that found it.
        cost = 1.0 + search_cost(row["name"], searches)
        operator = operator_of(row["name"])
        points.append(GainPoint(label=row["name"], cost=cost, gain=gain, operator=operator))
    # A baseline alone is no picture, nor are points one above the other: without a search in this
    # folder, each costs one training run.
    if len({point.cost for point in points}) < 2:
        return []
    # In calibrated NLL, by which selection ranks the schedules.
    return [
        ReportFigure(
            name=f"{split.slug}-gain",
            title=f"Gain over {split.run.result['baseline']}, and what it cost",
            description="Gain of each schedule over its cost in plain training runs.",
            draw=functools.partial(gain_figure, points, metric=name, better=better),
            caption="Cost of one training run and of the search behind its schedule, if that is in "
            "this folder. A constant operator that was chosen among several cost the others as "
            "well. 95% BCa intervals.",
        )
    ]


def search_cost(name: str, searches: Sequence[FinishedRun]) -> float:
    """Return the cost, in training runs, of the search that found what a row replays or redraws."""
    # Controls that redraw a learned schedule need its search just as much.
    searched = name.removeprefix("shuffled ").removeprefix("shuffled-before-end ")
    searched = searched.removeprefix("marginal-matched ")
    for run in searches:
        learned = {row["name"] for row in run.result["final"] if row["origin"] == "learned"}
        if searched == run.path.name or searched in learned:
            cost = run.result["cost"]
            seconds = cost["seconds"]
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
    rows = []
    for row in split.rows:
        cells = [row["name"]]
        for summary in (row[metric] for metric in METRICS):
            cells += [summary[name] for name in ("mean", "interquartile_mean")]
            cells += [summary["standard_deviation"]]
            cells += [interval_of(summary["probability_of_improvement"]), summary["p_value_holm"]]
        rows.append(tuple(cells))
    return Table(
        name=f"{split.slug}-summary",
        title="Every metric",
        columns=tuple(columns),
        rows=tuple(rows),
        caption=f"{split.run.result['num_seeds']} training runs per schedule, {split.name} split. "
        f"Against {split.run.result['baseline']}: fraction of the seeds on which a schedule is "
        "better, with Wilson's 95% interval; p-value of the paired difference by sign flips, "
        "corrected for the number of schedules.",
    )
