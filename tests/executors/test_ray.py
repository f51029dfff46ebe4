"""On Ray, everything is as in this process: outcomes, schedules, policies, whatever is lost."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from automix.experiments.search.run import search
from tests.executors.on_ray import search_config
from tests.experiments.tiny_search import outputs
from tests.test_worker_processes import is_running

pytest.importorskip("ray", reason="needs the extra ray")

ROOT = Path(__file__).parents[2]


def start(scenario: str, folder: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "tests.executors.on_ray", scenario, str(folder)]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})


def rays() -> set[int]:
    """Return the processes of Ray on this machine."""
    result = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if b"raylet" in command or b"gcs_server" in command or command.startswith(b"ray::"):
            result.add(int(path.parent.name))
    return {process for process in result if is_running(process)}


def check_nothing_is_left(before: set[int], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while rays() - before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert rays() <= before


def temporary() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("automix-ray-*"))


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The outputs of the search in this process."""
    folder = tmp_path_factory.mktemp("expected") / "search"
    search(search_config("in_process"), folder)
    return outputs(folder)


@pytest.mark.slow
def test_units_whose_actors_die_or_hang_are_done_again(tmp_path: Path) -> None:
    before, folders = rays(), temporary()
    assert start("units", tmp_path / "marks").wait() == 0
    check_nothing_is_left(before)
    assert temporary() <= folders


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["search", "killed", "nodes"])
def test_a_search_has_the_bits_of_one_in_this_process(
    tmp_path: Path, expected: dict[str, object], scenario: str
) -> None:
    before = rays()
    assert start(scenario, tmp_path / "run").wait() == 0
    assert outputs(tmp_path / "run") == expected
    check_nothing_is_left(before)


@pytest.mark.slow
def test_a_private_cluster_ends_with_a_driver_that_is_killed_and_the_search_resumes(
    tmp_path: Path, expected: dict[str, object]
) -> None:
    before, folder = rays(), tmp_path / "run"
    driver = start("search", folder)
    while driver.poll() is None and not (folder / "race.jsonl").exists():
        time.sleep(0.1)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    check_nothing_is_left(before)
    # Begun on Ray, and finished in this process.
    search(search_config("in_process"), folder)
    assert outputs(folder) == expected
