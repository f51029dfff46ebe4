"""A search whose process is killed at random moments, without warning, until it ends by itself."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from automix.experiments.config import SearchConfig
from automix.experiments.search.run import search
from automix.schedule import Schedule
from tests.experiments.test_search import changed
from tests.experiments.test_search_baselines import with_searcher
from tests.experiments.tiny_search import TINY, outputs, without_times

ROOT = Path(__file__).resolve().parents[2]
RUN = """
import sys
from pathlib import Path
from automix.experiments.search.run import search
from tests.experiments.test_search_killed import config_of

if __name__ == "__main__":
    search(config_of(sys.argv[2]), Path(sys.argv[1]))
"""


RUN_AND_DIE = """
import os
import signal
import sys
from pathlib import Path
from automix.experiments.common.run_logs import Journal
from automix.experiments.search.run import search
from tests.experiments.test_search_killed import config_of

add = Journal.add
lines = 0

def add_and_die(journal, *arguments, **others):
    global lines
    add(journal, *arguments, **others)
    lines += 1
    if lines == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    Journal.add = add_and_die
    search(config_of(sys.argv[2]), Path(sys.argv[1]))
"""


def config_of(name: str) -> SearchConfig:
    """Return the tiny search with a searcher; "populations" is PPO with two runs at once."""
    if name == "race":
        return TINY.model_copy(update={"runs": 40})
    if name == "populations":
        return changed(
            with_searcher("ppo"),
            agent={"num_environments": 4, "workers": "subprocess"},
            compute={"population": 2},
        )
    return with_searcher(name)


def start(script: Path, folder: Path, name: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), name], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}
    )


def progress(folder: Path) -> int:
    """Return how often something was written down: lines of logs, and the newest checkpoint."""
    lines = sum(path.read_bytes().count(b"\n") for path in folder.glob("*.jsonl"))
    steps = [int(path.stem.removeprefix("step-")) for path in folder.glob("checkpoints/step-*")]
    return lines + max(steps, default=0)


def kill_until_it_ends(script: Path, folder: Path, name: str) -> int:
    """Return how often it was killed: after ever more progress, whatever the machine is like."""
    generator = random.Random(0)
    for attempt in range(100):
        goal = progress(folder) + generator.randrange(12) + 2 * attempt
        process = start(script, folder, name)
        while process.poll() is None and progress(folder) < goal:
            time.sleep(0.01)
        # A moment of its own, in the middle of whatever comes next.
        time.sleep(0.3 * generator.random())
        if process.poll() is not None:
            assert process.returncode == 0
            return attempt
        process.kill()
        process.wait()
    raise AssertionError("the search does not end")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ppo", "pbt", "additive", "populations"])
def test_kill_9_changes_nothing(tmp_path: Path, name: str) -> None:
    script = tmp_path / "run.py"
    script.write_text(RUN)
    assert start(script, tmp_path / "whole", name).wait() == 0
    kills = kill_until_it_ends(script, tmp_path / "killed", name)
    assert kills >= 2
    if name in {"ppo", "populations"}:
        assert outputs(tmp_path / "killed") == outputs(tmp_path / "whole")
    for file in ("schedule.json", "proposal.json"):
        contents = [(tmp_path / run / file).read_bytes() for run in ("killed", "whole")]
        assert contents[0] == contents[1]
    # What is finished is left alone.
    assert search(config_of(name), tmp_path / "killed")["selected"]


@pytest.mark.slow
def test_kill_9_in_race_or_final_changes_nothing(tmp_path: Path) -> None:
    """By progress, not by the clock: the process kills itself after so many training runs."""
    script = tmp_path / "run.py"
    script.write_text(RUN_AND_DIE)
    whole = search(config_of("race"), tmp_path / "whole")
    num_race = whole["cost"]["trainings_by_stage"]["race"]
    folder = tmp_path / "killed"
    # In the first round of the race, in a later one, in the final right away and once more.
    for lines in (3, num_race - 6, 5, 4):
        command = [sys.executable, str(script), str(folder), "race", str(lines)]
        done = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, check=False)
        assert done.returncode == -signal.SIGKILL
        # The best so far is there, and it is the one that the result names.
        best = Schedule.load(folder / "schedule.json")
        partial = json.loads((folder / "result.json").read_text())
        assert partial["is_finished"] is False
        if partial["standings"]:
            assert partial["selected"] == partial["standings"][0]["name"]
            origin = f"best so far of automix search: {partial['selected']}"
            assert best.provenance["origin"] == origin
    result = search(config_of("race"), folder)
    assert without_times(result) == without_times(whole)
    schedules = [(tmp_path / run / "schedule.json").read_bytes() for run in ("killed", "whole")]
    assert schedules[0] == schedules[1]
