"""Sections of the report: searches, replays, comparisons, sweeps."""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from automix.configuration.task import TaskConfig
from automix.errors import DataError
from automix.evaluation.statistics import Interval
from automix.experiments.common.config import ReplayConfig
from automix.experiments.common.run_folder import ENVIRONMENT_NAME, read_json
from automix.experiments.compare.run import METRICS
from automix.experiments.config import SearchConfig
from automix.experiments.report.finished import ComparedSplit, FinishedRun, operator_of, source_of
from automix.experiments.search.run import SCHEDULE_NAME
from automix.experiments.show import make_sheet, spread_over_classes
from automix.experiments.sweep.spec import describe_settings
from automix.experiments.sweep.table import TABLE_KIND, TABLE_NAME
from automix.operator_info import Operator
from automix.reporting.contact_sheet import ContactSheet
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
from automix.reporting.figures.learning import LearningCurve, learning_curve_figure
from automix.reporting.figures.schedule import SchedulePanel, schedule_figure, schedule_table
from automix.reporting.page import Block, ReportFigure, Section, Source
from automix.reporting.tables import (
    Cell,
    Column,
    Direction,
    Table,
    cells_table,
    interval_of,
    measure_table,
)
from automix.schedule import Decision, Schedule
from automix.training.trainer import build_trainer, load_search_data

_SHEET_ROWS = 6
# Schedules drawn one by one; more would not be looked at.
_MOST_PANELS = 6


def schedule_section(runs: Sequence[FinishedRun]) -> Section:
    """Return the schedules that searches selected, which differ in their seed alone.

    Several are drawn one by one and as a whole: means over them, with quartiles.
    """
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
        description="Share of batches mixed by each operator over the training.",
        draw=functools.partial(schedule_figure, panels),
        caption=caption,
        source=runs[0].source,
    )
    tables = [
        schedule_table(schedule, name=f"{run.slug}-schedule", title=f"Segments of {run.path.name}")
        for run, schedule in zip(runs, schedules, strict=True)
    ]
    return Section(title="Schedule", blocks=(figure, *tables))


def learning_section(run: FinishedRun) -> Section:
    """Return the learning curve and the cost of a search."""
    config: SearchConfig = run.config(SearchConfig)
    potentials = [episode["potential"] for episode in run.result["episodes"]]
    curve = LearningCurve.from_returns(potentials, per_rollout=config.agent.episodes_per_rollout)
    cost = run.result["cost"]
    stages = Cost(
        stages=(
            ("learning", cost["search_seconds"]),
            ("selection", cost["selection_seconds"]),
        ),
        training_seconds=cost["seconds_per_training"],
    )
    return Section(
        title=f"Search: {run.path.name}",
        blocks=(
            ReportFigure(
                name=f"{run.slug}-learning",
                title="What the agent learned",
                description="Final potential of the episodes of each rollout.",
                draw=functools.partial(learning_curve_figure, curve),
                caption=f"{config.environment.potential} on the reward split at the end of each "
                "training, with the sign that makes higher better; quartiles per rollout.",
                source=run.source,
            ),
            ReportFigure(
                name=f"{run.slug}-cost",
                title="What it cost",
                description="Seconds of learning and selection.",
                draw=functools.partial(cost_figure, stages),
                source=run.source,
            ),
            cost_table(stages, name=f"{run.slug}-cost", title="Cost"),
        ),
    )


def selection_section(run: FinishedRun) -> Section:
    """Return the standings of the selection stage."""
    rows = tuple(
        (
            standing["name"],
            "constant" if standing["is_constant"] else "learned",
            standing["num_seeds"],
            standing["mean_calibrated_nll"],
            interval_of(standing["difference_to_selected"]),
        )
        for standing in run.result["standings"]
    )
    table = Table(
        name=f"{run.slug}-selection",
        title="Selection",
        columns=(
            Column(name="schedule"),
            Column(name="kind"),
            Column(name="seeds"),
            Column(name="calibrated NLL", unit="nats", better=Direction.LOWER),
            Column(name="difference to selected", unit="nats"),
        ),
        rows=rows,
        caption="Retrained with fresh seeds, compared on the selection split by successive "
        "halving; 95% intervals of the paired difference. Means over different numbers of seeds "
        "are not comparable to the last digit.",
    )
    return Section(title=f"Selection: {run.path.name}", blocks=(table,))


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
        title="Replayed trainings",
        columns=(
            Column(name="run"),
            Column(name="steps", digits=9),
            Column(name="test accuracy", better=Direction.HIGHER),
            Column(name="calibrated NLL", unit="nats", better=Direction.LOWER),
            Column(name="NLL", unit="nats", better=Direction.LOWER),
        ),
        rows=rows,
        caption="One training each: one seed says little.",
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
    schedule = Schedule.load(run.path / SCHEDULE_NAME)
    sheets: list[ContactSheet] = []
    decisions = {segment.decision.operator: segment.decision for segment in schedule.segments}
    for operator in config.environment.operators:
        decision = decisions.get(operator, Decision(operator=operator))
        if operator is not Operator.NONE:
            sheets.append(
                make_sheet(
                    decision,
                    images,
                    labels,
                    class_names=data.class_names,
                    saliency_BHW=saliency,
                    seed=config.seed,
                )
            )
    return Section(title="What the operators do", text=(origin,), blocks=tuple(sheets))


