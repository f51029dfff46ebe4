"""Sweeps of tiny comparisons, in processes that can be killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from pkgutil import resolve_name

from automix.experiments.commands import COMMANDS
from automix.experiments.sweep.cell import RESULT_NAME, STARTS_NAME, run_cell
from automix.experiments.sweep.run import Sweep, load_sweep, save_table

TINY_TASK = """
  task.model.width: 2
  task.trainer.epochs: 4
  task.trainer.batch_size: 10
  task.data.labels_per_class: 3
  task.data.test_size: 2
  task.data.reward_size: 3
  task.data.selection_size: 3
"""
# As in configs/search/digits.yaml, but shorter.
DIGITS_TASK = """
  task.model.width: 8
  task.trainer.epochs: 20
  task.data.labels_per_class: 20
  task.data.test_size: 40
  task.data.reward_size: 55
  task.data.selection_size: 55
"""


def write_sweep(
    path: Path, task: str, *, seeds: int, variants: str = "thin: {}, wide: {task.model.width: 3}"
) -> Path:
    path.write_text(
        "experiment: compare\n"
        "overrides:\n"
        "  num_seeds: 2\n"
        "  schedules: [none, 'constant:mixup']\n"
        "  compute.workers: 1"
        f"{task}"
        f"variants: {{{variants}}}\n"
        f"grid: {{seed: {list(range(seeds))}}}\n"
        "measures: {mixup: {key: [splits, test, mixup 1, calibrated_nll, mean]}}\n",
        encoding="utf-8",
    )
    return path


def start(path: Path, folder: Path, *, workers: int) -> subprocess.Popen[str]:
    """Start the sweep as a process group of its own."""
    command = [sys.executable, "-m", "automix", "ablate", str(path), "--output", str(folder)]
    return subprocess.Popen(
        [*command, "--workers", str(workers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def kill(process: subprocess.Popen[str], *, group: bool) -> None:
    """Kill a sweep: all of its processes, or the first, whose children must end by themselves."""
    if group:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    # Its pipes close when the last of its processes has ended.
    process.communicate(timeout=60)


def num_finished(folder: Path) -> int:
    return len(list(folder.glob(f"*/{RESULT_NAME}")))


def wait_until_finished(folder: Path, count: int, *, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while num_finished(folder) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def progress(folder: Path) -> int:
    """Return how often something was written down: cells begun, training runs, cells finished."""
    logs = [*folder.glob(f"*/{STARTS_NAME}"), *folder.glob("*/run/*.jsonl")]
    return sum(path.read_bytes().count(b"\n") for path in logs) + num_finished(folder)


def wait_for_progress(folder: Path, process: subprocess.Popen[str], count: int) -> None:
    """Wait until ``count`` more things are written down, or the process has ended."""
    goal = progress(folder) + count
    while process.poll() is None and progress(folder) < goal:
        time.sleep(0.01)


def starts(folder: Path, *, finished: bool = False) -> dict[str, int]:
    """Return how often each cell was begun; on request, only cells that have their result."""
    return {
        path.parent.name: len([json.loads(line) for line in path.read_text().splitlines()])
        for path in folder.glob(f"*/{STARTS_NAME}")
        if not finished or (path.parent / RESULT_NAME).exists()
    }


def tables(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("table.json", "table.csv", "cells.csv")}


def run_here(path: Path, folder: Path) -> Sweep:
    """Run every cell in this process, one after the other, without any interruption."""
    sweep = load_sweep(path, folder, COMMANDS)
    for cell in sweep.cells:
        run_cell(cell, folder, resolve_name(sweep.experiment.run))
    save_table(sweep)
    return sweep
