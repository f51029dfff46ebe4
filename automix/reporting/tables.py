"""Tables of results as cells, CSV and JSON, and how numbers are written in them.

Free of Matplotlib and Jinja2: commands that only print a table load neither.
"""

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from automix.escapes import csv_cell
from automix.evaluation.statistics import Interval


class Direction(StrEnum):
    """The direction in which a number is better."""

    LOWER = "lower"
    HIGHER = "higher"

    @property
    def sign(self) -> int:
        """Return the factor that makes more better: 1 or -1."""
        return 1 if self is Direction.HIGHER else -1


def number_text(value: float, *, digits: int = 3) -> str:
    """Return ``value`` with ``digits`` significant digits, never in exponent form below 10^6."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    # The exponent of the first digit gives the number of decimals.
    magnitude = math.floor(math.log10(abs(value)))
    if not -5 < magnitude < 6:
        return f"{value:.{digits - 1}e}"
    return f"{value:.{max(0, digits - 1 - magnitude)}f}"


def duration_unit(seconds: float) -> tuple[str, float]:
    """Return the unit a reader would choose for a duration, and its length in seconds."""
    for unit, length in (("days", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        # Below two units the smaller unit reads better: 90 min, not 1.5 h.
        if seconds >= 2 * length:
            return unit, length
    return ("s", 1.0) if seconds >= 1 or seconds == 0 else ("ms", 0.001)


def duration_text(seconds: float) -> str:
    """Return a duration such as ``850 ms``, ``12 s`` or ``6.9 min``."""
    if seconds < 0 or not math.isfinite(seconds):
        raise ValueError(f"expected a duration in seconds, at least 0, got {seconds}")
    unit, length = duration_unit(seconds)
    return f"{number_text(seconds / length, digits=2)} {unit}"


Cell = str | int | float | Interval | None
"""Content of a table; None is shown as an empty cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table."""

    name: str
    unit: str = ""  # written after the heading; may be empty
    # Which way its numbers are better; its best cell is then set in bold.
    better: Direction | None = None
    digits: int = 3  # significant digits of its numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of results."""

    name: str  # letters, digits, hyphens and underscores: the stem of its files
    title: str
    columns: tuple[Column, ...]  # at least one; the first one names the row
    rows: tuple[tuple[Cell, ...], ...]  # one cell per column each; numbers are finite
    caption: str = ""  # what the reader must know: data, number of seeds, kind of interval
    # Where the name of each row leads; none, or one per row, which may be empty.
    links: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_name(self.name)
        if len(self.links) not in (0, len(self.rows)):
            raise ValueError(f"expected {len(self.rows)} links or none, got {len(self.links)}")
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"expected {len(self.columns)} cells in a row, got {len(row)}")
            if not all(math.isfinite(number) for cell in row for number in _numbers(cell)):
                raise ValueError(f"expected finite numbers or None, got {row}")


