"""The parts of a report about sweeps: their tables, effects, and what each variant found."""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automix.evaluation.intervals import Interval
from automix.experiments.finished import source_of
from automix.experiments.runs import ENVIRONMENT_NAME, read_json
from automix.experiments.search import SCHEDULE_NAME
from automix.experiments.sweep import describe_settings
from automix.experiments.sweep_table import TABLE_KIND, TABLE_NAME
from automix.reporting.figures.comparison import Comparison, ComparisonRow, comparison_figure
from automix.reporting.figures.schedule import SchedulePanel, schedule_figure
from automix.reporting.report import Block, ReportFigure, Section, Source
from automix.reporting.sweep_tables import cells_table, interval_of, measure_table
from automix.reporting.values import Direction
from automix.schedule import Schedule

_ALPHA = 0.05
_FOUND = ("run/search", "run")
"""Where, in the folder of a cell, a search leaves its schedule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedSweep:
    """A sweep with a table.

    Attributes:
        path: its folder.
        slug: what its figures and tables are called after.
        table: of `automix.experiments.sweep_table.build_table`, with its `name`.
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
    comparison = _comparison(sweep, measure)
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


def _comparison(sweep: FinishedSweep, measure: Mapping[str, Any]) -> Comparison | None:
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
