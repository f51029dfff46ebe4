"""Worker processes, which end with their parent, and cores for them."""

import multiprocessing
import os
import threading
from multiprocessing.process import BaseProcess


def num_cores() -> int:
    """Return the number of cores of this process; a container may hold fewer than the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
