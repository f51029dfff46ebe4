"""The parts of a report, one function each."""

import functools
from collections.abc import Sequence

import safetensors.torch
from torch import Tensor

from automix.evaluation.statistics import Interval
from automix.experiments.compare import METRICS
from automix.experiments.config import ReplayConfig, SearchConfig
from automix.experiments.finished import ComparedSplit, FinishedRun, interval, operator_of
from automix.experiments.sheets import make_sheet, spread_over_classes
from automix.reporting.contact_sheet import ContactSheet
from automix.reporting.figure_tables import comparison_table, cost_table, schedule_table
from automix.reporting.figures.comparison import Comparison, ComparisonRow, comparison_figure
from automix.reporting.figures.cost import Cost, cost_figure
from automix.reporting.figures.learning import LearningCurve, learning_curve_figure
from automix.reporting.figures.schedule import SchedulePanel, schedule_figure
from automix.reporting.report import ReportFigure, Section
from automix.reporting.tables import Column, Table
from automix.reporting.values import Direction
from automix.schedule import Decision, Schedule
from automix.training.build import build_trainer, load_search_data
from automix.training.task import TaskConfig
from automix.vocabulary import Operator

_SHEET_ROWS = 6


def schedule_section(run: FinishedRun) -> Section:
    """Return the selected schedule as a figure and a table."""
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


def selection_section(run: FinishedRun) -> Section:
    """Return the standings of the selection stage."""
    rows = tuple(
        (
            standing["name"],
            "constant" if standing["is_constant"] else "learned",
            standing["num_seeds"],
            standing["mean_calibrated_nll"],
            interval(standing["difference_to_selected"]),
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


def comparison_section(split: ComparedSplit) -> Section:
    """Return a comparison as figures and tables, per metric."""
    num_seeds = split.run.result["num_seeds"]
    blocks: list[ReportFigure | Table] = []
    for metric in ("calibrated_nll", "accuracy"):
        name, better = METRICS[metric]
        comparison = _comparison(split, metric, name, better)
        identifier = f"{split.run.path.name}-{split.name}-{metric}".replace(".", "-")
        blocks.append(
            ReportFigure(
                name=identifier,
                title=f"{name}: schedules side by side",
                description=f"Mean {name} of each schedule and paired differences.",
                draw=functools.partial(comparison_figure, comparison),
                caption=f"{num_seeds} paired seeds, {split.name} split, 95% intervals.",
                source=split.run.source,
            )
        )
        blocks.append(comparison_table(comparison, name=identifier, title=name))
    blocks.append(_summary_table(split))
    return Section(title=f"Comparison on the {split.name} split", blocks=tuple(blocks))


def _summary_table(split: ComparedSplit) -> Table:
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
        for row in split.rows
    )
    return Table(
        name=f"{split.run.path.name}-{split.name}-summary".replace(".", "-"),
        title="Every metric",
        columns=tuple(columns),
        rows=rows,
        caption=f"{split.run.result['num_seeds']} trainings per schedule, {split.name} split.",
    )


def _comparison(split: ComparedSplit, metric: str, name: str, better: Direction) -> Comparison:
    sign = 1 if better is Direction.LOWER else -1
    finished = [row for row in split.rows if row[metric]["mean"] is not None]
    rows = tuple(
        ComparisonRow(
            label=row["name"],
            value=Interval(**row[metric]["interval"]),
            difference=interval(row[metric]["difference"]),
            operator=operator_of(row["name"]),
        )
        for row in sorted(finished, key=lambda row: sign * row[metric]["mean"])
    )
    statistic = f"mean of {split.run.result['num_seeds']} seeds"
    return Comparison(metric=name, statistic=statistic, better=better, rows=rows)


def replay_section(replays: Sequence[FinishedRun]) -> Section:
    """Return the results of replayed trainings."""
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
