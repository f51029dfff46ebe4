"""The table of a sweep: what its cells measured, with intervals where seeds repeat them."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from automix.errors import CheckpointError
from automix.experiments.common.kept_files import with_sum
from automix.experiments.common.summaries import HEADINGS, align, summarize, summary_cells
from automix.experiments.sweep.cell import (
    Cell,
    MeasureConfig,
    SweepConfig,
    describe_settings,
    is_finished,
    read_result,
)
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
    measure (`automix.experiments.common.summaries.summarize`); differences are to the first group.

    Raises:
        CheckpointError: a result is damaged or does not have one of the measures.
    """
    # Without seeds in the grid every cell is a row of its own, without intervals.
    seed_key = sweep.seed_key if sweep.seed_key in sweep.grid else None
    measured = []
    for cell in cells:
        if is_finished(cell, folder):
            result = read_result(cell, folder)
            values = {
                name: _measure(result, measure, cell.identifier)
                for name, measure in measures.items()
            }
            settings = dict(cell.settings)
            measured.append({"cell": cell.identifier, "settings": settings, "values": values})
    # Keyed by text, because settings may hold lists, which cannot be keys.
    groups = {
        json.dumps(settings): settings
        for settings in (_without(cell.settings, seed_key) for cell in cells)
    }
    rows: list[dict[str, Any]] = [{"settings": group, "measures": {}} for group in groups.values()]
    for name, measure in measures.items():
        # Paired by the value of the seed: unfinished cells leave their pairs out.
        series = _series(measured, groups, name, seed_key)
        # A fixed seed: the table of the same cells is the same file.
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
    """Write `table.json`, `table.csv` (groups) and `cells.csv`; reports call the sweep ``name``."""
    content = {"kind": TABLE_KIND, "name": name, **table}
    write_text(folder / "cells.csv", table_csv(cells_table(content)))
    write_text(folder / "table.csv", table_csv(rows_table(content)))
    # Last, because it marks the folder as a sweep with a table.
    write_json(folder / TABLE_NAME, with_sum(content))


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
        values = [
            "diverged" if cell["values"][name] is None else f"{cell['values'][name]:.4f}"
            for name in names
        ]
        lines.append([describe_settings(cell["settings"]) or cell["cell"], *values])
    return "\n".join(align(lines))


def _format_seeds(table: Mapping[str, Any]) -> str:
    baseline = describe_settings(table["rows"][0]["settings"]) or "the first"
    blocks = [
        f"Over the values of {table['seed_key']!r}: mean and interquartile mean (IQM), paired "
        f"difference of the means to {baseline!r}, fraction of the pairs on which it is better, "
        f"and p-value of the difference after Holm's correction for the number of rows."
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


def _measure(result: Mapping[str, Any], measure: MeasureConfig, identifier: str) -> float | None:
    """Return a number of a result; None where a training run diverged."""
    value: Any = result
    # Position in a list or name of an entry: names outlive another order of the schedules.
    for key in measure.path:
        options = _options(value)
        if key not in options:
            keys = ", ".join(options) or type(value).__name__
            raise CheckpointError(
                f"measures: expected {'.'.join(measure.path)!r} in the result of {identifier}, "
                f"got no {key!r} among: {keys}"
            )
        value = options[key]
    # A bool is an int in Python, but no measure.
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
    named = {entry["name"]: entry for entry in value if isinstance(entry, dict) and "name" in entry}
    return {str(position): entry for position, entry in enumerate(value)} | named


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
        group = series[json.dumps(_without(cell["settings"], seed_key))]
        # JSON has no NaN: a result says null where a run diverged.
        group[seed] = math.nan if value is None else value
    return list(series.values())


def _without(settings: Mapping[str, Any], seed_key: str | None) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != seed_key}
