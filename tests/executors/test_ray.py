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
from tests.cli.sweeps import run_here, tables
from tests.executors.on_ray import search_config
from tests.experiments.tiny_search import outputs
from tests.test_worker_processes import is_running

pytest.importorskip("ray", reason="needs the extra ray")

ROOT = Path(__file__).parents[2]


# A busy machine needs several tries until a node of Ray has started.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3_600)]


def start(scenario: str, folder: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "tests.executors.on_ray", scenario, str(folder)]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})


def run(scenario: str, folder: Path) -> None:
    """Run a scenario, after which no process of Ray and no folder of one may be left."""
    before, folders = rays(), temporary()
    process = start(scenario, folder)
    try:
        assert process.wait() == 0
    finally:
        process.kill()
        process.wait()
    check_nothing_is_left(before, folders)


def rays() -> set[int]:
    """Return the processes of Ray on this machine."""
    result = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if b"/ray/" in command or command.startswith(b"ray::"):
            result.add(int(path.parent.name))
    return {process for process in result if is_running(process)}


def check_nothing_is_left(before: set[int], folders: set[Path], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while (rays() - before or temporary() - folders) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert rays() <= before
    assert temporary() <= folders


def temporary() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("automix-ray-*"))


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The outputs of the search in this process."""
    folder = tmp_path_factory.mktemp("expected") / "search"
    search(search_config("in_process"), folder)
    return outputs(folder)


def test_units_whose_actors_die_or_hang_are_done_again(tmp_path: Path) -> None:
    run("units", tmp_path / "marks")


@pytest.mark.parametrize("scenario", ["search", "killed", "rollouts", "selection"])
def test_a_search_has_the_bits_of_one_in_this_process(
    tmp_path: Path, expected: dict[str, object], scenario: str
) -> None:
    run(scenario, tmp_path / "run")
    assert outputs(tmp_path / "run") == expected


def test_a_sweep_that_loses_a_node_has_the_files_of_one_in_this_process(tmp_path: Path) -> None:
    run("sweep", tmp_path / "tiny")
    run_here(tmp_path / "tiny.yaml", tmp_path / "expected")
    assert tables(tmp_path / "tiny") == tables(tmp_path / "expected")


def test_a_private_cluster_ends_with_a_driver_that_is_killed_and_the_search_resumes(
    tmp_path: Path, expected: dict[str, object]
) -> None:
    before, folders, folder = rays(), temporary(), tmp_path / "run"
    driver = start("search", folder)
    while driver.poll() is None and not (folder / "race.jsonl").exists():
        time.sleep(0.1)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    check_nothing_is_left(before, folders)
    # Begun on Ray, and finished in this process.
    search(search_config("in_process"), folder)
    assert outputs(folder) == expected


def test_a_driver_that_is_killed_while_a_cluster_starts_leaves_nothing(tmp_path: Path) -> None:
    before, folders = rays(), temporary()
    for number in range(4):
        driver = start("units", tmp_path / str(number))
        while driver.poll() is None and not temporary() - folders:
            time.sleep(0.05)
        # Nothing is running yet, the first processes are, all of them are starting.
        time.sleep(3 * number)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        check_nothing_is_left(before, folders)
