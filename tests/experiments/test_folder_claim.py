"""One process at a time works in a folder, on this host or another one."""

import json
import logging
import os
import time
from pathlib import Path

import pytest

from automix.errors import CheckpointError
from automix.experiments.common import folder_claim
from automix.experiments.common.folder_claim import (
    OWNER_NAME,
    ClaimedError,
    FolderClaim,
    is_claimed,
)
from automix.experiments.common.run_folder import RunFolder
from automix.experiments.config import SearchConfig


def claim(folder: Path) -> FolderClaim:
    return FolderClaim(folder, lock_name="lock")


def work_elsewhere(folder: Path, *, seconds_ago: float = 0.0) -> None:
    """Leave what a process on another host leaves, where locks do not reach that far."""
    owner = {"machine": "elsewhere", "host": "node-7", "process": 42, "mark": "other"}
    (folder / OWNER_NAME).write_text(json.dumps(owner))
    moment = time.time() - seconds_ago
    os.utime(folder / OWNER_NAME, (moment, moment))


def test_a_second_process_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    first, second = claim(tmp_path), claim(tmp_path)
    first.acquire()
    with pytest.raises(ClaimedError, match="another process"):
        second.acquire(wait=True)
    assert is_claimed(tmp_path, lock_name="lock")
    first.release()
    first.release()
    assert not is_claimed(tmp_path, lock_name="lock")
    second.acquire()
    second.release()
    assert {path.name for path in tmp_path.iterdir()} <= {"lock"}


def test_a_process_on_another_host_is_named(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    work_elsewhere(tmp_path, seconds_ago=30)
    with pytest.raises(ClaimedError, match="process 42 on node-7"):
        claim(tmp_path).acquire()
    assert is_claimed(tmp_path, lock_name="lock")


def test_a_claim_that_is_renewed_elsewhere_is_refused_by_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work_elsewhere(tmp_path, seconds_ago=30)
    monkeypatch.setattr(time, "sleep", lambda _: work_elsewhere(tmp_path))
    with (
        pytest.raises(CheckpointError, match="got one in use by process 42 on node-7"),
        RunFolder(tmp_path, SearchConfig()),
    ):
        pass


@pytest.mark.parametrize("damage", [False, True])
def test_a_claim_of_a_host_that_is_gone_is_taken_over(tmp_path: Path, damage: bool) -> None:
    work_elsewhere(tmp_path, seconds_ago=3600)
    if damage:
        (tmp_path / OWNER_NAME).write_bytes(b"\x00{")
    mine = claim(tmp_path)
    mine.acquire(wait=True)
    assert json.loads((tmp_path / OWNER_NAME).read_text())["process"] == os.getpid()
    mine.release()
    assert not (tmp_path / OWNER_NAME).exists()


def test_a_claim_is_renewed_and_a_lost_one_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(folder_claim, "_RENEWED_SECONDS", 0.01)
    mine = claim(tmp_path)
    mine.acquire()
    os.utime(tmp_path / OWNER_NAME, (0, 0))
    deadline = time.monotonic() + 30
    while (tmp_path / OWNER_NAME).stat().st_mtime == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (tmp_path / OWNER_NAME).stat().st_mtime > 0
    with caplog.at_level(logging.WARNING):
        work_elsewhere(tmp_path)
        while not caplog.records and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "process 42 on node-7 took over" in caplog.text
    mine.release()
    # That of the other one.
    assert (tmp_path / OWNER_NAME).exists()
