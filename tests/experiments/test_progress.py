"""The time left is told from what this attempt did."""

import time

import pytest

from automix.experiments.common.progress import ProgressBar


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
