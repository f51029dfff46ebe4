"""A page that is written again while a search runs, and ends with Ctrl-C."""

import json
import shutil
import time
from pathlib import Path

import pytest

from automix.errors import CheckpointError
from automix.experiments.report import watch as module
from automix.experiments.report.watch import watch
from tests.reporting.parsing import parse


def as_it_runs(finished: Path, folder: Path) -> None:
    """Copy a finished search as it was in the middle of its selection."""
    unfinished = shutil.ignore_patterns("sums.json", "final.jsonl", "tensorboard", "checkpoints")
    shutil.copytree(finished, folder, ignore=unfinished)
    result = json.loads((folder / "result.json").read_text())
    published = {
        "kind": "search",
        "is_finished": False,
        "selected": "none",
        "picture": result["picture"],
        "standings": result["race"],
    }
    (folder / "result.json").write_text(json.dumps(published))
    # A log ends in the middle of a line where it is read while it grows.
    with (folder / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 99, "episode/pot')


def interrupted(times: int, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let a Ctrl-C come in the sleep of that number; return how long each sleep was."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) >= times:
            raise KeyboardInterrupt

    monkeypatch.setattr("automix.experiments.report.watch.time.sleep", sleep)
    return slept


def test_a_running_search_is_on_the_page_until_it_is_finished(
    finished_search: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_it_runs(finished_search, tmp_path / "mine")
    interrupted(2, monkeypatch)
    pages = watch(tmp_path)
    page = next(pages)
    live = parse(page.read_text())
    assert "A search is running: " in live.text
    assert "Best so far: none" in live.text
    for part in ("In progress", "Standings so far", "What was learned so far", "as they are"):
        assert part in live.text, part
    assert "data-reload" in page.read_text()
    assert all(link.startswith(("#", "./", "data:")) for link in live.attributes("href"))
    # It finishes; the next look sees it.
    shutil.rmtree(tmp_path / "mine")
    shutil.copytree(finished_search, tmp_path / "mine")
    began = time.monotonic()
    assert next(pages) == page
    assert time.monotonic() - began < 60
    ended = page.read_text()
    assert "data-reload" not in ended, "nobody writes it any more"
    assert "A search is running" not in ended
    assert (tmp_path / "tables" / "mine-final.csv").exists()
    assert list(pages) == []


def test_nothing_is_drawn_again_while_nothing_is_written(
    finished_search: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_it_runs(finished_search, tmp_path / "mine")
    slept = interrupted(3, monkeypatch)
    written = []
    monkeypatch.setattr(module, "write_text", lambda path, text: written.append(text))
    list(watch(tmp_path))
    assert len(slept) == 3
    # Once for the three looks, and once at the end, as nothing is finished.
    assert ["data-reload" in text for text in written] == [True, False]


def test_a_folder_may_be_empty_and_must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(1, monkeypatch)
    first, last = watch(tmp_path)
    assert first == last
    assert "Nothing is finished yet." in first.read_text()
    with pytest.raises(CheckpointError, match="expected a folder, got none"):
        next(watch(tmp_path / "missing"))
