"""Tables of results as HTML, Markdown, CSV and text, and how numbers are written in them."""

import csv
import io
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from automix.evaluation.statistics import Interval
from automix.reporting.markup import Html, join, tag


class Direction(StrEnum):
    """Which way a number is better."""

    LOWER = "lower"
    HIGHER = "higher"

    @property
    def sign(self) -> int:
        """Return what numbers are multiplied with so that more is better: 1 or -1."""
        return 1 if self is Direction.HIGHER else -1


def number_text(value: float, *, digits: int = 3) -> str:
    """Return ``value`` with ``digits`` significant digits, never in exponent form below 10^6."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
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


# Beyond it, decimals that suit the largest number of a column would round the smallest away.
_LARGEST_RATIO = 100

Cell = str | int | float | Interval | None
"""What a table holds; None is shown as an empty cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table.

    Attributes:
        name: its heading.
        unit: written after the heading; may be empty.
        better: which way its numbers are better; its best cell is then set in bold.
        digits: significant digits of its numbers.
    """

    name: str
    unit: str = ""
    better: Direction | None = None
    digits: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of results.

    Attributes:
        name: letters, digits, hyphens and underscores: the stem of its files.
        title: its heading.
        columns: at least one; the first one names the row.
        rows: one cell per column each; numbers are finite.
        caption: what the reader must know: data, number of seeds, kind of interval.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"expected {len(self.columns)} cells in a row, got {len(row)}")
            if not all(math.isfinite(number) for cell in row for number in _numbers(cell)):
                raise ValueError(f"expected finite numbers or None, got {row}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _CellStyle:
    digits: int
    decimals: int | None
    is_first: bool
    is_best: bool


def check_name(name: str) -> None:
    """Raise ValueError unless ``name`` can be the stem of a file and an identifier of a page."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
        raise ValueError(f"expected letters, digits, hyphens and underscores, got {name!r}")


def table_html(table: Table) -> Html:
    """Return the table; each heading is a button that sorts by its column."""
    head = tag("tr", *(_heading(table, index) for index in range(len(table.columns))))
    indices = range(len(table.columns))
    best = [_best(table, index) for index in indices]
    decimals = [_decimals(table, index) for index in indices]
    body = []
    for number, row in enumerate(table.rows):
        cells = []
        for index, cell in enumerate(row):
            style = _CellStyle(
                digits=table.columns[index].digits,
                decimals=decimals[index],
                is_first=index == 0,
                is_best=number == best[index],
            )
            cells.append(_cell_html(cell, style))
        body.append(tag("tr", *cells))
    grid = tag("table", tag("thead", head), tag("tbody", *body), class_="sortable")
    # A region that scrolls must be reachable by keyboard.
    scroll = tag("div", grid, class_="scroll", tabindex="0", role="region", aria_label=table.title)
    caption = tag("figcaption", table.caption) if table.caption else Html("")
    return tag(
        "figure", tag("h3", table.title), scroll, caption, class_="table", id=f"table-{table.name}"
    )


def table_csv(table: Table) -> str:
    """Return the table as CSV; an interval becomes three columns: name, name_low, name_high."""
    spread = [
        any(isinstance(row[index], Interval) for row in table.rows)
        for index in range(len(table.columns))
    ]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    header: list[str] = []
    for column, is_interval in zip(table.columns, spread, strict=True):
        name = _full_name(column)
        header += [name, f"{name}_low", f"{name}_high"] if is_interval else [name]
    writer.writerow(header)
    for row in table.rows:
        line: list[str | int | float | None] = []
        for cell, is_interval in zip(row, spread, strict=True):
            if isinstance(cell, Interval):
                line += [cell.estimate, cell.low, cell.high]
            else:
                line += [cell, None, None] if is_interval else [cell]
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
        "rows": [[_json_cell(cell) for cell in row] for row in table.rows],
    }


def _numbers(cell: Cell) -> tuple[float, ...]:
    if isinstance(cell, Interval):
        return cell.estimate, cell.low, cell.high
    return () if isinstance(cell, str) or cell is None else (float(cell),)


def _json_cell(cell: Cell) -> object:
    if not isinstance(cell, Interval):
        return cell
    ends = {"low": cell.low, "high": cell.high, "confidence": cell.confidence}
    return {"estimate": cell.estimate} | ends


def _heading(table: Table, index: int) -> Html:
    column = table.columns[index]
    # The first column names the row, and stands on the left even where it is a number.
    is_number = index > 0 and any(not isinstance(row[index], str | None) for row in table.rows)
    label = [tag("span", column.name)]
    if column.unit:
        label.append(tag("span", column.unit, class_="unit"))
    button = tag("button", *label, type="button")
    return tag("th", button, scope="col", class_="number" if is_number else None)


def _full_name(column: Column) -> str:
    return f"{column.name} ({column.unit})" if column.unit else column.name


def _number(cell: Cell) -> float | None:
    """Return what a cell is sorted and compared by; None for text."""
    return next(iter(_numbers(cell)), None)


def _best(table: Table, index: int) -> int | None:
    """Return the number of the row with the best cell of a column, if it has one."""
    better = table.columns[index].better
    numbers = {row: _number(cells[index]) for row, cells in enumerate(table.rows)}
    known = {row: number for row, number in numbers.items() if number is not None}
    if better is None or len(known) < 2:
        return None
    sign = 1 if better is Direction.LOWER else -1
    return min(known, key=lambda row: sign * known[row])


