"""Sections of the report about searches: schedule, final, learning, selection, cost."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from automix.evaluation.calibration import TEMPERATURE_FROM
from automix.experiments.common.equal_schedules import row_label
from automix.experiments.common.verdicts import verdict_text
from automix.experiments.config import SearchConfig
from automix.experiments.report.finished_runs import FinishedRun, titled
from automix.experiments.search.run import SCHEDULE_NAME
from automix.experiments.search.worth import explanation_text
from automix.reporting.figures.comparison import Cost, cost_figure, cost_table
from automix.reporting.figures.learning import learning_curve_figure
from automix.reporting.figures.schedule import SchedulePanel, schedule_figure, schedule_table
from automix.reporting.page import ReportFigure, Section
from automix.reporting.tables import Cell, Column, Direction, Table, interval_of
from automix.schedule import Schedule

# Schedules drawn one by one; more would not be looked at.
_MOST_PANELS = 6


def schedule_section(runs: Sequence[FinishedRun]) -> Section:
    """Return the schedules that searches selected, which differ in their seed alone.

    Several are drawn one by one and as a whole: means over them, with quartiles.
    """
    # One panel per search, then the whole in front: one seed's schedule is one draw.
    schedules = [Schedule.load(run.path / SCHEDULE_NAME) for run in runs]
    panels = [
        SchedulePanel(title=run.label, schedules=(schedule,))
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
        schedule_table(schedule, name=f"{run.slug}-schedule", title=titled("Segments", run))
        for run, schedule in zip(runs, schedules, strict=True)
    ]
    return Section(title="Schedule", blocks=(figure, *tables), source=runs[0].source)


def final_section(run: FinishedRun) -> Section:
    """Return the final, on images and seeds that chose nothing."""
    verdict = run.result["verdict"]
    differences = [verdict["differences"].get(row["name"]) for row in run.result["final"]]
    section = _ranking(
        run,
        "Final",
        list(zip(run.result["final"], differences, strict=True)),
        difference="selected minus this",
        caption=f"{verdict_text(run.result)} On the selection split, with seeds that no stage "
        f"before had; calibrated NLL: {TEMPERATURE_FROM}. 95% intervals of the mean and of the "
        "paired difference.",
    )
    why = run.result.get("why")  # searches of earlier versions have none
    return dataclasses.replace(section, text=(explanation_text(why),)) if why else section


def learning_section(run: FinishedRun) -> Section:
    """Return the learning curve and the cost of a search."""
    config: SearchConfig = run.config(SearchConfig)
    potentials = [episode["potential"] for episode in run.result["episodes"]]
    learning = ReportFigure(
        name=f"{run.slug}-learning",
        title="What the agent learned",
        description="Final potential of the episodes of each rollout.",
        draw=functools.partial(
            learning_curve_figure,
            potentials,
            per_rollout=config.agent.episodes_per_rollout,
            link=run.link,
        ),
        caption=f"{config.environment.potential} on the reward split at the end of each "
        "training run, with the sign that makes higher better; quartiles per rollout.",
    )
    cost = cost_of(run)
    return Section(
        title=titled("Learning and cost" if potentials else "Cost", run),
        blocks=(
            # A race alone has no episodes.
            *([learning] if potentials else []),
            ReportFigure(
                name=f"{run.slug}-cost",
                title="What it cost",
                description="Seconds and training runs of each stage.",
                draw=functools.partial(cost_figure, cost),
            ),
            cost_table(cost, name=f"{run.slug}-cost", title="Cost"),
        ),
        source=run.source,
        link=run.link,
    )


def cost_of(run: FinishedRun) -> Cost:
    """Return time and number of training runs of each stage of a search."""
    values = run.result["cost"]
    seconds, runs = values["seconds_by_stage"], values["trainings_by_stage"]
    # Some stages have no time of their own; those that were not run have no training run either.
    stages = [stage for stage in {**runs, **seconds} if runs.get(stage) or seconds.get(stage)]
    return Cost(
        stages=tuple((stage, seconds.get(stage), runs.get(stage)) for stage in stages),
        training_seconds=values["seconds_per_training"],
    )


def selection_section(run: FinishedRun) -> Section:
    """Return the standings of the stage before the final."""
    # Without learning there is no selection of its own.
    has_learned = bool(run.result["episodes"])
    return _ranking(
        run,
        "Selection" if has_learned else "Race",
        [(standing, standing["difference_to_first"]) for standing in run.result["standings"]],
        difference="difference to first",
        caption=f"{'Retrained with fresh seeds, compared' if has_learned else 'Compared'} on the "
        "reward split, to whose images the temperature is fitted as well, by successive halving; "
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
    """Return a stage of a search as a section."""
    table = standings_table(
        rows,
        name=f"{run.slug}-{title.lower()}",
        title=title,
        difference=difference,
        caption=caption,
    )
    return Section(title=titled(title, run), blocks=(table,), link=run.link)


def standings_table(
    rows: Sequence[tuple[Mapping[str, Any], Mapping[str, float] | None]],
    *,
    name: str,
    title: str,
    difference: str,
    caption: str,
) -> Table:
    """Return a stage of a search as a table: its schedules, each with a paired difference.

    Without intervals, as after one seed each, it has no columns for them.
    """
    # What decides comes first: a phone shows two columns.
    columns: dict[Column, list[Cell]] = {
        Column(name="schedule"): [row_label(row) for row, _ in rows],
        Column(name=difference, unit="nats"): [interval_of(it) for _, it in rows],
        Column(name="calibrated NLL", unit="nats", better=Direction.LOWER): [
            interval_of(row.get("interval")) for row, _ in rows
        ],
        Column(name="seeds"): [row["num_seeds"] for row, _ in rows],
        Column(name="kind"): [row["origin"] for row, _ in rows],
    }
    shown = {column: cells for column, cells in columns.items() if any(cells)}
    return Table(
        name=name,
        title=title,
        columns=tuple(shown),
        rows=tuple(zip(*shown.values(), strict=True)),
        caption=caption,
    )
