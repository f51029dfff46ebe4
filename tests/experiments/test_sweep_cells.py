import json
import os
from pathlib import Path

import filelock
import pytest

from automix.experiments.sweep.cell import (
    ERROR_NAME,
    STARTS_NAME,
    CellState,
    is_busy,
    is_finished,
    read_error,
    run_cell,
)
from automix.experiments.sweep.spec import Cell, SweepConfig, expand_sweep
from tests.experiments.toy_experiment import ToyConfig, read_starts, run_toy


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
