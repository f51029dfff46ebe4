"""Copies of one file in training and held-out images are counted and said once."""

import shutil
from pathlib import Path

import pytest

from automix.data import copies
from automix.data.copies import copies_in_words
from automix.data.folder import list_folder
from automix.data.load import load_data
from tests.data.conftest import Configure, WriteFolder


def test_nothing_is_said_where_all_images_differ(write_folder: WriteFolder) -> None:
    assert copies_in_words(list_folder(write_folder(val=2))) == []
    # Also where all have one length, as files without compression.
    assert copies_in_words(list_folder(write_folder(val=2, suffix=".bmp"))) == []


def test_copies_between_parts_are_counted(write_folder: WriteFolder) -> None:
    root = write_folder(val=2, suffix=".bmp")
    shutil.copy(root / "train/cat/3.bmp", root / "test/dog/other.bmp")
    shutil.copy(root / "train/dog/1.bmp", root / "val/dog/a.bmp")
    shutil.copy(root / "train/dog/1.bmp", root / "val/dog/b.bmp")
    # Copies within a part are nobody's business.
    shutil.copy(root / "train/dog/2.bmp", root / "train/dog/again.bmp")
    assert copies_in_words(list_folder(root)) == [
        "1 test image is a copy of training images, such as 'test/dog/other.bmp' of "
        "'train/cat/3.bmp': results on them are too good",
        "2 validation images are copies of training images, such as 'val/dog/a.bmp' of "
        "'train/dog/1.bmp': results on them are too good",
    ]


def test_copies_in_a_plain_folder_are_counted(plain_folder: Path) -> None:
    for name in ("a", "b"):
        shutil.copy(plain_folder / "cat/3.png", plain_folder / f"dog/{name}.png")
    (sentence,) = copies_in_words(list_folder(plain_folder))
    assert sentence.startswith("2 images are copies of others, such as 'dog/a.png' of 'cat/3.png'")


def test_files_that_differ_in_one_byte_are_no_copies(write_folder: WriteFolder) -> None:
    root = write_folder()
    content = bytearray(30_000)
    (root / "train/cat/a.png").write_bytes(content)
    content[3] = 1
    (root / "test/cat/a.png").write_bytes(content)
    assert copies_in_words(list_folder(root)) == []


@pytest.mark.parametrize("suffix", [".bmp", ".png"])
def test_of_many_files_a_sample_is_compared(
    suffix: str, write_folder: WriteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_folder(train=6, suffix=suffix)
    shutil.rmtree(root / "test")
    shutil.copytree(root / "train", root / "test")
    monkeypatch.setattr(copies, "_MOST_OPENED", 12)
    (sentence,) = copies_in_words(list_folder(root))
    assert sentence.startswith("at least 6 test images are copies of training images")


def test_copies_are_said_once_and_remembered(
    write_folder: WriteFolder,
    folder_config: Configure,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = write_folder()
    shutil.copy(root / "train/cat/3.png", root / "test/dog/1.png")
    config = folder_config(root)
    for _ in range(2):
        load_data(config)
        monkeypatch.setattr(copies, "copies_in_words", None)  # not called again
    assert caplog.text.count("1 test image is a copy of training images") == 1
    assert f"{root}: 1 test image" in caplog.text
