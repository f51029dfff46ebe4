"""Run folders, progress lines and durations."""

import json
import time
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


def test_metrics_are_cut_back_to_a_checkpoint(tmp_path: Path) -> None:
    with RunFolder(tmp_path, ComputeConfig()) as run:
        assert (run.metrics_lines, run.result()) == (0, None)
        for step in range(4):
            run.log(step, {"loss": step / 2})
        run.keep_metrics(3, next_step=3)
        assert run.metrics_lines == 3
        run.log(3, {"note": "again"})
    lines = (tmp_path / METRICS_NAME).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1, 2, 3]
    assert json.loads(lines[3]) == {"step": 3, "note": "again"}


def test_a_finished_run_has_its_result_and_a_damaged_one_is_one_line(tmp_path: Path) -> None:
    with RunFolder(tmp_path, ComputeConfig()) as run:
        assert run.finish({"kind": "test"}) == run.result() == {"kind": "test"}
        (tmp_path / RESULT_NAME).write_text("[1]")
        with pytest.raises(CheckpointError, match="expected a JSON object, got list"):
            run.result()
