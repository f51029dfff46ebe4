"""Run folders, progress lines and durations."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from automix.configuration.task import ComputeConfig
from automix.errors import CheckpointError
from automix.experiments.common.run_folder import (
    METRICS_NAME,
    RESULT_NAME,
    ProgressBar,
    RunFolder,
    format_seconds,
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time in seconds, in a list to change it."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_units_of_an_earlier_attempt_do_not_count_for_the_time_left(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressBar("compare", 100) as bar:
        bar.skip(58)
        for _ in range(4):
            clock[0] += 5.0
            bar.advance()
    assert capsys.readouterr().err.splitlines() == [
        "compare: 60/100, 10 s spent, about 3 min 20 s left",
        "compare: 62/100, 20 s spent, about 3 min 10 s left",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (45, "45 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (60, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 0 min"),
        (3600, "1 h 0 min"),
        (7169, "1 h 59 min"),
        (7199, "2 h 0 min"),
        (7500, "2 h 5 min"),
        (100 * 3600, "100 h 0 min"),
    ],
)
def test_durations_are_rounded_before_they_are_cut_into_units(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.fixture
def logged(tmp_path: Path) -> tuple[Path, str]:
    """Return a log of three lines of a checkpoint and one after it, and the text of the three."""
    with RunFolder(tmp_path, ComputeConfig()) as run:
        for step in range(3):
            run.log(step, {"loss": step / 2})
        text = run.metrics_text()
        run.log(3, {"loss": 1.0})
    return tmp_path / METRICS_NAME, text


def test_metrics_are_cut_back_to_a_checkpoint(logged: tuple[Path, str]) -> None:
    path, text = logged
    number = path.stat().st_ino
    with RunFolder(path.parent, ComputeConfig()) as run:
        run.restore_metrics(text, next_step=3)
        assert path.read_text() == run.metrics_text() == text
        run.log(3, {"note": "again"})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 1, 2, 3]
    # The same file, which `tail -f` follows.
    assert path.stat().st_ino == number


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:30],
        lambda content: content[content.index(b"\n") + 1 :],
        lambda content: content.replace(b"0.5", b"0.6"),
        lambda content: content[:40] + b"\0" * (len(content) - 40),
        None,
    ],
    ids=["empty", "cut", "a line less", "flipped", "zeros", "gone"],
)
def test_damaged_metrics_are_those_of_the_checkpoint_again(
    logged: tuple[Path, str],
    damage: Callable[[bytes], bytes] | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path, text = logged
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    with RunFolder(path.parent, ComputeConfig()) as run:
        run.restore_metrics(text)
    assert path.read_text() == text
    assert "expected the 3 lines of the checkpoint, got a damaged file" in caplog.text


def test_a_checkpoint_gets_the_metrics_once_they_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda number: written.append(os.fstat(number).st_ino))
    with RunFolder(tmp_path, ComputeConfig()) as run:
        run.log(0, {"loss": 0.0})
        assert run.metrics_text() == '{"step": 0, "loss": 0.0}\n'
    assert written[-1] == (tmp_path / METRICS_NAME).stat().st_ino


def test_a_finished_run_has_its_result(tmp_path: Path) -> None:
    with RunFolder(tmp_path, ComputeConfig()) as run:
        assert run.result() is None
        assert run.finish({"kind": "test"}) == run.result() == {"kind": "test"}


def test_a_damaged_result_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with RunFolder(tmp_path, ComputeConfig()) as run:
        run.publish({"kind": "test"})
        path = tmp_path / RESULT_NAME
        # Without the key, it would be final.
        path.write_text(path.read_text().replace("is_finished", "is_finishee"))
        assert run.result() is None
        path.unlink()
        assert run.result() is None
    assert caplog.text.count("got a damaged or missing file; written again") == 2


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b""), Path.unlink])
def test_a_finished_run_with_a_damaged_log_is_run_again(
    tmp_path: Path, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    with RunFolder(tmp_path, ComputeConfig()) as run:
        run.log(0, {"loss": 1.0})
        run.finish({"kind": "test"})
    damage(tmp_path / METRICS_NAME)
    with RunFolder(tmp_path, ComputeConfig()) as run:
        assert run.result() is None
    assert "metrics.jsonl: got a damaged or missing file; written again" in caplog.text


def test_a_result_of_another_kind_is_one_line(tmp_path: Path) -> None:
    with RunFolder(tmp_path, ComputeConfig()) as run:
        (tmp_path / RESULT_NAME).write_text("[1]")
        with pytest.raises(CheckpointError, match="expected a JSON object, got list"):
            run.result()
