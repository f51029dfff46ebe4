"""An interrupted run with a damaged file ends as an undamaged one, or is refused in one line."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from automix.cli.main import main
from tests.experiments.damaged_runs import (
    InterruptedRun,
    check_logs,
    damaged,
    interrupted_ablate,
    interrupted_compare,
    interrupted_evaluate,
    interrupted_replay,
    interrupted_search,
)

SLOW = pytest.mark.slow
# Fifty searches, or sweeps with their processes.
pytestmark = pytest.mark.timeout(3600)
Make = Callable[..., InterruptedRun]


@pytest.fixture(autouse=True)
def _log_levels() -> Iterator[None]:
    """Put back the log levels that a command sets."""
    loggers = [logging.getLogger(name) for name in ("automix", "agents", "envs")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def check(
    run: InterruptedRun, base: Path, capsys: pytest.CaptureFixture[str], *, count: int, seed: int
) -> None:
    expected = run.outputs(run.whole)
    for what, folder in damaged(run, base, count=count, seed=seed):
        code = main(run.argv(folder))
        said = capsys.readouterr().err
        if code == 0:
            assert run.outputs(folder) == expected, what
            check_logs(folder)
        else:
            assert code == 2, f"{what}: {said}"
            last = said.splitlines()[-1]
            assert ": expected " in last, f"{what}: {last}"
            assert len(last) < 1000


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (interrupted_replay, 6),
        (interrupted_compare, 4),
        pytest.param(interrupted_search, 50, marks=SLOW),
        pytest.param(interrupted_replay, 50, marks=SLOW),
        pytest.param(interrupted_compare, 50, marks=SLOW),
        pytest.param(interrupted_ablate, 50, marks=SLOW),
    ],
)
def test_a_damaged_run_ends_as_a_whole_one_or_is_refused(
    make: Make,
    count: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    check(make(tmp_path, monkeypatch), tmp_path, capsys, count=count, seed=count)


@pytest.mark.parametrize("count", [2, pytest.param(50, marks=SLOW)])
def test_a_damaged_evaluation_ends_as_a_whole_one_or_is_refused(
    count: int,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = interrupted_evaluate(tmp_path, monkeypatch, trained)
    check(run, tmp_path, capsys, count=count, seed=count)
