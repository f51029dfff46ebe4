"""A search that is not finished: what its folder says so far, for a page that is written again."""

import functools
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from automix.errors import AutoMixError
from automix.experiments.common.equal_schedules import row_label
from automix.experiments.common.mixed_picture import PICTURE_NAME
from automix.experiments.common.run_files import (
    Picture,
    Standing,
    check_written,
)
from automix.experiments.common.run_folder import CONFIG_NAME, METRICS_NAME, RESULT_NAME
from automix.experiments.common.written import Text, Written
from automix.experiments.config import SearchConfig
from automix.experiments.report.finished_runs import link_to, source_in
from automix.experiments.report.replay_sections import read_picture
from automix.experiments.report.search_sections import standings_table
from automix.experiments.search.candidates import zero_search_candidates
from automix.experiments.search.plan import plan_search
from automix.experiments.search.run import BUDGET_NAME, SCHEDULE_NAME
from automix.readers import open_regular, read_json
from automix.reporting.figures.learning import learning_curve_figure
from automix.reporting.figures.schedule import SchedulePanel, schedule_figure
from automix.reporting.mixed_rows import MixedRows
from automix.reporting.page import Block, ReportFigure, Section
from automix.reporting.tables import Column, Table
from automix.schedule import Schedule

# Of a log of a million training runs.
_MAX_LOG = 1_000_000_000
_POTENTIAL = "episode/potential"


class _ResultSoFar(Written):
    """The result of a search that is not finished."""

    selected: Text
    standings: Annotated[tuple[Standing, ...], Field(max_length=10_000)]
    picture: Picture | None = None


class RunningSearch:
    """A search in progress, or an interrupted one."""

    def __init__(self, path: Path, slug: str, folder: Path) -> None:
        """Read what the search in ``path`` has written so far, for a page in ``folder``.

        Raises:
            AutoMixError: a file is missing or damaged.
        """
        file = path / RESULT_NAME
        self.path, self.slug, self.link = path, slug, link_to(path, folder)
        self.result = check_written(read_json(file), _ResultSoFar, source=str(file))
        self.config: SearchConfig = SearchConfig.from_yaml(path / CONFIG_NAME)
        self.schedule = Schedule.load(path / SCHEDULE_NAME)
        self.source = source_in(path)
        self.potentials = _potentials(path / METRICS_NAME)
        self.done = self._done()

    @property
    def planned(self) -> dict[str, int]:
        """Training runs of each stage by the plan; none before the minutes are runs."""
        runs = self.config.runs
        if self.config.minutes is not None:
            path = self.path / BUDGET_NAME
            if not path.exists():
                return {}
            runs = int(read_json(path)["runs"])
        count = len(zero_search_candidates(self.config))
        return plan_search(self.config, num_candidates=count, runs=runs).runs

    def _done(self) -> dict[str, int]:
        journals = ("race", "selection", "final")
        counts = {name: _num_lines(self.path / f"{name}.jsonl") for name in journals}
        return {
            "race": counts["race"],
            "learning": len(self.potentials),
            "selection": counts["selection"],
            "final": counts["final"],
        }

    def sentence(self) -> str:
        """Return how far it is, and the best schedule so far."""
        total = sum(self.planned.values())
        of = f" of about {total}" if total else ""
        return (
            f"A search is running: {sum(self.done.values())}{of} training runs. Best so far: "
            f"{self.best_label()}. Its verdict comes with the final."
        )

    def best_label(self) -> str:
        """Return the names of the best schedule so far."""
        rows = [row for row in self.result["standings"] if row["name"] == self.result["selected"]]
        return row_label(rows[0]) if rows else str(self.result["selected"])

    def picture(self) -> MixedRows | None:
        """Return the picture of its mixed images so far."""
        return read_picture(
            self.path / PICTURE_NAME,
            self.result.get("picture"),
            name=f"{self.slug}-mixed",
            title="What the best schedule so far does to these images",
        )

    def section(self) -> Section:
        """Return progress, the best schedule so far, standings and learning curve."""
        blocks: list[Block] = [self._progress(), self._schedule()]
        if self.result["standings"]:
            blocks.append(
                standings_table(
                    [(row, row["difference_to_first"]) for row in self.result["standings"]],
                    name=f"{self.slug}-standings",
                    title="Standings so far",
                    difference="difference to first",
                    caption="Of the stage that ended last or runs; by the seeds so far.",
                )
            )
        if self.potentials:
            draw = functools.partial(
                learning_curve_figure,
                self.potentials,
                per_rollout=self.config.agent.episodes_per_rollout,
                link=self.link,
            )
            blocks.append(
                ReportFigure(
                    name=f"{self.slug}-learning",
                    title="What was learned so far",
                    description="Final potential of the episodes of each rollout.",
                    draw=draw,
                )
            )
        return Section(
            title="In progress", blocks=tuple(blocks), source=self.source, link=self.link
        )

    def _progress(self) -> Table:
        planned = self.planned
        rows = tuple(
            (stage, count, planned.get(stage))
            for stage, count in self.done.items()
            if count or planned.get(stage)
        )
        return Table(
            name=f"{self.slug}-progress",
            title="Training runs",
            columns=(Column(name="stage"), Column(name="done"), Column(name="planned")),
            rows=rows,
        )

    def _schedule(self) -> ReportFigure:
        panels = [SchedulePanel(title="", schedules=(self.schedule,))]
        return ReportFigure(
            name=f"{self.slug}-schedule",
            title=f"The best schedule so far: {self.best_label()}",
            description="Fraction of batches mixed by each operator over the training run.",
            draw=functools.partial(schedule_figure, panels),
        )


def is_running(content: dict[str, Any]) -> bool:
    """Return whether a result is that of a search that is not finished."""
    return content.get("kind") == "search" and content.get("is_finished") is False


def _num_lines(path: Path) -> int:
    if not path.exists():
        return 0
    with open_regular(path, limit=_MAX_LOG) as stream:
        return sum(1 for _ in stream)


def _potentials(path: Path) -> list[float]:
    """Return the potentials of the episodes in a log, which may end in the middle of a line."""
    if not path.exists():
        return []
    potentials = []
    with open_regular(path, limit=_MAX_LOG) as stream:
        for line in stream:
            try:
                value = json.loads(line).get(_POTENTIAL)
            except (ValueError, AttributeError, RecursionError):
                continue
            if isinstance(value, float) and abs(value) < 1e9:
                potentials.append(value)
    return potentials


def read_running(path: Path, slug: str, folder: Path) -> RunningSearch | None:
    """Return the search in ``path`` if it is not finished; None while a file is being written."""
    try:
        if is_running(read_json(path / RESULT_NAME)):
            return RunningSearch(path, slug, folder)
    except AutoMixError:
        pass
    return None
