"""Journals keep what was finished, in time and order."""

import time
from pathlib import Path

import pytest

from automix.experiments.common.run_folder import Journal


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


def test_what_follows_a_torn_line_is_cut_and_written_again(tmp_path: Path) -> None:
    path = tmp_path / "units.jsonl"
    journal = Journal(path)
    for key in "abc":
        journal.add(key, {})
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][:-3] + b"\n" + lines[2])
    again = Journal(path)
    assert list(again.results) == ["a"]
    again.add("b", {})
    assert list(Journal(path).results) == ["a", "b"]
