"""Report: one page about the runs in a folder."""

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from torch import Tensor

from automix.errors import CheckpointError
from automix.evaluation.statistics import Interval, paired_difference
from automix.experiments.config import CompareConfig, ReplayConfig, SearchConfig
from automix.experiments.runs import CONFIG_NAME, ENVIRONMENT_NAME, RESULT_NAME, read_json
from automix.experiments.sheets import make_sheet, spread_over_classes
from automix.reporting.contact_sheet import ContactSheet
from automix.reporting.figure_tables import comparison_table, cost_table, schedule_table
from automix.reporting.figures.comparison import Comparison, ComparisonRow, comparison_figure
from automix.reporting.figures.cost import Cost, cost_figure
from automix.reporting.figures.learning import LearningCurve, learning_curve_figure
from automix.reporting.figures.schedule import SchedulePanel, schedule_figure
from automix.reporting.report import Fact, ReportData, ReportFigure, Section, Source
from automix.reporting.report import write_report as write_report_page
from automix.reporting.tables import Column, Table
from automix.reporting.values import Direction
from automix.schedule import Decision, Schedule
from automix.training.build import build_trainer, load_search_data
from automix.training.task import TaskConfig
from automix.vocabulary import Operator

_SHEET_ROWS = 6


class _Run:
    """A finished run: its folder, result and configuration."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.result = read_json(path / RESULT_NAME)
        self.environment = read_json(path / ENVIRONMENT_NAME)

    @property
    def kind(self) -> str:
        return str(self.result["kind"])

    def config(self, model: type[Any]) -> Any:
        return model.from_yaml(self.path / CONFIG_NAME)

    @property
    def source(self) -> Source:
        packages = {str(k): str(v) for k, v in self.environment["packages"].items()}
        versions = {"automix": self.environment["automix"], **packages}
        versions |= {"device": self.environment["device"]}
        return Source(command=self.environment["command"], versions=versions)


def write_report(folder: Path) -> Path:
    """Write ``report.html`` about the finished search, replays and comparisons below ``folder``.

    Raises:
        CheckpointError: there is no finished run.
    """
    runs = [_Run(path.parent) for path in sorted(folder.rglob(RESULT_NAME))]
    if not runs:
        raise CheckpointError(f"{folder}: expected finished runs, got none")
    searches = [run for run in runs if run.kind == "search"]
    replays = [run for run in runs if run.kind == "replay"]
    compares = [run for run in runs if run.kind == "compare"]
    sections: list[Section] = []
    for run in searches:
        sections += [_schedule_section(run), _learning_section(run), _selection_section(run)]
    sections += [_comparison_section(run) for run in compares]
    sections += [_replay_section(replays)] if replays else []
    sections += [_sheet_section(run, replays) for run in searches]
    data = ReportData(
        title="What mixing to use, and when",
        headline=tuple(_headline(searches, compares)),
        facts=tuple(_facts(searches, compares)),
        sections=tuple(sections),
        limits=tuple(_limits(searches, compares)),
        source=runs[0].source,
    )
    return write_report_page(data, folder)


def _headline(searches: Sequence[_Run], compares: Sequence[_Run]) -> list[str]:
    sentences = [
        f"The search selected {run.result['selected']!r} among learned schedules and every "
        f"operator held constant."
        for run in searches
    ]
    for run in compares:
        best = _best_fixed(run)
        row = _learned_row(run)
        if best and row:
            difference = _paired(row, best, "calibrated_nll")
            verdict = "is better than" if difference.high < 0 else "is not shown to differ from"
            verdict = "is worse than" if difference.low > 0 else verdict
            sentences.append(
                f"Over {run.result['num_seeds']} paired seeds on the {run.result['split']} split, "
                f"{row['name']} {verdict} the best constant operator ({best['name']}): "
                f"calibrated NLL {difference.estimate:+.4f} nats, 95% interval "
                f"[{difference.low:+.4f}, {difference.high:+.4f}]; lower is better."
            )
    return sentences or ["Results of the runs in this folder."]


def _facts(searches: Sequence[_Run], compares: Sequence[_Run]) -> list[Fact]:
    facts = []
    for run in searches:
        cost = run.result["cost"]
        seconds = cost["search_seconds"] + cost["selection_seconds"]
        facts.append(
            Fact(
                label="cost of the search",
                value=f"{seconds / cost['seconds_per_training']:.0f} trainings",
                note=f"{seconds:.0f} s of wall clock over {cost['seconds_per_training']:.2f} s of "
                f"one training; {cost['trainings']} trainings were run",
            )
        )
    for run in compares:
        row = _learned_row(run)
        if row and row["accuracy"]["mean"] is not None:
            facts.append(
                Fact(
                    label=f"accuracy of {row['name']}",
                    value=f"{row['accuracy']['mean']:.2%}",
                    note=f"mean of {run.result['num_seeds']} seeds, {run.result['split']} split",
                )
            )
    return facts


def _limits(searches: Sequence[_Run], compares: Sequence[_Run]) -> list[str]:
    limits = []
    for run in searches:
        config: SearchConfig = run.config(SearchConfig)
        limits.append(
            f"One search with one seed ({config.seed}) on one data set "
            f"({config.task.data.source.value}) and one network ({config.task.model.name}); "
            "another regime may want another schedule."
        )
        winner = run.result["standings"][0]
        if winner["is_constant"]:
            limits.append("Selection preferred a constant operator: nothing learned was better.")
    for run in compares:
        limits += [
            f"{row['name']}: {row['num_diverged']} of {run.result['num_seeds']} trainings diverged."
            for row in run.result["rows"]
            if row["num_diverged"]
        ]
        limits.append(
            f"Intervals cover the seeds of the training, not the choice of the "
            f"{run.result['split']} images. The best constant was picked among "
            f"{sum(_is_fixed(row) for row in run.result['rows'])} on the same seeds, which is in "
            "its favour."
        )
    return limits or ["Nothing was compared."]


def _schedule_section(run: _Run) -> Section:
    schedule = Schedule.load(run.path / "schedule.json")
    panel = SchedulePanel(title="selected", schedules=(schedule,))
    figure = ReportFigure(
        name="schedule",
        title="The selected schedule",
        description="Share of batches mixed by each operator over the training.",
        draw=functools.partial(schedule_figure, [panel]),
        source=run.source,
    )
    table = schedule_table(schedule, name="schedule", title="Segments")
    return Section(title="Schedule", blocks=(figure, table))


def _learning_section(run: _Run) -> Section:
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
        title="Search",
        blocks=(
            ReportFigure(
                name="learning",
                title="What the agent learned",
                description="Final potential of the episodes of each rollout.",
                draw=functools.partial(learning_curve_figure, curve),
                caption=f"{config.environment.potential} on the reward split at the end of each "
                "training, with the sign that makes higher better; quartiles per rollout.",
            ),
            ReportFigure(
                name="cost",
                title="What it cost",
                description="Seconds of learning and selection.",
                draw=functools.partial(cost_figure, stages),
            ),
            cost_table(stages, name="cost", title="Cost"),
        ),
    )


def _selection_section(run: _Run) -> Section:
    rows = tuple(
        (
            standing["name"],
            "constant" if standing["is_constant"] else "learned",
            standing["num_seeds"],
            standing["mean_calibrated_nll"],
            _interval(standing["difference_to_selected"]),
        )
        for standing in run.result["standings"]
    )
    table = Table(
        name="selection",
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
    return Section(title="Selection", blocks=(table,))


def _comparison_section(run: _Run) -> Section:
    config: CompareConfig = run.config(CompareConfig)
    blocks: list[ReportFigure | Table] = []
    for metric, name, better in (
        ("calibrated_nll", "calibrated NLL (nats)", Direction.LOWER),
        ("accuracy", "accuracy", Direction.HIGHER),
    ):
        comparison = _comparison(run, metric, name, better)
        identifier = f"{run.path.name}-{metric}".replace(".", "-")
        blocks.append(
            ReportFigure(
                name=identifier,
                title=f"{name}: schedules side by side",
                description=f"Mean {name} of each schedule and paired differences.",
                draw=functools.partial(comparison_figure, comparison),
                caption=f"{config.num_seeds} paired seeds, {config.split} split, 95% intervals.",
                source=run.source,
            )
        )
        blocks.append(comparison_table(comparison, name=identifier, title=name))
    blocks.append(_summary_table(run))
    return Section(title=f"Comparison on the {config.split} split", blocks=tuple(blocks))


def _summary_table(run: _Run) -> Table:
    """Return means, interquartile means and spreads over the seeds."""
    columns = [Column(name="schedule")]
    for name, unit, better in (
        ("calibrated NLL", "nats", Direction.LOWER),
        ("NLL", "nats", Direction.LOWER),
        ("accuracy", "", Direction.HIGHER),
    ):
        columns += [
            Column(name=f"{name}, mean", unit=unit, better=better),
            Column(name=f"{name}, interquartile mean", unit=unit, better=better),
            Column(name=f"{name}, standard deviation", unit=unit),
        ]
    statistics = ("mean", "interquartile_mean", "standard_deviation")
    rows = tuple(
        (
            row["name"],
            *(
                row[metric][statistic]
                for metric in ("calibrated_nll", "nll", "accuracy")
                for statistic in statistics
            ),
        )
        for row in run.result["rows"]
    )
    return Table(
        name=f"{run.path.name}-summary",
        title="Every metric",
        columns=tuple(columns),
        rows=rows,
        caption=f"{run.result['num_seeds']} trainings per schedule, {run.result['split']} split.",
    )


def _comparison(run: _Run, metric: str, name: str, better: Direction) -> Comparison:
    sign = 1 if better is Direction.LOWER else -1
    finished = [row for row in run.result["rows"] if row[metric]["mean"] is not None]
    rows = tuple(
        ComparisonRow(
            label=row["name"],
            value=_mean_interval(row[metric]["values"]),
            difference=_interval(row[metric]["difference"]),
            operator=_operator_of(row["name"]),
        )
        for row in sorted(finished, key=lambda row: sign * row[metric]["mean"])
    )
    statistic = f"mean of {run.result['num_seeds']} seeds"
    return Comparison(metric=name, statistic=statistic, better=better, rows=rows)


def _replay_section(replays: Sequence[_Run]) -> Section:
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


def _sheet_section(run: _Run, replays: Sequence[_Run]) -> Section:
    config: SearchConfig = run.config(SearchConfig)
    data = load_search_data(config.task.data)
    indices = spread_over_classes(data.train.labels, _SHEET_ROWS, seed=config.seed)
    images, labels = data.train.take(indices)
    saliency, origin = _saliency(config.task, replays, images, labels)
    schedule = Schedule.load(run.path / "schedule.json")
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
    task: TaskConfig, replays: Sequence[_Run], images: Tensor, labels: Tensor
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


def _learned_row(run: _Run) -> dict[str, Any] | None:
    rows = run.result["rows"]
    return next((row for row in rows if not _is_fixed(row) and _is_learned(row["name"])), None)


def _is_learned(name: str) -> bool:
    return name != "random" and not name.startswith(("shuffled", "ramp:", "mix_then_off:"))


def _is_fixed(row: dict[str, Any]) -> bool:
    return _operator_of(row["name"]) is not None


def _best_fixed(run: _Run) -> dict[str, Any] | None:
    rows = [row for row in run.result["rows"] if _is_fixed(row) and row["calibrated_nll"]["mean"]]
    return min(rows, key=lambda row: float(row["calibrated_nll"]["mean"]), default=None)


def _operator_of(name: str) -> Operator | None:
    """Return the operator of a constant entry, whose name is `Decision.label()`."""
    first = name.split(" ", maxsplit=1)[0]
    return Operator(first) if first in set(Operator) else None


def _paired(row: dict[str, Any], other: dict[str, Any], metric: str) -> Interval:
    pairs = [
        (a, b)
        for a, b in zip(row[metric]["values"], other[metric]["values"], strict=True)
        if a is not None and b is not None
    ]
    own, best = (np.array(values) for values in zip(*pairs, strict=True))
    return paired_difference(own, best, seed=0)


def _mean_interval(values: Sequence[float]) -> Interval:
    array = np.array([value for value in values if value is not None and math.isfinite(value)])
    return paired_difference(array, np.zeros_like(array), seed=0)


def _interval(values: dict[str, float] | None) -> Interval | None:
    return Interval(**values) if values else None