def _decimals(table: Table, index: int) -> int | None:
    """Return how many decimals line a column up; None where its numbers differ too much in size."""
    sizes = [abs(number) for row in table.rows if (number := _number(row[index]))]
    if not sizes or max(sizes) > _LARGEST_RATIO * min(sizes):
        return None
    digits = table.columns[index].digits
    return max(0, digits - 1 - math.floor(math.log10(max(sizes))))


def _cell_html(cell: Cell, style: _CellStyle) -> Html:
    number = _number(cell)
    text = tag("b", _text(cell, style)) if style.is_best else join([_text(cell, style)])
    if isinstance(cell, Interval):
        ends = ", ".join(_text(end, style) for end in (cell.low, cell.high))
        text = join([text, " ", tag("span", f"[{ends}]", class_="interval")])
    value = None if number is None else repr(number)
    if style.is_first:
        return tag("th", text, scope="row", data_value=value)
    return tag("td", text, class_=None if number is None else "number", data_value=value)


def _text(cell: Cell, style: _CellStyle) -> str:
    if isinstance(cell, str | int):
        return str(cell)
    number = _number(cell)
    if number is None:
        return ""
    if style.decimals is None:
        return number_text(number, digits=style.digits)
    return f"{number:.{style.decimals}f}"


def cells_table(sweep: Mapping[str, Any], *, name: str = "cells") -> Table:
    """Return one row per finished cell: settings and measures."""
    keys = _setting_keys(sweep, "cells")
    columns = [Column(name="cell"), *(Column(name=key) for key in keys)]
    columns += [
        Column(name=measure["name"], better=Direction(measure["better"]), digits=4)
        for measure in sweep["measures"]
    ]
    rows = tuple(
        (
            cell["cell"],
            *(_shown(cell["settings"].get(key)) for key in keys),
            *(cell["values"][measure["name"]] for measure in sweep["measures"]),
        )
        for cell in sweep["cells"]
    )
    return Table(name=name, title="Cells", columns=tuple(columns), rows=rows)


def rows_table(sweep: Mapping[str, Any], *, name: str = "rows") -> Table:
    """Return one row per group of cells that differ in the seed alone, every measure at once."""
    keys = _setting_keys(sweep, "rows")
    columns = [Column(name=key) for key in keys] or [Column(name="settings")]
    for measure in sweep["measures"]:
        columns += [
            Column(name=f"{measure['name']}: runs"),
            *_summary_columns(measure, prefix=f"{measure['name']}: "),
        ]
    rows = []
    for row in sweep["rows"]:
        settings: list[Cell] = [_shown(row["settings"].get(key)) for key in keys] or ["all"]
        for measure in sweep["measures"]:
            summary = row["measures"][measure["name"]]
            settings += [summary["num_runs"], *_summary_row(summary)]
        rows.append(tuple(settings))
    return Table(name=name, title="Sweep", columns=tuple(columns), rows=tuple(rows))


def measure_table(
    sweep: Mapping[str, Any], measure: Mapping[str, Any], *, name: str, caption: str
) -> Table:
    """Return one row per group of cells, with the summary of one measure."""
    keys = _setting_keys(sweep, "rows")
    columns = [Column(name=key) for key in keys] or [Column(name="settings")]
    rows = tuple(
        (
            *([_shown(row["settings"].get(key)) for key in keys] or ["all"]),
            row["measures"][measure["name"]]["num_runs"],
            *_summary_row(row["measures"][measure["name"]]),
        )
        for row in sweep["rows"]
    )
    return Table(
        name=name,
        title=measure["name"],
        columns=(*columns, Column(name="runs"), *_summary_columns(measure)),
        rows=rows,
        caption=caption,
    )


def _summary_columns(measure: Mapping[str, Any], *, prefix: str = "") -> list[Column]:
    better = Direction(measure["better"])
    return [
        Column(name=f"{prefix}mean", better=better),
        Column(name=f"{prefix}interquartile mean", better=better),
        Column(name=f"{prefix}standard deviation"),
        Column(name=f"{prefix}difference to the first"),
        Column(name=f"{prefix}probability of improvement"),
        Column(name=f"{prefix}p-value", digits=2),
        Column(name=f"{prefix}p-value after Holm", digits=2),
    ]


def _summary_row(summary: Mapping[str, Any]) -> list[Cell]:
    mean = interval_of(summary["interval"])
    return [
        summary["mean"] if mean is None else mean,
        summary["interquartile_mean"],
        summary["standard_deviation"],
        interval_of(summary["difference"]),
        interval_of(summary["probability_of_improvement"]),
        summary["p_value"],
        summary["p_value_holm"],
    ]


def interval_of(values: Mapping[str, float] | None) -> Interval | None:
    """Return an interval from its form in JSON."""
    return None if values is None else Interval(**values)


def _setting_keys(sweep: Mapping[str, Any], part: str) -> list[str]:
    return list(dict.fromkeys(key for each in sweep[part] for key in each["settings"]))


def _shown(value: object) -> Cell:
    if value is None or (isinstance(value, str | int | float) and not isinstance(value, bool)):
        return value
    return json.dumps(value)
