"""Two machines replay together under torchrun; the process of one is lost and comes back."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from automix.operator_info import Operator
from automix.schedule import Decision, mix_then_off
from tests.equality import assert_same
from tests.experiments.test_replay_soak import files_of, processes_of
from tests.experiments.tiny_replay import outputs

ROOT = Path(__file__).parents[2]
PATIENCE_IN_SECONDS = 900.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def machine(port: int, *arguments: str) -> "subprocess.Popen[str]":
    """Start torchrun for one of two machines, which are both this one."""
    launcher = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1",
        "--max-restarts=10", "--rdzv-backend=c10d", "--rdzv-id=mine",
        f"--rdzv-endpoint=127.0.0.1:{port}", "--local-addr=127.0.0.1", "-m", "automix",
    ]  # fmt: skip
    return subprocess.Popen(
        [*launcher, "replay", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        text=True,
    )


def wait_for_a_checkpoint(folder: Path, machines: list["subprocess.Popen[str]"]) -> None:
    before, end = files_of(folder), time.monotonic() + PATIENCE_IN_SECONDS
    while not files_of(folder) - before:
        assert time.monotonic() < end
        assert all(one.poll() is None for one in machines)
        time.sleep(0.01)


def wait_for_the_end(machines: list["subprocess.Popen[str]"]) -> None:
    try:
        assert [one.wait(PATIENCE_IN_SECONDS) for one in machines] == [0, 0]
    finally:
        for one in machines:
            one.kill()
            one.wait()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="finds processes in /proc")
@pytest.mark.timeout(3_600)
def test_a_process_that_is_lost_and_comes_back_changes_nothing(tmp_path: Path) -> None:
    file, folder = tmp_path / "schedule.json", tmp_path / "cut"
    mix_then_off(Decision(operator=Operator.CUTMIX)).save(file)
    arguments = [
        str(file), "configs/replay/digits.yaml", "--task.trainer.epochs", "40",
        "--task.trainer.batch-size", "40", "--checkpoints.every-steps", "7", "--output",
    ]  # fmt: skip
    port = free_port()
    wait_for_the_end([machine(port, *arguments, str(tmp_path / "whole")) for _ in range(2)])

    port = free_port()
    # The first holds the meeting point: it is the one that stays.
    machines = [machine(port, *arguments, str(folder))]
    time.sleep(1.0)
    machines.append(machine(port, *arguments, str(folder)))
    wait_for_a_checkpoint(folder, machines)
    # One process: both machines start theirs again.
    os.kill(processes_of(machines[1])[0], signal.SIGKILL)
    wait_for_the_end(machines)
    assert_same(outputs(folder, last_step=200), outputs(tmp_path / "whole", last_step=200))
