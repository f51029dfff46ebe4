"""The table of a sweep, `table.json` in its folder, as tables for CSV and page."""

import json
from collections.abc import Mapping
from typing import Any

from automix.evaluation.intervals import Interval
from automix.reporting.tables import Cell, Column, Table
from automix.reporting.values import Direction


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
