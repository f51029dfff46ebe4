"""The parts of a report, one function each."""

import functools
from collections.abc import Sequence

import safetensors.torch
from torch import Tensor

from automix.errors import DataError
from automix.experiments.config import ReplayConfig, SearchConfig
from automix.experiments.finished import FinishedRun
from automix.experiments.search import SCHEDULE_NAME
from automix.experiments.sheets import make_sheet, spread_over_classes
from automix.reporting.contact_sheet import ContactSheet
from automix.reporting.figure_tables import cost_table, schedule_table
from automix.reporting.figures.cost import Cost, cost_figure
from automix.reporting.figures.learning import LearningCurve, learning_curve_figure
from automix.reporting.figures.schedule import SchedulePanel, schedule_figure
from automix.reporting.report import ReportFigure, Section
from automix.reporting.sweep_tables import interval_of
from automix.reporting.tables import Column, Table
from automix.reporting.values import Direction
from automix.schedule import Decision, Schedule
from automix.training.build import build_trainer, load_search_data
from automix.training.task import TaskConfig
from automix.vocabulary import Operator

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