def _saliency(
    task: TaskConfig, replays: Sequence[FinishedRun], images: Tensor, labels: Tensor
) -> tuple[Tensor | None, str]:
    """Return maps of the classifier of a replay of the same task, if there is one."""
    for run in replays:
        config: ReplayConfig = run.config(ReplayConfig)
        if (config.task.data, config.task.model) == (task.data, task.model):
            trainer = build_trainer(config.task, load_search_data(task.data), seed=config.seed)
            weights = safetensors.torch.load((run.path / "classifier.safetensors").read_bytes())
            trainer.model.load_state_dict(weights)
            trainer.model.eval()
            maps = trainer.saliency_of(images, labels).cpu()
            return maps, f"Saliency: input gradient of the classifier of {run.path.name}."
    return None, "Saliency: spectral residual, as there is no replayed classifier of this task."


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
            description="Gain of each schedule over its cost in plain training runs.",
            draw=draw,
            caption="Cost of one training run and of the search behind its schedule, if that is in "
            "this folder. A constant operator that was chosen among several cost the others as "
            "well. 95% BCa intervals.",
            source=split.run.source,
        )
    ]


def _search_cost(name: str, searches: Sequence[FinishedRun]) -> float:
    """Return the cost, in training runs, of the search that found what a row replays or redraws."""
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
        caption=f"{split.run.result['num_seeds']} training runs per schedule, {split.name} split. "
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


