"""Nothing in a folder of images is unused, counted twice or waited for without a word."""

import inspect
import os
import shutil
import socket
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from automix.data.folder import FolderListing, list_folder
from automix.data.load import load_data
from automix.errors import ConfigError, DataError
from automix.experiments.common.run_folder import CONFIG_NAME, ENVIRONMENT_NAME
from tests.data.conftest import Configure, WriteFolder, write_image
from tests.resident import class_counts


def counts(listing: FolderListing, part: str = "train") -> list[int]:
    labels = Counter(file.label for file in listing.parts[part])
    return [labels[label] for label in range(len(listing.class_names))]


def message_of(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        list_folder(root)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", ["valid", "validation"])
def test_validation_images_under_another_name_are_used(
    name: str, write_folder: WriteFolder, folder_config: Configure
) -> None:
    root = write_folder(val=4)
    expected = load_data(folder_config(root))
    (root / "val").rename(root / name)
    data = load_data(folder_config(root))
    assert data.fingerprint == expected.fingerprint
    assert class_counts(data.seen.reward) == [2, 2]
    assert list_folder(root).where("val") == str(root / name)


def test_two_folders_of_validation_images_are_refused(write_folder: WriteFolder) -> None:
    root = write_folder(val=1)
    shutil.copytree(root / "val", root / "valid")
    expected = "expected one folder of validation images, got val and valid"
    assert message_of(root) == f"{root}: {expected}"


def test_images_in_no_class_are_named(
    write_folder: WriteFolder, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_folder()
    for folder in (root, root / "train"):
        write_image(folder / "loose.png", seed=0)
    assert counts(list_folder(root)) == [8, 8]
    expected = "skipped 1 images in no folder of a class, such as 'loose.png'"
    assert f"{root}: {expected}" in caplog.text
    assert f"{root / 'train'}: {expected}" in caplog.text


# Links.


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_linked_folders_are_followed_at_every_depth(
    depth: int, write_folder: WriteFolder, tmp_path: Path
) -> None:
    root = write_folder()
    link = root.joinpath("train", "cat", *["deeper"] * (depth - 1), "more")
    away = tmp_path / "disk2"
    if depth == 0:
        link = root / "train" / "cat"
        shutil.move(link, away)
    else:
        away.mkdir()
        link.parent.mkdir(parents=True, exist_ok=True)
        for number in range(3, 8):
            shutil.move(root / f"train/cat/{number}.png", away)
    link.symlink_to(away)
    (root / "train/dog/8.png").symlink_to(away / "7.png")
    listing = list_folder(root)
    assert counts(listing) == [8, 9]
    assert all((root / file.name).is_file() for file in listing.parts["train"])


def to_itself(root: Path) -> Path:
    return root / "train/cat"


def to_the_part(root: Path) -> Path:
    return root / "train"


def to_the_root(root: Path) -> Path:
    return root


def to_the_disk(root: Path) -> Path:
    return Path(root.anchor)


def to_another_class(root: Path) -> Path:
    return root / "train/dog"


@pytest.mark.parametrize(
    "target", [to_itself, to_the_part, to_the_root, to_the_disk, to_another_class]
)
@pytest.mark.parametrize("relative", [False, True])
def test_a_folder_that_is_reached_twice_is_refused(
    target: Callable[[Path], Path],
    relative: bool,
    write_folder: WriteFolder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = write_folder()
    # The later of the two in the order of names.
    link = root / "train/dog/more" if target is not to_another_class else root / "train/eel"
    link.symlink_to(target(root))
    monkeypatch.chdir(root.parent)
    message = message_of(Path(root.name) if relative else root)
    assert "train/" in message.partition(":")[0]
    assert ": expected each folder once, got that of " in message
    link.unlink()
    (root / "train/cat/loop").symlink_to("loop")
    assert message_of(root) == (
        f"{root}/train/cat/loop: expected a readable file, got: too many levels of symbolic links"
    )


def test_parts_may_be_links_to_the_same_folder(write_folder: WriteFolder) -> None:
    """Whether the same images may be in both is said when they are loaded."""
    root = write_folder()
    (root / "val").symlink_to(root / "test")
    assert counts(list_folder(root), "val") == counts(list_folder(root), "test") == [3, 3]


def test_a_class_that_leads_nowhere_is_refused(plain_folder: Path) -> None:
    (plain_folder / "eel").symlink_to(plain_folder / "gone")
    assert message_of(plain_folder) == (
        f"{plain_folder}/eel: expected a readable file, got: no such file or directory"
    )


def test_folders_may_be_nested_deeper_than_calls(plain_folder: Path) -> None:
    inner = plain_folder.joinpath("cat", *["d"] * 150)
    inner.mkdir(parents=True)
    (inner / "deep.png").touch()
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        assert counts(list_folder(plain_folder)) == [11, 10]
    finally:
        sys.setrecursionlimit(limit)


# What is no file.


def test_pipes_sockets_and_devices_are_not_waited_for(
    write_folder: WriteFolder,
    folder_config: Configure,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    root = write_folder()
    os.mkfifo(root / "train/cat/pipe.png")
    (root / "train/dog/zero.png").symlink_to("/dev/zero")
    monkeypatch.chdir(root)  # a socket has a short path
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("test/cat/socket.png")
    os.mkfifo(root / "test/pipe")
    data = load_data(folder_config(root))
    assert class_counts(data.test) == [3, 3]
    for name in ("train/cat/pipe.png", "train/dog/zero.png", "test/cat/socket.png"):
        assert f"skipped 1 files such as '{name}'" in caplog.text
    shutil.rmtree(root / "test")
    os.mkfifo(root / "test")
    assert message_of(root) == f"{root}/test: expected a folder, got something else"


# Names.


@pytest.mark.skipif(os.name != "posix", reason="names are text here")
@pytest.mark.parametrize("loading", ["resident", "streaming"])
def test_names_of_files_are_bytes(
    loading: str, write_folder: WriteFolder, folder_config: Configure
) -> None:
    root = write_folder()
    for folder in (root / "train/cat", root / "test/dog"):
        (folder / "1.png").rename(folder / os.fsdecode(b"\xff\xfe.png"))
        inner = folder / os.fsdecode(b"\xe9t\xe9")
        inner.mkdir()
        (folder / "2.png").rename(inner / "a\nb\t.png")
    config = folder_config(root, loading=loading, image_size=[4, 6])
    data = load_data(config)
    assert class_counts(data.test) == [3, 3]
    data.train.take(data.train.labels.new_tensor(range(len(data.train))))
    assert load_data(config).fingerprint == data.fingerprint


@pytest.mark.skipif(os.name != "posix", reason="names are text here")
def test_names_of_classes_are_text(plain_folder: Path) -> None:
    (plain_folder / "cat").rename(plain_folder / os.fsdecode(b"\xe9t\xe9"))
    assert message_of(plain_folder) == (
        f"{plain_folder}/\\xe9t\\xe9: expected a class name in UTF-8, got other bytes"
    )


@pytest.mark.skipif(os.name != "posix", reason="names are text here")
def test_the_name_of_the_folder_is_text(folder_config: Configure) -> None:
    with pytest.raises(ConfigError, match="expected names in UTF-8, got other bytes"):
        folder_config(Path(os.fsdecode(b"photos\xff")))


# Our own files.


def run_folder(path: Path) -> None:
    path.mkdir(parents=True)
    for name in (CONFIG_NAME, ENVIRONMENT_NAME):
        (path / name).touch()
    write_image(path / "figures/curve.png", seed=0)


@pytest.mark.parametrize("path", ["runs/search", "mine", "runs/2026/search"])
def test_runs_beside_the_classes_are_no_class(
    path: str, plain_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = list_folder(plain_folder)
    run_folder(plain_folder / path)
    assert list_folder(plain_folder) == expected
    assert f"{plain_folder}: skipped folders of runs: {path.partition('/')[0]}" in caplog.text


def test_runs_inside_a_class_are_not_its_images(
    plain_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_folder(plain_folder / "cat/runs/search")
    assert counts(list_folder(plain_folder)) == [10, 10]
    assert f"{plain_folder}/cat: skipped 1 folders of runs" in caplog.text
