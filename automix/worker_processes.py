"""Worker processes, which end with their parent, and cores for them."""

import contextlib
import multiprocessing
import os
import sys
import threading
import types
from collections.abc import Iterator
from multiprocessing.process import BaseProcess


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
