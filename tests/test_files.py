"""Files are written whole or not at all."""

import errno
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from automix.files import atomic_writer, sha256_of, write_bytes, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_with_its_folders(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "text"
    write_text(file, "gr\u00fcn\n")
    assert file.read_bytes() == b"gr\xc3\xbcn\n"
    write_bytes(file, b"\x00\r\n")
    assert file.read_bytes() == b"\x00\r\n"
    assert names(file.parent) == ["text"]


def test_json_is_indented_and_strict(tmp_path: Path) -> None:
    file = tmp_path / "values.json"
    write_json(file, {"b": [1, 0.1], "a": None})
    assert file.read_text() == '{\n  "b": [\n    1,\n    0.1\n  ],\n  "a": null\n}\n'
    for bad in (float("nan"), float("inf"), object()):
        with pytest.raises((TypeError, ValueError)):
            write_json(file, bad)
    assert json.loads(file.read_text()) == {"b": [1, 0.1], "a": None}
    assert names(tmp_path) == ["values.json"]


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt, SystemExit, MemoryError])
@pytest.mark.parametrize("exists", [False, True])
def test_a_writer_that_is_stopped_leaves_what_was_there(
    tmp_path: Path, stop: type[BaseException], exists: bool
) -> None:
    file = tmp_path / "file"
    if exists:
        file.write_text("old")

    def write_half() -> None:
        with atomic_writer(file) as stream:
            stream.write(b"half of the n")
            stream.flush()
            raise stop

    with pytest.raises(stop):
        write_half()
    assert names(tmp_path) == ["file"] * exists
    assert not exists or file.read_text() == "old"


def test_until_the_end_a_reader_sees_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    with atomic_writer(file) as stream:
        stream.write(b"new")
        stream.flush()
        assert file.read_text() == "old"
        assert len(names(tmp_path)) == 2, "the temporary file lies on the same file system"
    assert file.read_text() == "new"
    assert names(tmp_path) == ["file"]


def test_what_is_written_is_on_the_disk_before_it_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        order.append("fsync")
        fsync(descriptor)

    def noted_replace(path: Path, target: Path) -> Path:
        order.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    write_text(tmp_path / "file", "x")
    # The second one is that of the folder, for the new name.
    assert order == ["fsync", "rename", "fsync"]


@pytest.mark.parametrize(("owner", "step"), [(os, "fsync"), (Path, "replace")])
def test_a_full_disk_names_the_file_and_leaves_nothing(
    owner: object, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("old")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(owner, step, refuse)
    with pytest.raises(OSError, match="No space left") as caught:
        write_text(file, "new")
    assert caught.value.filename == str(file)
    assert caught.value.errno == errno.ENOSPC
    assert names(tmp_path) == ["file"]
    assert file.read_text() == "old"


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="directory") as caught:
        write_text(tmp_path / "taken", "x")
    assert caught.value.filename == str(tmp_path / "taken")
    assert names(tmp_path) == ["taken"]


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match=r"exists|directory") as caught:
        write_text(tmp_path / "file" / "below", "x")
    assert Path(str(caught.value.filename)) == tmp_path / "file"


def test_an_error_of_the_body_keeps_its_own_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, atomic_writer(tmp_path / "file"):
        (tmp_path / "absent").read_text()
    assert Path(str(caught.value.filename)) == tmp_path / "absent"
    assert names(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError) as caught:
        write_text(tmp_path / "file", "x")
    assert caught.value.filename == str(tmp_path / "file")
    tmp_path.chmod(0o700)


@pytest.fixture
def _usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_usual_umask")
def test_the_umask_decides_who_may_read(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "x")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644
    os.umask(0o077)
    write_text(tmp_path / "file", "y")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with atomic_writer(file) as first, atomic_writer(file) as second:
        first.write(b"first")
        second.write(b"second")
    assert file.read_text() == "first", "the last to finish"
    assert names(tmp_path) == ["file"]


def test_a_checksum_tells_how_the_parts_are_cut() -> None:
    cuts = [(b"ab", b"c"), (b"a", b"bc"), (b"abc",), (b"abc", b""), (b"", b"abc"), (), (b"",)]
    assert len({sha256_of(*parts) for parts in cuts}) == len(cuts)
    for first, second in itertools.permutations((b"x", b"y")):
        assert sha256_of(first, second) != sha256_of(second, first)
    assert sha256_of(b"abc") == sha256_of(b"abc")
    assert len(sha256_of()) == 64


def test_checksums_do_not_change_between_versions() -> None:
    """They are in files of users: caches, schedules and checkpoints."""
    assert sha256_of(b"automix", b"") == (
        "59dcf89e7e70e61aaeadb76dff3a7b4ab7da6d2c5fb279ea407c04b898a486ea"
    )
