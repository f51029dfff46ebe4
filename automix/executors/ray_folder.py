"""Folder and processes of a private cluster of Ray, which go with the command however it ends.

Ray's own way is that its processes look for their parents. Some do not while they start, or when
their parent was killed: the monitor and the two agents of a node stay.
"""

import atexit
import contextlib
import multiprocessing
import os
import shutil
import signal
import stat
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

from automix.worker_processes import apart_from_script

# Of the paths of Ray's sockets, which systems limit to about a hundred letters.
_PREFIX = "automix-ray-"
_ATTEMPTS = 5
_SECONDS_BETWEEN = 0.5


def make_folder() -> str:
    """Return a new folder, which is removed with all processes of it when this process ends."""
    folder = tempfile.mkdtemp(prefix=_PREFIX)
    # This process cannot do it where it is killed. Spawned: it holds nothing of this process.
    watcher = multiprocessing.get_context("spawn").Process(target=_clean_after, args=(folder,))
    with apart_from_script():
        watcher.start()
    atexit.register(_clean_now, folder, watcher)
    return folder


def end_processes(folder: str) -> None:
    """End all processes of the cluster in ``folder`` but this one; only where there is /proc."""
    for _ in range(_ATTEMPTS):
        running = [process for process in _processes() if _is_of(process, folder)]
        if not running:
            return
        for process in running:
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        time.sleep(_SECONDS_BETWEEN)


def _processes() -> list[int]:
    with contextlib.suppress(OSError):
        return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return []


def _is_of(process: int, folder: str) -> bool:
    """Return whether a process writes into the folder, or was told of it."""
    if process == os.getpid():
        return False
    home = Path("/proc", str(process))
    with contextlib.suppress(OSError):
        # Agents and workers have titles in place of their arguments. Who only reads is a person.
        for opened in (home / "fd").iterdir():
            is_written = opened.lstat().st_mode & stat.S_IWUSR
            if is_written and opened.readlink().is_relative_to(folder):
                return True
    with contextlib.suppress(OSError):
        return f"{folder}/".encode() in (home / "cmdline").read_bytes()
    return False


def _clean_now(folder: str, watcher: BaseProcess) -> None:
    _clean(folder)
    watcher.kill()
    watcher.join()


def _clean_after(folder: str) -> None:
    """Wait for the end of the parent, and clean up, in a process of its own."""
    # Whatever ends the parent must not end this one: Ctrl-C, a signal to a whole group.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(os, "setsid"):
        os.setsid()
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    _clean(folder)


def _clean(folder: str) -> None:
    for _ in range(_ATTEMPTS):
        end_processes(folder)
        shutil.rmtree(folder, ignore_errors=True)
        if not Path(folder).exists():
            return
        time.sleep(_SECONDS_BETWEEN)