def check_name(name: str) -> None:
    """Raise ValueError unless ``name`` can be the stem of a file and an identifier of a page."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
        raise ValueError(f"expected letters, digits, hyphens and underscores, got {name!r}")


class ShownCell(NamedTuple):
    """A cell as a reader sees it."""

    text: str  # the estimate, or the text of the cell
    interval: str  # such as "[0.085, 0.091]"; empty where there is none
    value: str  # the exact number that the column is sorted by; empty for text
    is_best: bool  # whether it is the best of its column


def shown_rows(table: Table) -> list[list[ShownCell]]:
    """Return the cells of ``table`` as text, the decimals of each column lined up."""
    columns = [
        _shown_column(column, [row[index] for row in table.rows])
        for index, column in enumerate(table.columns)
    ]
    return [list(row) for row in zip(*columns, strict=True)]


def _shown_column(column: Column, cells: list[Cell]) -> list[ShownCell]:
    decimals = _decimals(column, cells)
    best = _best_row(column, cells)
    shown = []
    for index, cell in enumerate(cells):
        texts = [
            str(cell)
            if isinstance(cell, int)
            else number_text(number, digits=column.digits)
            if decimals is None
            else f"{number:.{decimals}f}"
            for number in _numbers(cell)
        ]
        shown.append(
            ShownCell(
                text=texts[0] if texts else str(cell or ""),
                interval=f"[{', '.join(texts[1:])}]" if texts[1:] else "",
                value=repr(_numbers(cell)[0]) if texts else "",
                is_best=index == best,
            )
        )
    return shown


def _decimals(column: Column, cells: list[Cell]) -> int | None:
    """Return the number of decimals that lines a column up.

    None where the largest number is more than 100 times the smallest: decimals that suit the
    largest would round the smallest away.
    """
    sizes = [abs(numbers[0]) for cell in cells if any(numbers := _numbers(cell)[:1])]
    if not sizes or max(sizes) > 100 * min(sizes):
        return None
    return max(0, column.digits - 1 - math.floor(math.log10(max(sizes))))


def _best_row(column: Column, cells: list[Cell]) -> int | None:
    """Return the index of the best number, the first of several, or None if none stands out."""
    numbers = {index: _numbers(cell)[0] for index, cell in enumerate(cells) if _numbers(cell)}
    if column.better is None or len(numbers) < 2:
        return None
    sign = column.better.sign
    return max(numbers, key=lambda index: sign * numbers[index])


def _numbers(cell: Cell) -> tuple[float, ...]:
    """Return the estimate and the ends of an interval, a single number, or nothing for text."""
    if isinstance(cell, Interval):
        return cell.estimate, cell.low, cell.high
    return () if isinstance(cell, str) or cell is None else (float(cell),)


def table_csv(table: Table) -> str:
    """Return the table as CSV; an interval becomes three columns: name, name_low, name_high."""
    has_interval = [
        any(isinstance(row[index], Interval) for row in table.rows)
        for index in range(len(table.columns))
    ]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    header: list[str] = []
    for column, is_interval in zip(table.columns, has_interval, strict=True):
        name = f"{column.name} ({column.unit})" if column.unit else column.name
        header += [name, f"{name}_low", f"{name}_high"] if is_interval else [name]
    writer.writerow(map(csv_cell, header))
    for row in table.rows:
        line: list[str | int | float | None] = []
        for cell, is_interval in zip(row, has_interval, strict=True):
            if isinstance(cell, Interval):
                line += _numbers(cell)
            else:
                shown = csv_cell(cell) if isinstance(cell, str) else cell
                line += [shown, None, None] if is_interval else [shown]
        writer.writerow(line)
    return buffer.getvalue()


def table_json(table: Table) -> dict[str, object]:
    """Return the table as a value for JSON; an interval becomes an object."""
    return {
        "name": table.name,
        "title": table.title,
        "caption": table.caption,
        "columns": [
            {"name": column.name, "unit": column.unit, "better": column.better}
            for column in table.columns
        ],
        "rows": [
            [asdict(cell) if isinstance(cell, Interval) else cell for cell in row]
            for row in table.rows
        ],
    }


def cells_table(sweep: Mapping[str, Any], *, name: str = "cells") -> Table:
    """Return one row per finished cell of a sweep: settings and measures."""
    keys = _setting_keys(sweep["cells"])
    columns = [Column(name="cell"), *(Column(name=key) for key in keys)]
    columns += [
        Column(name=measure["name"], better=Direction(measure["better"]), digits=4)
        for measure in sweep["measures"]
    ]
    rows = tuple(
        (
            cell["cell"],
            *(_setting_cell(cell["settings"].get(key)) for key in keys),
            *(cell["values"][measure["name"]] for measure in sweep["measures"]),
        )
        for cell in sweep["cells"]
    )
    return Table(name=name, title="Cells", columns=tuple(columns), rows=rows)


def rows_table(sweep: Mapping[str, Any], *, name: str = "rows") -> Table:
    """Return one row per group of cells that differ in the seed alone, every measure at once."""
    columns, rows = _groups(sweep, sweep["measures"], with_names=True)
    return Table(name=name, title="Sweep", columns=columns, rows=rows)


def measure_table(
    sweep: Mapping[str, Any], measure: Mapping[str, Any], *, name: str, caption: str
) -> Table:
    """Return one row per group of cells, with the summary of one measure."""
    columns, rows = _groups(sweep, [measure], with_names=False)
    return Table(name=name, title=measure["name"], columns=columns, rows=rows, caption=caption)


def _groups(
    sweep: Mapping[str, Any], measures: Sequence[Mapping[str, Any]], *, with_names: bool
) -> tuple[tuple[Column, ...], tuple[tuple[Cell, ...], ...]]:
    """Return columns and rows of groups: settings, then the summary of each measure."""
    keys = _setting_keys(sweep["rows"])
    columns = [Column(name=key) for key in keys] or [Column(name="settings")]
    for measure in measures:
        better, prefix = Direction(measure["better"]), f"{measure['name']}: " if with_names else ""
        columns += [
            Column(name=f"{prefix}runs"),
            Column(name=f"{prefix}mean", better=better),
            Column(name=f"{prefix}interquartile mean", better=better),
            Column(name=f"{prefix}standard deviation"),
            Column(name=f"{prefix}difference to the first"),
            Column(name=f"{prefix}probability of improvement"),
            Column(name=f"{prefix}p-value", digits=2),
            Column(name=f"{prefix}p-value after Holm", digits=2),
        ]
    rows = []
    for row in sweep["rows"]:
        # Without any setting that varies there is one group, of all cells.
        cells: list[Cell] = [_setting_cell(row["settings"].get(key)) for key in keys] or ["all"]
        for measure in measures:
            summary = row["measures"][measure["name"]]
            cells += [
                summary["num_runs"],
                interval_of(summary["interval"]) or summary["mean"],
                summary["interquartile_mean"],
                summary["standard_deviation"],
                interval_of(summary["difference"]),
                interval_of(summary["probability_of_improvement"]),
                summary["p_value"],
                summary["p_value_holm"],
            ]
        rows.append(tuple(cells))
    return tuple(columns), tuple(rows)


def interval_of(values: Mapping[str, float] | None) -> Interval | None:
    """Return an interval from its form in JSON."""
    return None if values is None else Interval(**values)


def _setting_keys(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for entry in entries for key in entry["settings"]))


def _setting_cell(value: object) -> Cell:
    """Return numbers and text as they are, anything else, such as a list or true, as JSON."""
    if value is None or (isinstance(value, str | int | float) and not isinstance(value, bool)):
        return value
    return json.dumps(value)
