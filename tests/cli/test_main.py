"""Exit codes, interruptions and what the operating system refuses."""

import errno
import logging
import os
import signal
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import NoReturn

import pytest

import automix
from automix.cli.checks import check_siblings
from automix.cli.main import os_error_line
from automix.errors import AutoMixError, WorkerError
from automix.experiments import config as experiment_config
from automix.experiments.compare import run as compare
from automix.experiments.replay import run as replay
from automix.experiments.search import run as search
from automix.operator_info import Operator
from automix.schedule import Decision, constant_schedule
from tests.cli.running import RunCommand, listing

Stop = Callable[[], NoReturn]


def interrupt() -> NoReturn:
    raise KeyboardInterrupt


def terminate() -> NoReturn:
    os.kill(os.getpid(), signal.SIGTERM)
    raise AssertionError("expected to be stopped, got past the signal")


def fill_the_disk() -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def write_where_it_is_forbidden() -> NoReturn:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "there/file")


def begin(monkeypatch: pytest.MonkeyPatch, experiment: object, name: str, stop: Stop) -> None:
    """Let an experiment write its configuration, and then stop."""

    def run(*arguments: object) -> NoReturn:
        folder = arguments[-1]
        assert isinstance(folder, Path)
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("seed: 0\n")
        stop()

    monkeypatch.setattr(experiment, name, run)


@pytest.mark.parametrize("stop", [interrupt, terminate])
@pytest.mark.parametrize(
    ("experiment", "argv", "command"),
    [
        (search, [], "search 'my run/config.yaml' --output 'my run'"),
        (replay, ["s.json"], "replay --resume 'my run'"),
        (compare, [], "compare 'my run/config.yaml' --output 'my run'"),
    ],
    ids=["search", "replay", "compare"],
)
def test_an_interrupted_command_says_how_to_continue(
    experiment: object,
    argv: list[str],
    command: str,
    stop: Stop,
    run_command: RunCommand,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    constant_schedule(Decision(operator=Operator.MIXUP)).save(Path("s.json"))
    name = command.split(maxsplit=1)[0]
    begin(monkeypatch, experiment, name, stop)
    outcome = run_command(name, *argv, "--output", "my run")
    assert outcome.code == 130
    assert outcome.err == f"interrupted; continue with: automix {command}\n"


def test_the_command_that_continues_is_one_that_runs(
    run_command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(monkeypatch, search, "search", interrupt)
    outcome = run_command("search", "--output", "run")
    argv = outcome.err.removeprefix("interrupted; continue with: automix ").split()
    seen = []

    def note(config: experiment_config.SearchConfig, folder: Path) -> dict[str, object]:
        seen.append((config, folder))
        cost = {"trainings": 2, "trainings_by_stage": {"learning": 2}, "seconds": 2.0}
        return {"selected": "mixup 1", "cost": cost, "verdict": {"sentence": "as good"}}

    monkeypatch.setattr(search, "search", note)
    assert run_command(*argv).code == 0
    assert seen == [(experiment_config.SearchConfig(), Path("run"))]


def test_before_anything_is_written_there_is_nothing_to_continue(
    folder: Path, run_command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "search", lambda *_: interrupt())
    outcome = run_command("search")
    assert (outcome.code, outcome.err) == (130, "interrupted\n")
    assert listing(folder) == {}


def test_a_full_disk_names_the_folder_of_the_run(
    run_command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(monkeypatch, search, "search", fill_the_disk)
    outcome = run_command("search", "--output", "run")
    assert outcome.code == 2
    assert outcome.err == (
        "run: expected a place that can be read and written, got: no space left on device\n"
    )


def test_a_forbidden_place_is_named(
    run_command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(monkeypatch, search, "search", write_where_it_is_forbidden)
    outcome = run_command("search", "--output", "run")
    assert outcome.code == 2
    assert outcome.err == (
        "there/file: expected a place that can be read and written, got: permission denied\n"
    )


@pytest.mark.parametrize(
    "error", [EOFError(), BrokenPipeError(32, "Broken pipe"), BrokenExecutor()]
)
def test_a_worker_that_died_is_one_line(
    error: Exception, run_command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> NoReturn:
        raise error

    begin(monkeypatch, compare, "compare", fail)
    outcome = run_command("compare", "--output", "run")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == (
        "run: expected worker processes to keep running, got one that ended early, killed for its "
        "memory perhaps; continue with: automix compare run/config.yaml --output run\n"
    )


def test_too_many_lost_workers_are_one_line(
    run_command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> NoReturn:
        raise WorkerError(
            "unit 1f (a training run): expected at most 3 lost workers, got 4: killed"
        )

    begin(monkeypatch, compare, "compare", fail)
    outcome = run_command("compare", "--output", "run")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == (
        "unit 1f (a training run): expected at most 3 lost workers, got 4: killed; continue with: "
        "automix compare run/config.yaml --output run\n"
    )


def test_system_errors_without_a_number_keep_their_text() -> None:
    start = "automix: expected a place that can be read and written, got: "
    assert os_error_line(OSError("image file is truncated")) == start + "image file is truncated"


def test_mistakes_in_the_program_keep_their_traceback(
    run_command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> NoReturn:
        raise ZeroDivisionError

    monkeypatch.setattr(search, "search", fail)
    with pytest.raises(ZeroDivisionError):
        run_command("search")


def test_the_signal_handler_is_put_back(run_command: RunCommand) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert run_command("config", "search").code == 0
    assert run_command("config", "serch").code == 2
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_dry_run_prints_the_cost_and_writes_nothing(
    folder: Path, run_command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Estimate:
        def describe(self) -> str:
            return "about a year"

    monkeypatch.setattr(search, "predict_cost", lambda _: Estimate())
    monkeypatch.setattr(search, "search", lambda *_: interrupt())
    outcome = run_command("search", "--dry-run")
    assert (outcome.code, outcome.out, outcome.err) == (0, "about a year\n", "")
    assert listing(folder) == {}


def test_the_version(run_command: RunCommand) -> None:
    assert run_command("--version").out == f"automix {automix.__version__}\n"


def test_our_own_news_are_shown_and_those_of_libraries_are_not(run_command: RunCommand) -> None:
    run_command("config", "search")
    assert logging.getLogger("automix.data").isEnabledFor(logging.INFO)
    assert not logging.getLogger("matplotlib").isEnabledFor(logging.INFO)


def test_schedules_are_made_and_shown(folder: Path, run_command: RunCommand) -> None:
    outcome = run_command("schedule", "make", "constant:mixup:0.2", "made.json")
    assert (outcome.code, outcome.out, outcome.err) == (0, "schedule: made.json\n", "")
    shown = run_command("schedule", "show", "made.json")
    assert shown.code == 0
    assert "0.0% to  100.0%  mixup 0.2" in shown.out
    assert set(listing(folder)) == {"made.json"}


def test_packages_of_ours_are_where_they_belong(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_siblings()
    (folder / "foreign_agents").mkdir()
    (folder / "foreign_agents/__init__.py").write_text("raise ImportError('No module openai')")
    monkeypatch.syspath_prepend(folder)
    with pytest.raises(AutoMixError, match=r"^foreign_agents: expected the package in .*, got /"):
        check_siblings(("foreign_agents",))
    with pytest.raises(AutoMixError, match=r"^absent_agents: expected .*, got none; install"):
        check_siblings(("absent_agents",))
