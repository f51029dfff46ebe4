"""The command itself, killed at random moments until it ends: minutes of real processes."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from automix.operator_info import Operator
from automix.schedule import Decision, constant_schedule, mix_then_off
from tests.equality import assert_same
from tests.experiments.tiny_replay import outputs

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "80", "OMP_NUM_THREADS": "1"}
ALONE = [sys.executable, "-m", "automix"]
TOGETHER = [
    sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
    "-m", "automix",
]  # fmt: skip
PATIENCE_IN_SECONDS = 300.0


def start(launcher: list[str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*launcher, "replay", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=ENVIRONMENT,
    )  # fmt: skip


def files_of(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("checkpoints/step-*")}


def wait_for_a_checkpoint(folder: Path, process: subprocess.Popen[str], before: set[str]) -> bool:
    """Return whether there is a new one; not if the process ended first."""
    end = time.monotonic() + PATIENCE_IN_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            return False
        if files_of(folder) - before:
            return True
        time.sleep(0.01)
    raise AssertionError("no checkpoint for a long time")


def processes_of(launcher: subprocess.Popen[str]) -> list[int]:
    """Return the processes that torchrun started; of a plain command, itself."""
    children = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if line)
        except (OSError, ValueError):
            continue
        if int(fields["PPid"]) == launcher.pid:
            children.append(int(fields["Pid"]))
    return children or [launcher.pid]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize(("launcher", "kills"), [(ALONE, 6), (TOGETHER, 3)], ids=["1", "2"])
@pytest.mark.parametrize("operator", [Operator.RECURSIVEMIX, Operator.SALIENCY_GRAFTING])
@pytest.mark.timeout(900)
def test_a_replay_that_is_killed_again_and_again_ends_in_the_same_bits(
    launcher: list[str], kills: int, operator: Operator, tmp_path: Path
) -> None:
    file = tmp_path / "schedule.json"
    mix_then_off(Decision(operator=operator)).save(file)
    arguments = [
        str(file), "configs/replay/digits.yaml", "--task.trainer.epochs", "160",
        "--task.trainer.batch-size", "40",
        "--task.trainer.precision", "bf16", "--task.trainer.accumulation", "2",
        "--checkpoints.every-steps", "7", "--output",
    ]  # fmt: skip
    whole = start(launcher, *arguments, str(tmp_path / "whole"))
    said = whole.communicate(timeout=PATIENCE_IN_SECONDS)[0]
    assert whole.returncode == 0, said
    draws = random.Random(operator.value)
    folder = tmp_path / "cut"
    done = 0
    for _ in range(4 * kills):
        resumes = (folder / "schedule.json").exists() and draws.random() < 0.5
        before = files_of(folder)
        process = start(
            launcher, *(["--resume", str(folder)] if resumes else [*arguments, str(folder)])
        )
        if done < kills and wait_for_a_checkpoint(folder, process, before):
            time.sleep(draws.uniform(0, 0.3))
            # One of two processes that die together is enough.
            victim = draws.choice(processes_of(process))
            os.kill(victim, signal.SIGKILL)
            done += 1
        said = process.communicate(timeout=PATIENCE_IN_SECONDS)[0]
        if process.returncode == 0:
            break
        assert "expected" not in said or "expected worker processes" in said, said
    else:
        raise AssertionError("the replay does not end")
    assert done >= min(kills, 3), "the replay ended before it was killed a few times"
    assert_same(outputs(folder, last_step=800), outputs(tmp_path / "whole", last_step=800))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "number"),
    [(ALONE, signal.SIGTERM), (ALONE, signal.SIGINT), (TOGETHER, signal.SIGTERM)],
    ids=["1-term", "1-int", "2-term"],
)
def test_a_signal_saves_and_ends(
    launcher: list[str], number: signal.Signals, tmp_path: Path
) -> None:
    file, folder = tmp_path / "schedule.json", tmp_path / "run"
    constant_schedule(Decision(operator=Operator.CUTMIX)).save(file)
    process = start(
        launcher, str(file), "configs/replay/digits.yaml", "--task.trainer.epochs", "100000",
        "--checkpoints.every-steps", "50", "--output", str(folder),
    )  # fmt: skip
    assert wait_for_a_checkpoint(folder, process, set())
    before = files_of(folder)
    process.send_signal(number)
    # The training run would take hours.
    said = process.communicate(timeout=PATIENCE_IN_SECONDS)[0]
    assert files_of(folder) - before
    if launcher is ALONE:
        assert process.returncode == 130
        assert said.endswith(f"interrupted; continue with: automix replay --resume {folder}\n")
    else:
        # torchrun has an exit code and words of its own, besides ours.
        command = f"torchrun --nproc-per-node=2 -m automix replay --resume {folder}"
        assert said.count(f"interrupted; continue with: {command}") == 1
