from pathlib import Path

import filelock
import pytest

from automix.errors import CheckpointError
from automix.experiments.cells import (
    ERROR_NAME,
    RESULT_NAME,
    CellState,
    build_table,
    is_busy,
    is_finished,
    read_error,
    run_cell,
    to_csv,
)
from automix.experiments.sweep import Cell, SweepConfig, expand_sweep
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


def test_the_table_holds_settings_and_measures_of_finished_cells(tmp_path: Path) -> None:
    cells = make_cells(seed=(1, 2, 3), fate=("finishes", "is, odd"))
    for cell in reversed(cells[:5]):
        run_cell(cell, tmp_path, run_toy)
    rows = build_table(cells, tmp_path, ["score", "scores.0.x"])
    assert [row["cell"] for row in rows] == [cell.identifier for cell in cells[:5]]
    assert rows[4] == {
        "cell": cells[4].identifier,
        "seed": 3,
        "fate": "finishes",
        "score": pytest.approx(0.3),
        "scores.0.x": 3,
    }
    lines = to_csv(rows[:2]).splitlines()
    assert lines[0] == "cell,seed,fate,score,scores.0.x"
    assert lines[2] == f'{cells[1].identifier},1,"is, odd",0.1,1'
    assert to_csv([]) == ""
    assert to_csv([{"a": None, "b": float("nan"), "c": 0}]) == "a,b,c\n,,0\n"


@pytest.mark.parametrize("measure", ["speed", "score.deep", "scores.1", "scores.x"])
def test_measures_that_are_not_there_are_named(tmp_path: Path, measure: str) -> None:
    (cell,) = make_cells(seed=(3,))
    run_cell(cell, tmp_path, run_toy)
    with pytest.raises(CheckpointError, match=f"measures: expected '{measure}' in the result"):
        build_table([cell], tmp_path, [measure])


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"result": 3}'])
def test_damaged_results_are_named(tmp_path: Path, content: str) -> None:
    (cell,) = make_cells(seed=(3,))
    run_cell(cell, tmp_path, run_toy)
    (tmp_path / cell.identifier / RESULT_NAME).write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=rf"{RESULT_NAME}: expected "):
        build_table([cell], tmp_path, ["score"])
