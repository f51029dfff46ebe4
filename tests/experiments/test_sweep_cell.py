"""Cells of a sweep: expansion of its file, and their folders."""

import json
import os
from pathlib import Path

import filelock
import pytest

from automix.errors import ConfigError
from automix.experiments.common.run_logs import drop_damaged_lines
from automix.experiments.sweep.cell import (
    ERROR_NAME,
    MAX_CELLS,
    STARTS_NAME,
    Cell,
    CellState,
    SweepConfig,
    expand_sweep,
    find_cell,
    is_busy,
    is_finished,
    read_error,
    run_cell,
)
from tests.experiments.toy_experiment import ToyConfig, read_starts, run_toy


def expand(folder: Path, text: str, base: str = "") -> tuple[Cell[ToyConfig], ...]:
    (folder / "base.yaml").write_text(base or "seed: 4\ninner: {rate: 0.5}\n", encoding="utf-8")
    path = folder / "sweep.yaml"
    path.write_text("experiment: toy\n" + text, encoding="utf-8")
    return expand_sweep(SweepConfig.from_yaml(path), ToyConfig, source=path)


def test_cells_are_variants_times_grid_in_the_order_of_the_file(tmp_path: Path) -> None:
    cells = expand(
        tmp_path,
        "base: base.yaml\n"
        "overrides: {seconds: 2.0}\n"
        "variants: {short: {seconds: 1.0}, long: {}}\n"
        "grid: {seed: [7, 8], inner.rate: [0.5, 0.25]}\n",
    )
    assert [dict(cell.settings) for cell in cells] == [
        {"variant": variant, "seed": seed, "inner.rate": rate}
        for variant in ("short", "long")
        for seed in (7, 8)
        for rate in (0.5, 0.25)
    ]
    assert [cell.config.seconds for cell in cells] == [1.0] * 4 + [2.0] * 4
    assert [cell.config.inner.rate for cell in cells[:2]] == [0.5, 0.25]
    assert len({cell.identifier for cell in cells}) == 8


def test_identifiers_name_the_content_and_not_the_way_it_was_written(tmp_path: Path) -> None:
    by_grid = expand(tmp_path, "base: base.yaml\ngrid: {seed: [4, 5]}\n")
    by_default = expand(tmp_path, "overrides: {inner.rate: 0.5}\ngrid: {seed: [4]}\n")
    assert by_grid[0].identifier == by_default[0].identifier
    assert by_grid[0].identifier != by_grid[1].identifier
    assert by_grid[0].identifier == f"toy-{by_grid[0].config.content_hash()}"


def test_a_sweep_without_grid_is_one_cell(tmp_path: Path) -> None:
    (cell,) = expand(tmp_path, "base: base.yaml\n")
    assert cell.config == ToyConfig.model_validate({"seed": 4, "inner": {"rate": 0.5}})
    assert dict(cell.settings) == {}


