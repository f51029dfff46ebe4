"""Journals keep what was finished, in time and order."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from automix.experiments.common.run_logs import Journal


def test_results_and_their_time_are_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    journal = Journal(tmp_path / "units.jsonl")
    now[0] += 100.0  # of something else
    assert journal.get("a") is None
    for key, seconds in (("a", 2.0), ("b", 0.5)):
        now[0] += seconds
        journal.add(key, {"value": 0.1 + 0.2, "text": key})
    assert journal.seconds == 2.5
    again = Journal(tmp_path / "units.jsonl")
    assert (
        again.results
        == journal.results
        == {key: {"value": 0.1 + 0.2, "text": key} for key in ("a", "b")}
    )
    assert list(again.results) == ["a", "b"]
    assert again.seconds == 2.5


def test_an_interrupted_write_is_no_finished_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "absent" / "units.jsonl")
    with pytest.raises(FileNotFoundError):
        journal.add("a", {})
    assert journal.get("a") is None
    assert journal.seconds == 0


def _filled(path: Path) -> list[bytes]:
    journal = Journal(path)
    for key in "abcd":
        journal.add(key, {"value": 0.5})
    return path.read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize(
    ("damage", "left", "num_lost"),
    [
        (lambda a, b, c, d: a + b + c + d[:-3], "abc", 0),
        (lambda a, b, c, d: a + b + c + d[:-1], "abc", 0),
        (lambda a, b, c, d: a + b[:-3] + b"\n" + c + d, "acd", 1),
        (lambda a, b, c, d: a + b[:-3] + c + d, "ad", 2),
        (lambda a, b, c, d: a + c + d, "acd", 1),
        (lambda a, b, c, d: a + b.replace(b"0.5", b"0.6") + c + d, "acd", 1),
        (lambda a, b, c, d: a + b.replace(b'"b"', b'"e"') + c + d, "acd", 1),
        (lambda a, b, c, d: bytes(len(a)) + b"\n" + b + c + d, "bcd", 1),
        (lambda a, b, c, d: a + b"[1]\n" + b"1\n" + b"[" * 10_000 + b"\n" + b + c + d, "abcd", 3),
    ],
)
def test_damaged_and_missing_lines_cost_their_units_and_are_said_once(
    damage: Callable[..., bytes],
    left: str,
    num_lost: int,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "units.jsonl"
    path.write_bytes(damage(*_filled(path)))
    again = Journal(path)
    assert "".join(again.results) == left
    assert caplog.messages == [
        f"{path}: expected whole lines, got {num_lost} damaged or missing; their units are run "
        "again"
    ] * bool(num_lost)
    caplog.clear()
    again.add("e", {})
    assert "".join(Journal(path).results) == left + "e"
    assert caplog.messages == []
