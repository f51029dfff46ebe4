"""Worker processes, which end with their parent, and cores for them."""

import contextlib
import logging
import multiprocessing
import multiprocessing.process
import os
import sys
import threading
import types
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

_SECONDS_BETWEEN_LOOKS = 15.0
_LOG = logging.getLogger(__name__)


def num_cores() -> int:
    """Return the number of cores of this process; a container may hold fewer than the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def apart_from_script() -> Iterator[None]:
    """Let the processes that start within the block run nothing of the user's script.

    Python runs the main module again in every process that is not forked, where a script without
    ``if __name__ == "__main__":`` would call `automix.search` once more. Workers need nothing of
    it: all that they are sent is of modules.
    """
    script = sys.modules["__main__"]
    # Without a file or a specification: `multiprocessing.spawn` then names nothing to run.
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def end_with_parent() -> None:
    """End this process when its parent ends, however that ends.

    A killed parent cannot end its children, which would wait for work for ever.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


@contextlib.contextmanager
def naming_stopped_workers(seconds: float = _SECONDS_BETWEEN_LOOKS) -> Iterator[None]:
    """Say once of each worker that it was stopped, by SIGSTOP or a debugger: work waits for it.

    A killed worker breaks its pipe; a stopped one looks like one that works. Those of executors are
    replaced, `automix.executors`; those of a data loader are not.
    """
    ended = threading.Event()
    thread = threading.Thread(target=_name_stopped, args=(ended, seconds), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def stopped_workers() -> set[int]:
    """Return the process ids of the workers of this process that are stopped, on Linux."""
    # Not `active_children`: it takes the exit status of a process that another thread waits for.
    children = list(multiprocessing.process._children)  # type: ignore[attr-defined]
    return {child.pid for child in children if child.pid and _state(child.pid) in ("T", "t")}


def _state(pid: int) -> str:
    try:
        # "pid (name) state ...", where a name may hold brackets.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError, IndexError):
        return ""


def _name_stopped(ended: threading.Event, seconds: float) -> None:
    named: set[int] = set()
    before: set[int] = set()
    while not ended.wait(seconds):
        stopped = stopped_workers()
        # Twice in a row: a moment may have been meant.
        for pid in sorted((stopped & before) - named):
            _LOG.warning(
                "worker process %d: expected one that runs, got one that is stopped; kill -CONT %d "
                "lets it run; a worker of training runs is replaced after its timeout",
                *(pid, pid),
            )
        named |= stopped & before
        before = stopped