_ALPHA = 0.05
_FOUND = ("run/search", "run")
"""Where, in the folder of a cell, a search leaves its schedule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedSweep:
    """A sweep with a table.

    Attributes:
        path: its folder.
        slug: what its figures and tables are called after.
        table: of `automix.experiments.sweep.table.build_table`, with its `name`.
        source: how to get it again.
    """

    path: Path
    slug: str
    table: Mapping[str, Any]
    source: Source

    @classmethod
    def read(cls, path: Path, slug: str) -> "FinishedSweep | None":
        """Read the table in the folder of a sweep; None if it is no sweep's.

        Raises:
            CheckpointError: a file is damaged.
        """
        table = read_json(path / TABLE_NAME)
        if table.get("kind") != TABLE_KIND:
            return None
        environment = path / ENVIRONMENT_NAME
        known = read_json(environment) if environment.exists() else None
        source = Source(command="automix ablate table") if known is None else source_of(known)
        return cls(path=path, slug=slug, table=table, source=source)

    @property
    def is_seeded(self) -> bool:
        """Whether rows are means over seeds."""
        return self.table["seed_key"] is not None


def sweep_section(sweep: FinishedSweep) -> Section:
    """Return effects and table of every measure, then the schedules that were found, by row."""
    blocks: list[Block] = []
    for number, measure in enumerate(sweep.table["measures"], start=1):
        if sweep.is_seeded:
            blocks += _measure_blocks(sweep, measure, f"{sweep.slug}-{number}")
    blocks += _found(sweep)
    blocks.append(cells_table(sweep.table, name=f"{sweep.slug}-cells"))
    is_compared = sweep.is_seeded and len(sweep.table["rows"]) > 1
    sentences = [_effect(sweep, each) for each in sweep.table["measures"] if is_compared]
    count, total = len(sweep.table["cells"]), sweep.table["num_cells"]
    text = f"{count} of {total} cells are finished; a cell is one {sweep.table['experiment']}."
    return Section(
        title=f"Ablation: {sweep.table['name']}",
        text=(text.replace("_", " "), *sentences),
        blocks=tuple(blocks),
    )


def sweep_sentence(sweep: FinishedSweep) -> str:
    """Return what the first measure of a sweep says, or how much of the sweep is done."""
    measures = sweep.table["measures"]
    if not measures or not sweep.is_seeded or len(sweep.table["rows"]) < 2:
        done, total = len(sweep.table["cells"]), sweep.table["num_cells"]
        return f"Ablation {sweep.table['name']}: {done} of {total} cells are finished."
    return f"Ablation {sweep.table['name']}: {_effect(sweep, measures[0])}"


def _effect(sweep: FinishedSweep, measure: Mapping[str, Any]) -> str:
    """Return which rows differ from the first in a measure, after correction."""
    first, *others = sweep.table["rows"]
    tested = {_label(row): row["measures"][measure["name"]]["p_value_holm"] for row in others}
    tested = {label: value for label, value in tested.items() if value is not None}
    surely = [label for label, value in tested.items() if value <= _ALPHA]
    found = f"{', '.join(surely)} differ" if surely else "none is shown to differ"
    return (
        f"{measure['name']}: of {len(tested)} rows compared with {_label(first)!r}, {found} at 5% "
        "after Holm's correction."
    )


def _measure_blocks(sweep: FinishedSweep, measure: Mapping[str, Any], name: str) -> list[Block]:
    comparison = _comparison_report_sweeps(sweep, measure)
    first = _label(sweep.table["rows"][0])
    caption = (
        f"Over the values of {sweep.table['seed_key']!r}; differences to {first!r} are paired. 95% "
        "intervals: BCa of means and differences, Wilson of probabilities; p-values by sign flips, "
        "corrected for the number of rows."
    )
    table = measure_table(sweep.table, measure, name=name, caption=caption)
    if comparison is None:
        return [table]
    figure = ReportFigure(
        name=name,
        title=measure["name"],
        description=f"{measure['name']} of each row, and its paired difference to the first.",
        draw=functools.partial(comparison_figure, comparison),
        caption=f"Over the values of {sweep.table['seed_key']!r}, 95% BCa intervals.",
        source=sweep.source,
    )
    return [figure, table]


def _comparison_report_sweeps(
    sweep: FinishedSweep, measure: Mapping[str, Any]
) -> Comparison | None:
    """Return the rows that have intervals; None where fewer than two have."""
    summaries = [(row, row["measures"][measure["name"]]) for row in sweep.table["rows"]]
    shown = [
        (row, each)
        for position, (row, each) in enumerate(summaries)
        if each["interval"] is not None and (each["difference"] is None) == (position == 0)
    ]
    if len(shown) < 2 or shown[0][0] is not sweep.table["rows"][0]:
        return None
    rows = tuple(
        ComparisonRow(
            label=_label(row).removeprefix("variant="),
            value=Interval(**each["interval"]),
            difference=interval_of(each["difference"]),
        )
        for row, each in shown
    )
    return Comparison(
        metric=measure["name"],
        statistic=f"mean of {max(each['num_runs'] for _, each in shown)} cells",
        better=Direction(measure["better"]),
        rows=rows,
    )


def _found(sweep: FinishedSweep) -> list[Block]:
    """Return the schedules that the searches of each row found: means and quartiles over seeds."""
    groups: dict[str, list[Schedule]] = {}
    for cell in sweep.table["cells"]:
        settings = {
            key: value for key, value in cell["settings"].items() if key != sweep.table["seed_key"]
        }
        for folder in _FOUND:
            path = sweep.path / cell["cell"] / folder / SCHEDULE_NAME
            if sweep.table["experiment"].startswith("search") and path.exists():
                groups.setdefault(json.dumps(settings), []).append(Schedule.load(path))
    if not groups:
        return []
    panels = [
        SchedulePanel(
            title=f"{describe_settings(json.loads(key)).removeprefix('variant=') or 'all'}, "
            f"{len(schedules)} seeds",
            schedules=tuple(schedules),
        )
        for key, schedules in groups.items()
    ]
    return [
        ReportFigure(
            name=f"{sweep.slug}-schedules",
            title="What was found",
            description="Share of batches mixed by each operator over the training, by row.",
            draw=functools.partial(schedule_figure, panels),
            caption="Means over the seeds of the search; whiskers and bands are quartiles.",
            source=sweep.source,
        )
    ]


def _label(row: Mapping[str, Any]) -> str:
    return describe_settings(row["settings"]) or "all"
