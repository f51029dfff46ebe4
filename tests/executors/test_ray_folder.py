"""Processes and folder of a private cluster go with the command, also where that is killed."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.test_worker_processes import is_running

COMMAND = """
import subprocess, sys, time
from automix.executors.ray_folder import make_folder

if __name__ == "__main__":
    folder = make_folder()
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    # One whose arguments do not name the folder, and one that writes nothing into it.
    with open(folder + "/messages", "w") as messages:
        kept = [messages.fileno()]
        writing = subprocess.Popen(sleep, pass_fds=kept, start_new_session=True)
    named = subprocess.Popen([*sleep, folder + "/session"], start_new_session=True)
    print(folder, writing.pid, named.pid, flush=True)
    if len(sys.argv) > 1:
        time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
@pytest.mark.parametrize("is_killed", [False, True])
def test_processes_and_folder_go_with_the_command(tmp_path: Path, is_killed: bool) -> None:
    script = tmp_path / "command.py"
    script.write_text(COMMAND)
    command = [sys.executable, str(script), *["waits"] * is_killed]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder, *others = process.stdout.readline().split()
        if is_killed:
            process.send_signal(signal.SIGKILL)
        assert process.wait() == (-signal.SIGKILL if is_killed else 0)
    deadline = time.monotonic() + 60
    while Path(folder).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(folder).exists()
    assert not any(is_running(int(other)) for other in others)
