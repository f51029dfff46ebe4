"""The tables of `docs/benchmarks.md` that come from a GPU, as text."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.kit import DONE

BEGIN, END = "<!-- begin: python -m benchmarks.gpu --table -->", "<!-- end -->"
_OPERATOR_PARTS = {
    ("operators-32", 128): "32 x 32, B = 128",
    ("operators-32", 1024): "32 x 32, B = 1,024",
    ("operators-224", 128): "224 x 224, B = 128",
}
_TRAINER_PARTS = {
    "trainer-float32": "float32, B = 128",
    "trainer-bfloat16": "bfloat16, B = 1,024",
    "trainer-compiled": "the same, compiled",
}

Column = tuple[str, dict[str, str]]
"""A title, which may occur twice in a table, and cells by the name of their row."""


def read_figures(file: Path) -> dict[str, Any] | None:
    """Return what `benchmarks.gpu` wrote, or None if nothing was measured."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def document_tables(content: Mapping[str, Any] | None) -> str:
    """Return all tables as Markdown; what was not measured has empty cells or no rows."""
    parts = content["parts"] if content else {}
    figures = {
        name: result["figures"]
        for name, result in parts.items()
        if result["state"] == DONE and result["figures"]
    }
    blocks = [
        hardware_line(content["hardware"]) if content else "Not measured: no GPU was to be had.",
        _operators(figures),
        _trainer(figures),
        _population(figures.get("population", {})),
        _parts(parts),
    ]
    return "\n\n".join(blocks)


def hardware_line(hardware: Mapping[str, Any]) -> str:
    """Return one sentence about where figures come from."""
    named = {
        "{}": hardware["accelerator"] or "no accelerator",
        "{} GiB": hardware["memory_gib"],
        "driver {}": hardware["driver"],
        "runtime {}": hardware["runtime"],
        "torch {}": hardware["torch"],
        "Python {}": hardware["python"],
        "processor {}": hardware["processor"],
        "{} cores": hardware["cores"],
    }
    return ", ".join(text.format(fact) for text, fact in named.items() if fact is not None) + "."


def _operators(figures: Mapping[str, Any]) -> str:
    columns: list[Column] = []
    for (part, batch), title in _OPERATOR_PARTS.items():
        rows = [row for row in figures.get(part, {}).get("rows", ()) if row["batch"] == batch]
        rates = {row["name"]: _number(1000 * batch / row["milliseconds"]) for row in rows}
        columns += [(f"{title}: images/s", rates), ("x floor", _cells(rows, "multiple", 1))]
    return _table("function", columns)


def _trainer(figures: Mapping[str, Any]) -> str:
    columns: list[Column] = []
    for part, title in _TRAINER_PARTS.items():
        rows = figures.get(part, {}).get("rows", ())
        columns += [
            (f"{title}: images/s", _cells(rows, "images_per_second")),
            ("x by hand", _cells(rows, "multiple", 3)),
            ("of matmul", _cells(rows, "matmul_fraction", 2)),
        ]
    return _table("row", columns)


def _population(figures: Mapping[str, Any]) -> str:
    sources = {
        "in a search": ("in_search", 2),
        "images/s": ("images_per_second", 0),
        "of matmul": ("matmul_fraction", 4),
        "training runs per minute": ("runs_per_minute", 0),
    }
    columns: list[Column] = [
        (title, {count: _number(value, places) for count, value in figures.get(key, {}).items()})
        for title, (key, places) in sources.items()
    ]
    for operator, ratios in figures.get("steps", {}).items():
        cells = {count: _number(ratio, 2) for count, ratio in ratios.items()}
        columns.append((f"step, {operator}", cells))
    return _table("runs at once", columns)


def _parts(parts: Mapping[str, Any]) -> str:
    columns: list[Column] = [
        ("outcome", {name: result["state"] for name, result in parts.items()}),
        ("seconds", {name: _number(result["seconds"]) for name, result in parts.items()}),
        # That of a benchmark which ended well is a row of the tables above.
        (
            "last line",
            {
                name: "" if result["figures"] else result["last_line"]
                for name, result in parts.items()
            },
        ),
    ]
    return _table("part", columns)


def _cells(rows: Iterable[Mapping[str, Any]], key: str, places: int = 0) -> dict[str, str]:
    return {row["name"]: _number(row[key], places) for row in rows}


def _number(value: float | None, places: int = 0) -> str:
    return "" if value is None else f"{value:,.{places}f}"


def _table(first: str, columns: Sequence[Column]) -> str:
    """Return a table with a row for each name in any of the columns."""
    names = (name for _, cells in columns for name in cells)
    lines = [
        "| " + " | ".join((first, *(title for title, _ in columns))) + " |",
        "|---" + "|---:" * len(columns) + "|",
    ]
    for name in dict.fromkeys(names):
        row = (name, *(cells.get(name, "") for _, cells in columns))
        lines.append("| " + " | ".join(text.replace("|", "/") for text in row) + " |")
    return "\n".join(lines)
