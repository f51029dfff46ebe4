"""Checkpoint files survive whatever happens to a disk, and are never executed."""

import errno
import hashlib
import io
import logging
import os
import pickle
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from automix.errors import CheckpointError
from automix.files import (
    CheckpointFolder,
    read_checkpoint,
    write_checkpoint,
)
from tests.equality import assert_same


def state(step: int) -> dict[str, Any]:
    return {
        "step": step,
        "weights": {"a": torch.full((5,), step / 7), "b": torch.tensor([torch.nan, step])},
        "half": torch.tensor([step], dtype=torch.bfloat16),
        "others": [1.5, None, "text", True, (1, 2)],
    }


def steps(folder: CheckpointFolder) -> list[int]:
    return [read_checkpoint(file)["step"] for file in folder.files()]


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "checkpoints", keep=2)


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "file", state(3))
    assert_same(read_checkpoint(tmp_path / "file"), state(3))


def test_the_newest_are_kept_and_loaded(folder: CheckpointFolder) -> None:
    assert folder.load_newest() is None
    for step in (9, 10, 100, 999_999_999, 1_000_000_000):
        folder.save(step, state(step))
        assert_same(folder.load_newest(), state(step))
    assert steps(folder) == [1_000_000_000, 999_999_999]
    assert len(list(folder.path.iterdir())) == 2


def test_a_step_that_is_saved_twice_counts_once(folder: CheckpointFolder) -> None:
    for step in (1, 2, 2, 2):
        folder.save(step, state(step))
    assert steps(folder) == [2, 1]


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _flip_a_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES = pytest.mark.parametrize(
    "damage", [_cut, _flip_a_bit, lambda content: b"", lambda content: b"AUTOMIX1", None]
)


def _damage(file: Path, damage: Callable[[bytes], bytes] | None) -> None:
    """Change the content of ``file``, or put a folder in its place."""
    content = file.read_bytes()
    file.unlink()
    if damage is None:
        file.mkdir()
    else:
        file.write_bytes(damage(content))


@DAMAGES
def test_a_damaged_file_falls_back_to_the_one_before_it(
    folder: CheckpointFolder,
    damage: Callable[[bytes], bytes] | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder.save(1, state(1))
    folder.save(2, state(2))
    _damage(folder.file_of(2), damage)
    with caplog.at_level(logging.WARNING):
        assert_same(folder.load_newest(), state(1))
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"{folder.file_of(2)}: expected ")
    assert caplog.messages[0].endswith("; trying the checkpoint before it")


@pytest.mark.parametrize("damage", [_cut, _flip_a_bit])
def test_a_damaged_file_of_a_later_step_does_not_push_out_good_ones(
    folder: CheckpointFolder, damage: Callable[[bytes], bytes]
) -> None:
    folder.save(10, state(10))
    folder.save(30, state(30))
    _damage(folder.file_of(30), damage)
    assert_same(folder.load_newest(), state(10))
    folder.save(15, state(15))
    assert steps(folder) == [15, 10]


def test_when_all_are_damaged_it_is_one_line_and_nothing_is_removed(
    folder: CheckpointFolder,
) -> None:
    for step in (1, 2):
        folder.save(step, state(step))
        _damage(folder.file_of(step), _cut)
    before = {file: file.read_bytes() for file in folder.files()}
    with pytest.raises(CheckpointError, match="expected an undamaged checkpoint, got damaged"):
        folder.load_newest()
    assert {file: file.read_bytes() for file in folder.files()} == before


@given(position=st.integers(min_value=0), bit=st.integers(min_value=0, max_value=7))
def test_every_flipped_bit_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, position: int, bit: int
) -> None:
    file = tmp_path_factory.mktemp("flipped") / "file"
    write_checkpoint(file, {"weights": torch.arange(3.0)})
    content = bytearray(file.read_bytes())
    content[position % len(content)] ^= 1 << bit
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="expected an undamaged checkpoint"):
        read_checkpoint(file)


def test_half_written_files_are_ignored_and_removed(folder: CheckpointFolder) -> None:
    folder.save(1, state(1))
    name = folder.file_of(2).name
    half = folder.path / f".{name}.12345678.tmp"
    half.write_bytes(folder.file_of(1).read_bytes()[:100])
    (folder.path / "notes.txt").write_text("mine")
    (folder.path / f"{name}.bak").write_text("mine")
    assert_same(folder.load_newest(), state(1))
    assert sorted(path.name for path in folder.path.iterdir()) == sorted(
        [folder.file_of(1).name, "notes.txt", f"{name}.bak"]
    )


@pytest.mark.parametrize("exists", [False, True])
def test_a_full_disk_leaves_the_checkpoints_as_they_were(
    folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    folder.save(1, state(1))
    if exists:
        folder.save(2, state(2))
    before = {path: path.read_bytes() for path in folder.path.iterdir()}

    def fill(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fill)
    with pytest.raises(OSError, match="No space left on device") as caught:
        folder.save(3, state(3))
    assert caught.value.filename == str(folder.file_of(3))
    assert {path: path.read_bytes() for path in folder.path.iterdir()} == before


_SAVE_TWO = """
import sys, pathlib, torch
from automix.files import CheckpointFolder
folder = CheckpointFolder(pathlib.Path(sys.argv[1]), keep=2)
folder.save(1, {"weights": torch.zeros(100)})
folder.save(2, {"weights": torch.zeros(1_000_000)})
"""


def test_a_disk_that_really_refuses_more_bytes(tmp_path: Path) -> None:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    result = subprocess.run(
        [sys.executable, "-c", _SAVE_TWO, str(tmp_path / "checkpoints")],
        preexec_fn=limit, capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert "OSError: [Errno 27] File too large" in result.stderr
    folder = CheckpointFolder(tmp_path / "checkpoints", keep=2)
    newest = folder.load_newest()
    assert newest is not None
    assert len(newest["weights"]) == 100
    assert len(list(folder.path.iterdir())) == 1


class _Hostile:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch executed",)


def test_code_in_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stream = io.BytesIO()
    torch.save({"weights": _Hostile()}, stream)
    for payload in (stream.getvalue(), pickle.dumps(_Hostile(), protocol=2), b"", b"text"):
        digest = hashlib.sha256(payload).digest()
        Path("file").write_bytes(b"AUTOMIX1" + digest + payload)
        with pytest.raises(CheckpointError, match="expected tensors and values, got"):
            read_checkpoint(Path("file"))
    assert not Path("executed").exists()


def test_a_state_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "file", [1])  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="expected a dict, got list"):
        read_checkpoint(tmp_path / "file")
