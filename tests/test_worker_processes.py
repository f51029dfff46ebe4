"""Worker processes end with their parent, however that ends."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from automix.worker_processes import naming_stopped_workers, stopped_workers

PARENT = """
import multiprocessing, os, sys, time
from automix.worker_processes import end_with_parent

def work(queue):
    end_with_parent()
    queue.put(os.getpid())
    time.sleep(600)

if __name__ == "__main__":
    queue = multiprocessing.get_context("fork").Queue()
    multiprocessing.get_context("fork").Process(target=work, args=(queue,)).start()
    print(queue.get(), flush=True)
    time.sleep(600)
"""


def is_running(pid: int) -> bool:
    """Return whether a process exists and is not a zombie that waits to be collected."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_worker_ends_when_its_parent_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    assert is_running(worker)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 30
    while is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(worker)
    parent.stdout.close()


@pytest.mark.skipif(sys.platform != "linux", reason="states of processes are read from /proc")
def test_a_stopped_worker_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    worker = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    worker.start()
    try:
        assert worker.pid is not None
        assert stopped_workers() == set()
        os.kill(worker.pid, signal.SIGSTOP)
        deadline = time.monotonic() + 60
        with caplog.at_level(logging.WARNING), naming_stopped_workers(seconds=0.01):
            while not caplog.records and time.monotonic() < deadline:
                time.sleep(0.01)
            assert stopped_workers() == {worker.pid}
            time.sleep(0.1)
        [record] = caplog.records
        assert record.getMessage().startswith(
            f"worker process {worker.pid}: expected one that runs, got one that is stopped; "
            f"kill -CONT {worker.pid} lets it run"
        )
    finally:
        worker.kill()
        worker.join()
