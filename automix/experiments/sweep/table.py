"""The table of a sweep: what its cells measured, with intervals where seeds repeat them."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from automix.configuration.base import Config
from automix.errors import CheckpointError
from automix.experiments.compare.run import HEADINGS, align, summarize, summary_cells
from automix.experiments.sweep.cell import is_finished, read_result
from automix.experiments.sweep.spec import Cell, MeasureConfig, SweepConfig, describe_settings
from automix.files import write_json, write_text
from automix.reporting.tables import cells_table, rows_table, table_csv

TABLE_NAME = "table.json"
"""In the folder of a sweep: what marks it as one."""

TABLE_KIND = "sweep"
"""The `kind` in that file."""

Measures = Mapping[str, MeasureConfig]


def build_table(
    sweep: SweepConfig, cells: Sequence[Cell[Any]], folder: Path, measures: Measures
) -> dict[str, Any]:
    """Return what the finished cells say, as plain values for JSON.

    `cells` holds one entry per finished cell: identifier, settings and measured values. `rows`
    holds one entry per group of cells that differ in the seed alone, with a summary of each
    measure (`automix.experiments.compare.run`); differences are to the first group.

    Raises:
        CheckpointError: a result is damaged or does not have one of the measures.
    """
    seed_key = sweep.seed_key if sweep.seed_key in sweep.grid else None
    measured = [
        {
            "cell": cell.identifier,
            "settings": dict(cell.settings),
            "values": _measured(cell, folder, measures),
        }
        for cell in cells
        if is_finished(cell, folder)
    ]
    groups = {_key(cell.settings, without=seed_key): _group(cell, seed_key) for cell in cells}
    rows: list[dict[str, Any]] = [{"settings": group, "measures": {}} for group in groups.values()]
    for name, measure in measures.items():
        series = _series(measured, groups, name, seed_key)
        summaries = summarize(series, better=measure.better, seed=0)
        for row, summary in zip(rows, summaries, strict=True):
            row["measures"][name] = summary
    return {
        "experiment": sweep.experiment,
        "seed_key": seed_key,
        "num_cells": len(cells),
        "measures": [
            {"name": name, "key": list(measure.path), "better": measure.better}
            for name, measure in measures.items()
        ],
        "rows": rows,
        "cells": measured,
    }


def write_table(table: Mapping[str, Any], folder: Path, *, name: str) -> None:
    """Write `table.json`, `table.csv` (groups) and `cells.csv` into the folder of a sweep.

    Args:
        table: of `build_table`.
        folder: of the sweep.
        name: what the sweep is called in a report.
    """
    content = {"kind": TABLE_KIND, "name": name, **table}
    write_text(folder / "cells.csv", table_csv(cells_table(content)))
    write_text(folder / "table.csv", table_csv(rows_table(content)))
    write_json(folder / TABLE_NAME, content)


def format_table(table: Mapping[str, Any]) -> str:
    """Return the table as plain text."""
    text = _format_seeds(table) if table["seed_key"] else _format_cells(table)
    count = len(table["cells"])
    if count < table["num_cells"]:
        text += f"\n\n{count} of {table['num_cells']} cells are finished."
    return text


def _format_cells(table: Mapping[str, Any]) -> str:
    """Return one line per cell: without seeds there is nothing to say about how sure it is."""
    names = [measure["name"] for measure in table["measures"]]
    lines = [["cell", *names]]
    for cell in table["cells"]:
        values = [_number(cell["values"][name]) for name in names]
        lines.append([describe_settings(cell["settings"]) or cell["cell"], *values])
    return "\n".join(align(lines))


def _format_seeds(table: Mapping[str, Any]) -> str:
    baseline = describe_settings(table["rows"][0]["settings"]) or "the first"
    blocks = [
        f"Over the values of {table['seed_key']!r}: mean and interquartile mean (IQM), paired "
        f"difference of the means to {baseline!r}, share of the pairs on which it is better, and "
        f"p-value of the difference after Holm's correction for the number of rows."
    ]
    for measure in table["measures"]:
        lines = [["settings", "runs", *HEADINGS]]
        for row in table["rows"]:
            summary = row["measures"][measure["name"]]
            label = describe_settings(row["settings"]) or "all"
            lines.append([label, str(summary["num_runs"]), *summary_cells(summary)])
        title = f"{measure['name']}, {measure['better']} is better"
        blocks.append("\n".join([title, *align(lines)]))
    return "\n\n".join(blocks)


def _measured(cell: Cell[Any], folder: Path, measures: Measures) -> dict[str, float | None]:
    result = read_result(cell, folder)
    return {name: _measure(result, each, cell.identifier) for name, each in measures.items()}


def _measure(result: Mapping[str, Any], measure: MeasureConfig, identifier: str) -> float | None:
    """Return a number of a result; None where a training run diverged."""
    value: Any = result
    for key in measure.path:
        options = _options(value)
        if key not in options:
            known = ", ".join(options) or type(value).__name__
            raise CheckpointError(
                f"measures: expected {'.'.join(measure.path)!r} in the result of {identifier}, "
                f"got no {key!r} among: {known}"
            )
        value = options[key]
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise CheckpointError(
            f"measures: expected a number at {'.'.join(measure.path)!r} in the result of "
            f"{identifier}, got {type(value).__name__}"
        )
    return None if value is None else float(value)


def _options(value: object) -> dict[str, Any]:
    """Return what a key may lead to: entries of a list have their position, and a name if any."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, list):
        return {}
    named = {each["name"]: each for each in value if isinstance(each, dict) and "name" in each}
    return {str(position): each for position, each in enumerate(value)} | named


def _series(
    measured: Sequence[Mapping[str, Any]],
    groups: Mapping[str, Any],
    name: str,
    seed_key: str | None,
) -> list[dict[str, float]]:
    """Return the values of one measure for each group, by the seed of their cell."""
    series: dict[str, dict[str, float]] = {group: {} for group in groups}
    for cell in measured:
        seed = json.dumps(cell["settings"].get(seed_key))
        value = cell["values"][name]
        group = series[_key(cell["settings"], without=seed_key)]
        group[seed] = math.nan if value is None else value
    return list(series.values())


def _group(cell: Cell[Config], seed_key: str | None) -> dict[str, Any]:
    return {key: value for key, value in cell.settings.items() if key != seed_key}


def _key(settings: Mapping[str, Any], *, without: str | None) -> str:
    return json.dumps({key: value for key, value in settings.items() if key != without})


def _number(value: float | None) -> str:
    return "diverged" if value is None else f"{value:.4f}"
