"""Processes that run the cells of a sweep, alone or beside others on the same folder."""

# Not in `sweep.run`, because every process of a cell imports this module: 2.1 s of CPU time
# instead of 5.8 s.

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Generic

from automix.experiments.sweep.cell import (
    LOG_NAME,
    Cell,
    CellRunner,
    CellState,
    ConfigType,
    is_busy,
    is_finished,
    read_error,
    run_cell,
)
from automix.worker_processes import end_with_parent

_POLL_SECONDS = 0.5
# A runner that gets SIGTERM has ten seconds to save its state.
_PATIENCE_SECONDS = 10.0
_EXIT_CODES = {CellState.FINISHED: 0, CellState.FAILED: 2, CellState.BUSY: 3}
_DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOutcome:
    """Outcome of a sweep."""

    # Identifiers of cells that have their result, in the order of the sweep.
    finished: tuple[str, ...]
    failed: dict[str, str]  # why each of the other cells has none, by identifier


def run_sweep(
    cells: Sequence[Cell[ConfigType]],
    folder: Path,
    runner: CellRunner[ConfigType],
    *,
    num_workers: int,
    devices: Sequence[str] = (),
    preload: Sequence[str] = (),
    on_done: Callable[[Cell[ConfigType], CellState], None] = lambda cell, state: None,
) -> SweepOutcome:
    """Run every cell that has no result yet, each in a fresh process, and wait for all.

    Several calls may work on the same folder, from any number of processes: a cell is run by one
    of them, and a cell whose process dies is taken up by another. A cell that fails is tried once
    per call, and does not stop the others.

    The runner is at the top level of a module, and modules to ``preload`` are imported once for
    all cells and their workers. Each process has one of the ``devices``, values of
    ``CUDA_VISIBLE_DEVICES``; with fewer of them than workers, that many processes run. ``on_done``
    is called once for each cell that had no result, also for those that others finish.

    Raises:
        ValueError: ``num_workers`` is below 1.
        KeyboardInterrupt: as it came; the processes are asked to stop, and made to after 10 s.
    """
    if num_workers < 1:
        raise ValueError(f"num_workers: expected at least 1, got {num_workers}")
    # One process for each slot; without devices, slots only count.
    slots = list(devices)[:num_workers] or [""] * num_workers
    team = _Team(folder=folder, runner=runner, slots=slots, context=_context(preload, devices))
    waiting = [cell for cell in cells if not is_finished(cell, folder)]
    failed: dict[str, str] = {}
    with team.stopped_at_exit():
        while waiting or team.members:
            # Start what nobody runs; wait for a process to end; drop what others finished.
            waiting = team.start(waiting)
            # The result on disk decides, not the exit code: a process may die after writing it.
            for cell, code in team.ended():
                if is_finished(cell, folder):
                    on_done(cell, CellState.FINISHED)
                # Another call was quicker to lock it: look again later, in case it dies.
                elif code == _EXIT_CODES[CellState.BUSY]:
                    waiting.append(cell)
                else:
                    failed[cell.identifier] = _reason(cell, folder, code)
                    on_done(cell, CellState.FAILED)
            for cell in [cell for cell in waiting if is_finished(cell, folder)]:
                waiting.remove(cell)
                on_done(cell, CellState.FINISHED)
    finished = tuple(cell.identifier for cell in cells if is_finished(cell, folder))
    return SweepOutcome(
        finished=finished,
        failed={name: reason for name, reason in failed.items() if name not in finished},
    )


def _context(preload: Sequence[str], devices: Sequence[str]) -> BaseContext:
    """Return how processes are started.

    The fork server imports torch once for all cells and their workers, which takes six seconds
    each otherwise. Its children have its environment, so it cannot give each cell and the workers
    of that cell a device of their own.
    """
    if devices or "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    # Not fork: a child of a process with threads, such as those of torch, may hang.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    return context


@dataclass(frozen=True, slots=True)
class _Member(Generic[ConfigType]):
    process: BaseProcess
    cell: Cell[ConfigType]
    slot: str


@dataclass(slots=True, kw_only=True)
class _Team(Generic[ConfigType]):
    """The processes of one call: one for each cell being run, at most one for each slot."""

    folder: Path
    runner: CellRunner[ConfigType]
    slots: list[str]
    context: BaseContext
    members: list[_Member[ConfigType]] = field(default_factory=list)

    def start(self, waiting: Sequence[Cell[ConfigType]]) -> list[Cell[ConfigType]]:
        """Start cells that nobody runs while there are free slots; return the others."""
        not_started = []
        for cell in waiting:
            if not self.slots or is_busy(cell, self.folder):
                not_started.append(cell)
                continue
            # A slot is back only when its process has ended, so a device has one cell at a time.
            slot = self.slots.pop()
            process = self.context.Process(  # type: ignore[attr-defined]  # typeshed
                target=_run_in_process, args=(cell, self.folder, self.runner, slot)
            )
            process.start()
            self.members.append(_Member(process, cell, slot))
        return not_started

    def ended(self) -> list[tuple[Cell[ConfigType], int]]:
        """Wait a moment, and return the cells whose process ended, with its exit code."""
        if not self.members:
            time.sleep(_POLL_SECONDS)
        wait([member.process.sentinel for member in self.members], timeout=_POLL_SECONDS)
        ended = [member for member in self.members if member.process.exitcode is not None]
        self.members = [member for member in self.members if member not in ended]
        self.slots += [member.slot for member in ended]
        return [(member.cell, member.process.exitcode or 0) for member in ended]

    @contextmanager
    def stopped_at_exit(self) -> Iterator[None]:
        """Leave no process behind when the block ends, however it ends."""
        try:
            yield
        finally:
            # All are asked first, so that the ten seconds are those of the slowest, not of each.
            for member in self.members:
                member.process.terminate()
            deadline = time.monotonic() + _PATIENCE_SECONDS
            for member in self.members:
                member.process.join(max(0.0, deadline - time.monotonic()))
                member.process.kill()
                member.process.join()


def _run_in_process(
    cell: Cell[ConfigType], folder: Path, runner: CellRunner[ConfigType], device: str
) -> None:
    """Run one cell; the exit code is its outcome."""
    # A killed parent cannot stop its cells: they end by themselves.
    end_with_parent()
    # Ctrl-C reaches the whole group of processes; the parent decides and sends SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _interrupt)
    # Before torch looks at the devices, and inherited by the workers of the cell.
    if device:
        os.environ[_DEVICES_VARIABLE] = device
    _redirect_output(folder / cell.identifier / LOG_NAME)
    try:
        state = run_cell(cell, folder, runner)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGTERM)
    sys.exit(_EXIT_CODES[state])


def _redirect_output(path: Path) -> None:
    """Send the output of this process and its children to a file: cells would mix theirs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as stream:
        for number in (1, 2):
            os.dup2(stream.fileno(), number)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _reason(cell: Cell[ConfigType], folder: Path, code: int) -> str:
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return read_error(cell, folder) or f"its process ended with code {code}"
