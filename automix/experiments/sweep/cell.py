"""One cell of a sweep on disk: run at most once at a time, and never again once it is finished.

A cell's folder holds `cell.json` (its settings and result, written by rename: the mark of a
finished cell), `run/` (the experiment's own folder), `starts.jsonl` (when and where it was begun),
`error.txt` (why the last try failed), `log.txt` (what it said, unless it ran in the foreground) and
`lock`. The lock is the operating system's and goes with the process that holds it, so a killed
process leaves nothing to clean up.
"""

import json
import os
import platform
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import filelock

from automix.configuration.base import Config
from automix.errors import AutoMixError, CheckpointError
from automix.experiments.sweep.spec import Cell
from automix.files import write_json, write_text

RESULT_NAME = "cell.json"
ERROR_NAME = "error.txt"
LOG_NAME = "log.txt"
STARTS_NAME = "starts.jsonl"
_RUN_NAME = "run"
_LOCK_NAME = "lock"

ConfigType = TypeVar("ConfigType", bound=Config)

CellRunner = Callable[[ConfigType, Path], Mapping[str, Any]]
"""Runs an experiment in a folder of its own, or continues it there; returns its result as JSON."""


class CellState(Enum):
    """What came of trying to run a cell."""

    FINISHED = "finished"
    FAILED = "failed"
    BUSY = "busy"
    """Another process is running it."""


def is_finished(cell: Cell[ConfigType], folder: Path) -> bool:
    """Return whether the cell has its result in ``folder``, the folder of the sweep."""
    return (folder / cell.identifier / RESULT_NAME).exists()


def is_busy(cell: Cell[ConfigType], folder: Path) -> bool:
    """Return whether a process is running the cell at this moment."""
    path = folder / cell.identifier / _LOCK_NAME
    if not path.exists():
        return False
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    lock.release()
    return False


def run_cell(cell: Cell[ConfigType], folder: Path, runner: CellRunner[ConfigType]) -> CellState:
    """Run a cell in ``folder`` unless it is finished or being run.

    An `AutoMixError` of the runner is written down and returned as FAILED. Any other exception is
    written down, too, and goes on: it is a fault of the program.
    """
    home = folder / cell.identifier
    home.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(home / _LOCK_NAME)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return CellState.BUSY
    try:
        if is_finished(cell, folder):
            return CellState.FINISHED
        _note_start(home / STARTS_NAME)
        result = runner(cell.config, home / _RUN_NAME)
        content = {"cell": cell.identifier, "settings": cell.settings, "result": result}
        write_json(home / RESULT_NAME, content)
        (home / ERROR_NAME).unlink(missing_ok=True)
    except AutoMixError as error:
        write_text(home / ERROR_NAME, f"{error}\n")
        return CellState.FAILED
    except BaseException:
        write_text(home / ERROR_NAME, traceback.format_exc())
        raise
    finally:
        lock.release()
    return CellState.FINISHED


def _note_start(path: Path) -> None:
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    line = {"time": moment, "host": platform.node(), "pid": os.getpid()}
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def read_error(cell: Cell[ConfigType], folder: Path) -> str:
    """Return the last line of what the last try said; empty if it said nothing."""
    path = folder / cell.identifier / ERROR_NAME
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return lines[-1] if lines else ""


def read_result(cell: Cell[ConfigType], folder: Path) -> dict[str, Any]:
    """Return the result of a finished cell.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    path = folder / cell.identifier / RESULT_NAME
    try:
        result = json.loads(path.read_text(encoding="utf-8"))["result"]
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(f"{path}: expected the result of a finished cell") from None
    if not isinstance(result, dict):
        raise CheckpointError(f"{path}: expected a mapping as result, got {type(result).__name__}")
    return result
