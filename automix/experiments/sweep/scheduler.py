"""Processes that run the cells of a sweep, alone or beside others on the same folder."""

# Not in `sweep.run`, because every process of a cell imports this module: 2.1 s of CPU time
# instead of 5.8 s.

import functools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Generic

from automix.configuration.task import ComputeConfig
from automix.errors import WorkerError
from automix.executors.choose import Kind, make_executor, room
from automix.executors.units import Executor, Unit
from automix.experiments.sweep.cell import (
    LOG_NAME,
    Cell,
    CellRunner,
    CellState,
    ConfigType,
    describe_settings,
    is_busy,
    is_finished,
    read_error,
    run_cell,
)

_POLL_SECONDS = 0.5
# A runner that gets SIGTERM has ten seconds to save its state.
_PATIENCE_SECONDS = 10.0
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
    compute: ComputeConfig,
    devices: Sequence[str] = (),
    preload: Sequence[str] = (),
    on_done: Callable[[Cell[ConfigType], CellState], None] = lambda cell, state: None,
) -> SweepOutcome:
    """Run every cell that has no result yet, each in a fresh process, and wait for all.

    Several calls may work on the same folder, from any number of processes: a cell is run by one
    of them, and a cell whose process dies or hangs is begun again, as often as ``compute`` allows.
    ``compute.workers`` cells run at once. One that fails is tried once per call, and does not stop
    the others.

    The runner is at the top level of a module, not of a script, and modules to ``preload`` are
    imported once for all cells and their workers. Each process has one of the ``devices``, values
    of ``CUDA_VISIBLE_DEVICES``; with fewer of them than workers, that many processes run.
    ``on_done`` is called once for each cell that had no result, also for those that others finish.

    Raises:
        WorkerError: more workers were lost in all than is allowed.
        KeyboardInterrupt: as it came; the processes are asked to stop, and made to after 10 s.
    """
    waiting = [cell for cell in cells if not is_finished(cell, folder)]
    failed: dict[str, str] = {}
    if waiting:
        kind: Kind = "processes" if compute.executor == "auto" else compute.executor
        slots = list(devices)[: compute.workers] or [""] * compute.workers
        if kind == "ray":
            slots = slots[: room(compute, kind)]
        executor = make_executor(
            [functools.partial(_prepare, device, kind, _num_threads(kind)) for device in slots],
            compute,
            kind=kind,
            method=_start_method(preload, devices),
            is_fresh=True,
        )
        # Other processes may start elsewhere, in another folder.
        team = _Team(
            folder=folder.absolute(), runner=runner, executor=executor, num_slots=len(slots)
        )
        try:
            team.run(waiting, failed, on_done)
        finally:
            executor.stop(patience=_PATIENCE_SECONDS)
    finished = tuple(cell.identifier for cell in cells if is_finished(cell, folder))
    return SweepOutcome(
        finished=finished,
        failed={name: reason for name, reason in failed.items() if name not in finished},
    )


def _start_method(preload: Sequence[str], devices: Sequence[str]) -> str:
    """Return how processes are started.

    The fork server imports torch once for all cells and their workers, which takes six seconds
    each otherwise. Its children have its environment, so it cannot give each cell and the workers
    of that cell a device of their own.
    """
    if devices or "forkserver" not in multiprocessing.get_all_start_methods():
        return "spawn"
    # Not fork: a child of a process with threads, such as those of torch, may hang.
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(preload))
    return "forkserver"


@dataclass(slots=True, kw_only=True)
class _Team(Generic[ConfigType]):
    """The cells that one call runs, at most one for each slot."""

    folder: Path
    runner: CellRunner[ConfigType]
    executor: Executor
    num_slots: int
    running: dict[str, Cell[ConfigType]] = field(default_factory=dict)

    def run(
        self,
        waiting: Sequence[Cell[ConfigType]],
        failed: dict[str, str],
        on_done: Callable[[Cell[ConfigType], CellState], None],
    ) -> None:
        """Run cells until each has its result, or a reason in ``failed``."""
        while waiting or self.running:
            # Start what nobody runs; wait for a cell to end; drop what others finished.
            waiting = self._start(waiting)
            name = self.executor.first(list(self.running), seconds=_POLL_SECONDS)
            if name is not None:
                cell = self.running.pop(name)
                state, reason = self._ended(cell)
                # Another call was quicker to lock it: look again later, in case it dies.
                if state is CellState.BUSY:
                    waiting.append(cell)
                else:
                    if state is CellState.FAILED:
                        failed[name] = reason
                    on_done(cell, state)
            for cell in [cell for cell in waiting if is_finished(cell, self.folder)]:
                waiting.remove(cell)
                on_done(cell, CellState.FINISHED)

    def _start(self, waiting: Sequence[Cell[ConfigType]]) -> list[Cell[ConfigType]]:
        """Start cells that nobody runs while there are free slots; return the others."""
        not_started = []
        for cell in waiting:
            if len(self.running) >= self.num_slots or is_busy(cell, self.folder):
                not_started.append(cell)
                continue
            unit = Unit(
                name=cell.identifier,
                # A kind of its own: how long one cell takes says nothing about another.
                kind=f"cell {describe_settings(cell.settings)}".rstrip(),
                call=(_run_in_slot, (cell, self.folder, self.runner)),
            )
            self.executor.submit(unit)
            self.running[cell.identifier] = cell
        return not_started

    def _ended(self, cell: Cell[ConfigType]) -> tuple[CellState, str]:
        """Return how a cell ended, and why it failed."""
        state, reason = CellState.FAILED, ""
        try:
            state = self.executor.outcome(cell.identifier)
        except WorkerError as error:
            reason = str(error)
        except Exception as error:
            # A fault of the program, which is in the folder of the cell if it came from there.
            reason = read_error(cell, self.folder) or repr(error)
        # The result on disk decides: a process may die after writing it.
        if is_finished(cell, self.folder):
            return CellState.FINISHED, ""
        return state, reason or read_error(cell, self.folder)


@dataclass(frozen=True, slots=True)
class _Slot:
    """Place of a cell: whether it is a process of its own, whose output goes to a file."""

    is_apart: bool


def _num_threads(kind: Kind) -> int | None:
    """Return the threads of this process for those of Ray, which has a number of its own.

    Sums that are split among another number have other bits.
    """
    if kind != "ray":
        return None
    import torch  # noqa: PLC0415

    return torch.get_num_threads()


def _prepare(device: str, kind: Kind, num_threads: int | None) -> _Slot:
    """Make a process one for a cell."""
    if num_threads is not None:
        import torch  # noqa: PLC0415

        torch.set_num_threads(num_threads)
    if kind == "processes":
        signal.signal(signal.SIGTERM, _interrupt)
    # Before torch looks at the devices, and inherited by the workers of the cell.
    if device:
        os.environ[_DEVICES_VARIABLE] = device
    return _Slot(is_apart=kind != "in_process")


def _run_in_slot(
    slot: _Slot, cell: Cell[ConfigType], folder: Path, runner: CellRunner[ConfigType]
) -> CellState:
    """Run one cell."""
    if slot.is_apart:
        _redirect_output(folder / cell.identifier / LOG_NAME)
    try:
        return run_cell(cell, folder, runner)
    except KeyboardInterrupt:
        if not slot.is_apart:
            raise
        sys.exit(128 + signal.SIGTERM)


def _redirect_output(path: Path) -> None:
    """Send the output of this process and its children to a file: cells would mix theirs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as stream:
        for number in (1, 2):
            os.dup2(stream.fileno(), number)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
