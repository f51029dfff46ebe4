"""Tables of sweeps: pairing by seeds, measures by name, what is missing or damaged."""

import json
from pathlib import Path
from typing import Any

import pytest

from automix.errors import CheckpointError
from automix.evaluation.statistics import paired_difference
from automix.experiments.sweep.cell import (
    RESULT_NAME,
    Cell,
    MeasureConfig,
    SweepConfig,
    expand_sweep,
    run_cell,
)
from automix.experiments.sweep.table import build_table, format_table, write_table
from automix.reporting.tables import Direction
from tests.experiments.toy_experiment import ToyConfig, run_toy

SCORE = {"score": MeasureConfig(key="score", better=Direction.HIGHER)}


def make(**values: Any) -> tuple[SweepConfig, tuple[Cell[ToyConfig], ...]]:
    sweep = SweepConfig.from_mapping({"experiment": "toy", **values}, source="test")
    return sweep, expand_sweep(sweep, ToyConfig, source=Path("sweep.yaml"))


def test_rows_are_paired_over_seeds_and_compared_with_the_first(tmp_path: Path) -> None:
    sweep, cells = make(grid={"seed": [1, 2, 4], "inner.rate": [0.5, 0.25]})
    for cell in cells:
        run_cell(cell, tmp_path, run_toy)
    table = build_table(sweep, cells, tmp_path, SCORE)
    assert [row["settings"] for row in table["rows"]] == [{"inner.rate": 0.5}, {"inner.rate": 0.25}]
    first, second = (row["measures"]["score"] for row in table["rows"])
    assert first["values"] == [0.5, 1.0, 2.0]
    assert first["difference"] is None
    expected = paired_difference([0.25, 0.5, 1.0], [0.5, 1.0, 2.0], seed=0)
    assert second["difference"]["estimate"] == expected.estimate
    assert second["difference"]["low"] == expected.low
    assert second["probability_of_improvement"]["estimate"] == 0
    text = format_table(table)
    assert "inner.rate=0.25" in text
    assert "finished" not in text


def test_an_unfinished_sweep_compares_the_seeds_it_has(tmp_path: Path) -> None:
    sweep, cells = make(grid={"inner.rate": [0.5, 0.25], "seed": [1, 2, 4]})
    for cell in (cells[0], cells[1], cells[4], cells[5]):
        run_cell(cell, tmp_path, run_toy)
    table = build_table(sweep, cells, tmp_path, SCORE)
    second = table["rows"][1]["measures"]["score"]
    assert second["num_runs"] == 2
    assert second["difference"] is None, "they share seed 2 alone"
    assert "4 of 6 cells are finished" in format_table(table)


def test_without_seeds_each_cell_is_a_row(tmp_path: Path) -> None:
    sweep, cells = make(variants={"slow": {"inner.rate": 0.5}, "odd, name": {"seed": 3}})
    for cell in cells:
        run_cell(cell, tmp_path, run_toy)
    table = build_table(sweep, cells, tmp_path, SCORE)
    write_table(table, tmp_path, name="toy")
    assert table["seed_key"] is None
    assert format_table(table).splitlines()[1].split() == ["variant=slow", "0.0000"]
    lines = (tmp_path / "cells.csv").read_text().splitlines()
    assert lines[0] == "cell,variant,score"
    assert lines[2] == f'{cells[1].identifier},"odd, name",0.30000000000000004'
    assert json.loads((tmp_path / "table.json").read_text())["name"] == "toy"
    assert (tmp_path / "table.csv").read_text().count("\n") == 3


def test_no_cell_is_finished(tmp_path: Path) -> None:
    sweep, cells = make(grid={"seed": [1, 2]})
    table = build_table(sweep, cells, tmp_path, SCORE)
    write_table(table, tmp_path, name="toy")
    assert "no run" in format_table(table)
    assert "0 of 2 cells are finished" in format_table(table)


RESULT = {
    "splits": {"test": [{"name": "cutmix 0.2", "nll": 0.5}, {"name": "none", "nll": None}]},
    "label": "text",
    "is_good": True,
}


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("splits.test.0.nll", 0.5),
        ("splits.test.none.nll", None),
        (["splits", "test", "cutmix 0.2", "nll"], 0.5),
    ],
)
def test_measures_are_found_by_position_and_by_name(
    tmp_path: Path, key: object, expected: float | None
) -> None:
    sweep, cells = make(measures={"nll": {"key": key}})
    run_cell(cells[0], tmp_path, lambda config, folder: RESULT)
    table = build_table(sweep, cells, tmp_path, sweep.measures)
    assert table["cells"][0]["values"] == {"nll": expected}
    assert ("diverged" in format_table(table)) == (expected is None)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("speed", "got no 'speed' among: splits, label, is_good"),
        ("splits.test.2.nll", "got no '2' among: 0, 1, cutmix 0.2, none"),
        ("label.deep", "got no 'deep' among: str"),
        ("label", "expected a number at 'label' .* got str"),
        ("is_good", "got bool"),
    ],
)
def test_measures_that_are_not_there_are_named(tmp_path: Path, key: str, message: str) -> None:
    sweep, cells = make(measures={"nll": {"key": key}})
    run_cell(cells[0], tmp_path, lambda config, folder: RESULT)
    with pytest.raises(CheckpointError, match=message):
        build_table(sweep, cells, tmp_path, sweep.measures)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"result": 3}'])
def test_damaged_results_are_named(tmp_path: Path, content: str) -> None:
    sweep, cells = make(grid={"seed": [3]})
    run_cell(cells[0], tmp_path, run_toy)
    (tmp_path / cells[0].identifier / RESULT_NAME).write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=rf"{RESULT_NAME}: expected "):
        build_table(sweep, cells, tmp_path, SCORE)