def test_a_base_may_name_files_for_its_sections(tmp_path: Path) -> None:
    (tmp_path / "inner.yaml").write_text("rate: 0.125\n", encoding="utf-8")
    (cell,) = expand(tmp_path, "base: base.yaml\n", base="inner: inner.yaml\n")
    assert cell.config.inner.rate == 0.125


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grid: {sed: [1]}", r"sweep\.yaml: cell \(sed=1\): sed: expected .*seed"),
        ("grid: {seed: [-1]}", r"cell \(seed=-1\): seed: expected"),
        ("grid: {inner.rate: [0.1, x]}", r"cell \(inner\.rate=x\): inner\.rate: expected"),
        ("grid: {seed: []}", r"sweep\.yaml: grid\.seed"),
        ("grids: {seed: [1]}", r"sweep\.yaml: grids: expected"),
        ("grid: {seed: [1, 2, 1]}", r"cell \(seed=1\): expected a cell of its own"),
        ("grid: {seed.deep: [1]}\nbase: base.yaml", r"seed\.deep: expected a section 'seed'"),
        ("base: none.yaml", r"none\.yaml: expected a readable file"),
        ("base: base.yaml\ngrid: {seed: 3}", r"sweep\.yaml: grid\.seed: expected"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        expand(tmp_path, text + "\n")
    with pytest.raises(ConfigError, match="base: expected a mapping"):
        expand(tmp_path, "base: base.yaml\n", base="- 1\n")


def test_huge_grids_are_refused_before_they_are_built(tmp_path: Path) -> None:
    numbers = list(range(1000))
    with pytest.raises(ConfigError, match=f"expected at most {MAX_CELLS} cells, got 1000000"):
        expand(tmp_path, f"grid: {{seed: {numbers}, seconds: {numbers}}}\n")


def test_cells_are_found_by_the_beginning_of_their_name(tmp_path: Path) -> None:
    cells = expand(tmp_path, "grid: {seed: [1, 2, 3]}\n")
    for cell in cells:
        assert find_cell(cells, cell.identifier) is cell
        assert find_cell(cells, cell.identifier.removeprefix("toy-")[:8]) is cell
    for beginning in ("", "toy", "toy-zzz"):
        with pytest.raises(ConfigError, match="cell: expected the beginning of one identifier"):
            find_cell(cells, beginning)


def make_cells(**grid: tuple[object, ...]) -> tuple[Cell[ToyConfig], ...]:
    sweep = SweepConfig(experiment="toy", grid=grid)
    return expand_sweep(sweep, ToyConfig, source=Path("sweep.yaml"))


def test_a_finished_cell_is_not_run_again(tmp_path: Path) -> None:
    (cell,) = make_cells(seed=(3,))
    assert not is_finished(cell, tmp_path)
    for _ in range(3):
        assert run_cell(cell, tmp_path, run_toy) is CellState.FINISHED
    assert len(read_starts(tmp_path)) == 1
    (start,) = (tmp_path / cell.identifier / STARTS_NAME).read_text().splitlines()
    assert json.loads(start)["pid"] == os.getpid()
    assert is_finished(cell, tmp_path)


@pytest.mark.parametrize("damaged", [b"\0" * 9, b'{"pid": 1', b"[1]\n", b'{"pid": 1}\n\xff\n'])
def test_damaged_lines_about_starts_are_left_out(damaged: bytes, tmp_path: Path) -> None:
    path = tmp_path / STARTS_NAME
    drop_damaged_lines(path)
    assert not path.exists()
    path.write_bytes(b'{"pid": 7}\n' + damaged)
    drop_damaged_lines(path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines in ([{"pid": 7}], [{"pid": 7}, {"pid": 1}])
    assert path.read_text().endswith("}\n")


def test_a_cell_that_another_holds_is_busy(tmp_path: Path) -> None:
    (cell,) = make_cells(seed=(3,))
    assert not is_busy(cell, tmp_path)
    (tmp_path / cell.identifier).mkdir()
    with filelock.FileLock(tmp_path / cell.identifier / "lock"):
        assert is_busy(cell, tmp_path)
        assert run_cell(cell, tmp_path, run_toy) is CellState.BUSY
    assert not is_busy(cell, tmp_path)
    assert read_starts(tmp_path) == []


def test_failures_are_written_down_and_tried_again(tmp_path: Path) -> None:
    refused, broken = make_cells(fate=("refuses", "breaks"))
    assert run_cell(refused, tmp_path, run_toy) is CellState.FAILED
    assert read_error(refused, tmp_path) == "rate: expected less, got more"
    with pytest.raises(RuntimeError, match="a fault of the program"):
        run_cell(broken, tmp_path, run_toy)
    assert read_error(broken, tmp_path) == "RuntimeError: a fault of the program"
    assert not is_busy(broken, tmp_path)
    assert run_cell(refused, tmp_path, lambda config, folder: {}) is CellState.FINISHED
    assert not (tmp_path / refused.identifier / ERROR_NAME).exists()
    assert read_error(refused, tmp_path) == ""


def test_an_interrupted_write_leaves_no_finished_cell(tmp_path: Path) -> None:
    (cell,) = make_cells(seed=(3,))
    with pytest.raises(ValueError, match="not JSON compliant"):
        run_cell(cell, tmp_path, lambda config, folder: {"score": float("nan")})
    assert not is_finished(cell, tmp_path)
