import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Literal

import pytest

from automix.configuration.task import ComputeConfig
from automix.experiments.sweep.cell import (
    RESULT_NAME,
    Cell,
    CellState,
    is_busy,
    is_finished,
    read_result,
    run_cell,
)
from automix.experiments.sweep.scheduler import run_sweep
from automix.experiments.sweep.table import build_table, write_table
from tests.experiments.toy_experiment import ToyConfig, load_cells, read_starts, run_toy

ROOT = Path(__file__).resolve().parents[2]


def write_sweep(folder: Path, num_seeds: int, *, seconds: float) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(
        "experiment: toy\n"
        f"overrides: {{seconds: {seconds}}}\n"
        f"grid: {{seed: {list(range(num_seeds))}, inner.rate: [0.5, 0.25]}}\n"
        "measures: {score: {key: score}}\n",
        encoding="utf-8",
    )
    return path


def start(path: Path, folder: Path, num_workers: int) -> subprocess.Popen[bytes]:
    """Start the sweep as a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.experiments.toy_experiment", path, folder, str(num_workers)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )


def read_table(folder: Path) -> list[str]:
    """Return everything that is written about a sweep, but for versions and times."""
    return [(folder / name).read_text() for name in ("table.json", "table.csv", "cells.csv")]


def expected_table(path: Path, folder: Path) -> list[str]:
    """Run every cell in this process, without time to lose."""
    sweep, cells = load_cells(path)
    for cell in cells:
        quick = Cell(
            identifier=cell.identifier,
            settings=cell.settings,
            config=cell.config.model_copy(update={"seconds": 0.0}),
        )
        run_cell(quick, folder, run_toy)
    write_table(build_table(sweep, cells, folder, sweep.measures), folder, name=path.stem)
    return read_table(folder)


def check_each_ran_until_it_was_finished(cells: tuple[Cell[ToyConfig], ...], folder: Path) -> None:
    starts = read_starts(folder)
    assert {name for name, _ in starts} == {cell.identifier for cell in cells}
    for cell in cells:
        finished = (folder / cell.identifier / RESULT_NAME).stat().st_mtime_ns
        assert all(moment <= finished for name, moment in starts if name == cell.identifier)


def interrupt_at_random(path: Path, folder: Path, *, num_kills: int, seed: int) -> None:
    source = random.Random(seed)
    for _ in range(num_kills):
        process = start(path, folder, 2)
        # From before the first cell to the beginning of the third.
        goal = len(read_starts(folder)) + source.randrange(4)
        while process.poll() is None and len(read_starts(folder)) < goal:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert start(path, folder, 2).wait(timeout=300) == 0


@pytest.mark.parametrize(
    ("num_seeds", "num_kills"), [(2, 2), pytest.param(12, 12, marks=pytest.mark.slow)]
)
def test_a_sweep_killed_at_random_ends_with_the_same_table(
    tmp_path: Path, num_seeds: int, num_kills: int
) -> None:
    path = write_sweep(tmp_path, num_seeds, seconds=0.2)
    _, cells = load_cells(path)
    interrupt_at_random(path, tmp_path / "killed", num_kills=num_kills, seed=1)
    check_each_ran_until_it_was_finished(cells, tmp_path / "killed")
    table = read_table(tmp_path / "killed")
    assert table == expected_table(path, tmp_path / "whole")
    assert len(table[2].splitlines()) == 1 + 2 * num_seeds


@pytest.mark.slow
def test_two_processes_on_one_sweep_run_no_cell_twice(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, 2, seconds=0.3)
    folder = tmp_path / "shared"
    both = [start(path, folder, 1) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    _, cells = load_cells(path)
    counts = Counter(name for name, _ in read_starts(folder))
    assert counts == {cell.identifier: 1 for cell in cells}
    assert (folder / "cells.csv").read_text(encoding="utf-8").count("\n") == 5


def test_failures_of_any_kind_do_not_stop_the_others(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(
        "experiment: toy\ngrid: {fate: [refuses, breaks, dies, finishes]}\n", encoding="utf-8"
    )
    _, cells = load_cells(path)
    seen: dict[str, CellState] = {}
    outcome = run_sweep(
        cells,
        tmp_path,
        run_toy,
        compute=ComputeConfig(max_failures=0),
        devices=("5", "6"),
        on_done=lambda cell, state: seen.update({cell.config.fate: state}),
    )
    by_fate = {cell.config.fate: cell for cell in cells}
    died = outcome.failed.pop(by_fate["dies"].identifier)
    assert died.startswith(
        f"unit {by_fate['dies'].identifier} (cell fate=dies): expected at most 0 lost workers in a "
        "unit, got 1: worker process "
    )
    assert died.endswith(", ended by SIGKILL")
    assert outcome.finished == (by_fate["finishes"].identifier,)
    assert outcome.failed == {
        by_fate["refuses"].identifier: "rate: expected less, got more",
        by_fate["breaks"].identifier: "RuntimeError: a fault of the program",
    }
    assert seen == {
        fate: CellState.FINISHED if fate == "finishes" else CellState.FAILED for fate in by_fate
    }
    assert read_result(by_fate["finishes"], tmp_path)["gpu"] in {"5", "6"}
    # A second call goes over the failed ones only.
    starts = len(read_starts(tmp_path))
    assert run_sweep(cells[:1], tmp_path, run_toy, compute=ComputeConfig(workers=1)).failed
    assert run_sweep(cells[3:], tmp_path, run_toy, compute=ComputeConfig(workers=1)).finished
    assert len(read_starts(tmp_path)) == starts + 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_cell_whose_process_dies_or_stops_is_begun_again(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(
        "experiment: toy\ngrid: {fate: [dies once, stops once, finishes]}\n", encoding="utf-8"
    )
    _, cells = load_cells(path)
    outcome = run_sweep(cells, tmp_path, run_toy, compute=ComputeConfig(timeout=3.0))
    assert outcome.finished == tuple(cell.identifier for cell in cells)
    assert outcome.failed == {}
    counts = Counter(name for name, _ in read_starts(tmp_path))
    assert [counts[cell.identifier] for cell in cells] == [2, 2, 1]


def test_an_interrupt_leaves_no_process_and_no_lock(tmp_path: Path) -> None:
    # Longer than any patience: that it ends at all shows that it was interrupted.
    path = write_sweep(tmp_path, 1, seconds=100_000)
    _, cells = load_cells(path)

    def interrupt_when_both_run() -> None:
        while len(read_starts(tmp_path)) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    # A shell lets its background jobs ignore Ctrl-C.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt_when_both_run).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_sweep(cells, tmp_path, run_toy, compute=ComputeConfig())
    finally:
        signal.signal(signal.SIGINT, handler)
    assert not any(is_busy(cell, tmp_path) or is_finished(cell, tmp_path) for cell in cells)


@pytest.mark.parametrize("executor", ["auto", "in_process"])
def test_a_sweep_without_cells_and_one_in_this_process(
    tmp_path: Path, executor: Literal["auto", "in_process"]
) -> None:
    compute = ComputeConfig(executor=executor)
    assert run_sweep((), tmp_path, run_toy, compute=compute).finished == ()
    if executor == "in_process":
        _, cells = load_cells(write_sweep(tmp_path, 1, seconds=0.0))
        outcome = run_sweep(cells, tmp_path, run_toy, compute=compute)
        assert outcome.finished == tuple(cell.identifier for cell in cells)
