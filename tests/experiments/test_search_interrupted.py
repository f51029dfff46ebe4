"""A search that is stopped anywhere resumes, with the result of an uninterrupted one."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from automix.errors import CheckpointError
from automix.experiments.common.run_logs import Journal
from automix.experiments.search.learning import CHECKPOINTS_NAME, LearningLog
from automix.experiments.search.run import search
from tests.equality import untouched_generators
from tests.experiments.tiny_search import TINY, metrics, outputs


class Interruptions:
    """Raises KeyboardInterrupt at chosen calls of a function that is wrapped."""

    def __init__(self, *calls: int) -> None:
        self._left = set(calls)
        self._count = 0

    def wrap(self, function: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self._count += 1
            if not after:
                self._check()
            result = function(*args, **kwargs)
            if after:
                self._check()
            return result

        return wrapped

    def _check(self) -> None:
        if self._count in self._left:
            raise KeyboardInterrupt


def run_to_the_end(folder: Path) -> int:
    """Continue until the search is finished; return how often it was interrupted."""
    for attempt in range(20):
        try:
            search(TINY, folder)
        except KeyboardInterrupt:
            continue
        return attempt
    raise AssertionError("the search does not end")


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("place", "calls", "after"),
    [
        ("on_episode", (1, 7, 14), False),
        pytest.param("on_episode", (1, 7, 14), True, marks=SLOW),
        pytest.param("save", (1, 3, 5, 7), False, marks=SLOW),
        pytest.param("save", (1, 3, 5, 7), True, marks=SLOW),
    ],
)
def test_learning_goes_on_wherever_it_was_stopped(
    finished_search: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    calls: tuple[int, ...],
    after: bool,
) -> None:
    stops = Interruptions(*calls)
    function = getattr(LearningLog, place)
    monkeypatch.setattr(LearningLog, place, stops.wrap(function, after=after))
    with untouched_generators():
        assert run_to_the_end(tmp_path / "run") == len(calls)
    assert outputs(tmp_path / "run") == outputs(finished_search)


@pytest.mark.parametrize("after", [pytest.param(False, marks=SLOW), True])
def test_selection_goes_on_wherever_it_was_stopped(
    finished_search: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    stops = Interruptions(1, 9)
    wrapped = stops.wrap(Journal.add, after=after)
    monkeypatch.setattr(Journal, "add", wrapped)
    assert run_to_the_end(tmp_path / "run") == 2
    assert outputs(tmp_path / "run") == outputs(finished_search)
    # Nothing that was remembered has been trained again.
    lines = [(path / "selection.jsonl").read_text() for path in (tmp_path / "run", finished_search)]
    assert len(lines[0].splitlines()) == len(lines[1].splitlines())


def interrupted(folder: Path, monkeypatch: pytest.MonkeyPatch, *, save: int) -> None:
    """Leave a search in ``folder`` that was interrupted after checkpoint number ``save``."""
    with monkeypatch.context() as patch:
        stops = Interruptions(save)
        patch.setattr(LearningLog, "save", stops.wrap(LearningLog.save, after=True))
        with pytest.raises(KeyboardInterrupt):
            search(TINY, folder)


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _flip_a_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [pytest.param(_cut, marks=SLOW), _flip_a_bit, pytest.param(lambda content: b"", marks=SLOW)],
)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    finished_search: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[bytes], bytes],
) -> None:
    folder = tmp_path / "run"
    interrupted(folder, monkeypatch, save=3)
    path = folder / CHECKPOINTS_NAME / "step-000000008.ckpt"
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        search(TINY, folder)
    assert "expected an undamaged checkpoint" in caplog.text
    assert "trying the checkpoint before it" in caplog.text
    assert outputs(folder) == outputs(finished_search)


def test_two_damaged_checkpoints_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    interrupted(folder, monkeypatch, save=3)
    for path in (folder / CHECKPOINTS_NAME).iterdir():
        path.write_bytes(_cut(path.read_bytes()))
    before = metrics(folder)
    with pytest.raises(CheckpointError, match="expected an undamaged checkpoint, got damaged"):
        search(TINY, folder)
    assert metrics(folder) == before


@pytest.mark.slow
def test_a_damaged_policy_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    interrupted(folder, monkeypatch, save=4)  # the one after learning
    weights = folder / "policy" / "policy.safetensors"
    weights.write_bytes(_cut(weights.read_bytes()))
    with pytest.raises(CheckpointError, match=r"policy\.safetensors: expected safetensors, got"):
        search(TINY, folder)
