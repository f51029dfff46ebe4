"""Layouts of image folders, one line for each that is wrong, and real photographs."""

import os
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from automix.configuration.data import DataConfig
from automix.data.batches import BatchPreparer
from automix.data.folder import list_folder
from automix.data.load import load_data
from automix.data.sources.folder import files_of_test_split
from automix.data.splits import Split
from automix.errors import DataError
from tests.data.conftest import Configure, WriteFolder
from tests.resident import class_counts, resident

_BOTH = "{root}: expected both train/ and test/, or one folder per class under other names"


def pixels_of(folder: Path) -> set[bytes]:
    return {np.asarray(Image.open(file)).tobytes() for file in folder.rglob("*.png")}


def pixels_in(*splits: Split) -> set[bytes]:
    images = torch.cat([split.images for split in splits])
    return {image.permute(1, 2, 0).contiguous().numpy().tobytes() for image in images}


def message_of(config: DataConfig) -> str:
    with pytest.raises(DataError) as caught:
        load_data(config)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_without_val_reward_and_selection_come_from_train(
    write_folder: WriteFolder, folder_config: Configure
) -> None:
    root = write_folder(train=10)
    data = load_data(folder_config(root, reward_size=0.2, selection_size=3))
    assert data.class_names == ("cat", "dog")
    assert data.seen.image_shape == (3, 4, 6)
    assert class_counts(data.seen.reward) == [2, 2]
    assert class_counts(data.seen.selection) == [3, 3]
    assert class_counts(data.train) == [5, 5]
    seen = (resident(data.train), data.seen.reward, data.seen.selection)
    assert pixels_in(*seen) == pixels_of(root / "train")
    assert pixels_in(data.test) == pixels_of(root / "test")


def test_with_val_reward_and_selection_are_its_halves(
    write_folder: WriteFolder, folder_config: Configure
) -> None:
    root = write_folder(train=5, val=6)
    data = load_data(folder_config(root))
    assert pixels_in(resident(data.train)) == pixels_of(root / "train")
    assert pixels_in(data.seen.reward, data.seen.selection) == pixels_of(root / "val")
    assert class_counts(data.seen.reward) == class_counts(data.seen.selection) == [3, 3]


def test_all_splits_are_cut_from_a_plain_folder(
    plain_folder: Path, folder_config: Configure
) -> None:
    data = load_data(folder_config(plain_folder, test_size=3))
    assert data.class_names == ("cat", "dog")
    splits = (resident(data.train), data.seen.reward, data.seen.selection, data.test)
    assert list(map(class_counts, splits)) == [[3, 3], [2, 2], [2, 2], [3, 3]]
    # No image is in two of them.
    assert pixels_in(*splits) == pixels_of(plain_folder)
    again = load_data(folder_config(plain_folder, test_size=3))
    assert torch.equal(again.test.images, data.test.images)
    other = load_data(folder_config(plain_folder, test_size=3, split_seed=1))
    assert not torch.equal(other.test.images, data.test.images)
    for label, class_name in enumerate(data.class_names):
        part = data.test.subset((data.test.labels == label).nonzero().squeeze(1))
        assert pixels_in(part) < pixels_of(plain_folder / class_name)


def test_the_files_of_the_test_split_are_its_images(
    plain_folder: Path, folder_config: Configure
) -> None:
    config = folder_config(plain_folder)
    files = files_of_test_split(config, list_folder(plain_folder))
    decoded = [np.asarray(Image.open(plain_folder / file.name)).tobytes() for file in files]
    test = load_data(config).test
    assert decoded == [image.permute(1, 2, 0).numpy().tobytes() for image in test.images]


def test_other_folders_beside_train_and_test_are_said(
    write_folder: WriteFolder, folder_config: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_folder()
    expected = load_data(folder_config(root)).fingerprint
    shutil.copytree(root / "test", root / "unlabeled")
    assert load_data(folder_config(root)).fingerprint == expected
    assert f"{root}: skipped folders beside train/ and test/: unlabeled" in caplog.text


def test_a_test_size_has_no_effect_with_test_images(
    write_folder: WriteFolder, folder_config: Configure
) -> None:
    root = write_folder()
    assert message_of(folder_config(root, test_size=0.1)) == (
        f"data.test_size: expected nothing for {root}, which has test images, got 0.1"
    )


def test_too_few_images_for_all_splits(plain_folder: Path, folder_config: Configure) -> None:
    for number in range(3, 10):
        (plain_folder / f"dog/{number}.png").unlink()
    assert message_of(folder_config(plain_folder)) == (
        f"{plain_folder}: expected at least 4 images of class 'dog' "
        "(test 1, reward 1, selection 1, train 1), got 3"
    )


def test_labels_follow_their_files(write_folder: WriteFolder, folder_config: Configure) -> None:
    root = write_folder()
    data = load_data(folder_config(root))
    for label, class_name in enumerate(data.class_names):
        part = data.test.subset((data.test.labels == label).nonzero().squeeze(1))
        assert pixels_in(part) == pixels_of(root / "test" / class_name)


def test_hidden_files_nested_folders_and_other_files(
    write_folder: WriteFolder, folder_config: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_folder()
    expected = load_data(folder_config(root)).fingerprint
    (root / "train" / ".checkpoints").mkdir()
    (root / "train" / "cat" / ".DS_Store").touch()
    (root / "train" / "cat" / "notes.txt").touch()
    (root / "train" / "README").touch()
    nested = root / "train" / "cat" / "2024" / "may"
    nested.mkdir(parents=True)
    assert load_data(folder_config(root)).fingerprint == expected
    assert "skipped 1 files such as 'train/cat/notes.txt'" in caplog.text
    shutil.move(root / "train" / "cat" / "7.png", nested / "7.png")
    moved = load_data(folder_config(root))
    assert sum(class_counts(moved.seen.reward)) == 2
    seen = (resident(moved.train), moved.seen.reward, moved.seen.selection)
    assert pixels_in(*seen) == pixels_of(root / "train")


def test_the_same_images_elsewhere_have_the_same_fingerprint(
    write_folder: WriteFolder, folder_config: Configure, tmp_path: Path
) -> None:
    root = write_folder()
    first = load_data(folder_config(root)).fingerprint
    copied = tmp_path / "elsewhere"
    shutil.copytree(root, copied, copy_function=shutil.copyfile)
    assert load_data(folder_config(copied)).fingerprint == first
    Image.fromarray(255 - np.asarray(Image.open(copied / "test/cat/0.png"))).save(
        copied / "test/cat/0.png"
    )
    assert load_data(folder_config(copied)).fingerprint != first


def missing(root: Path) -> None:
    shutil.rmtree(root)


def a_file(root: Path) -> None:
    shutil.rmtree(root)
    root.touch()


def no_train(root: Path) -> None:
    shutil.rmtree(root / "train")


def no_test(root: Path) -> None:
    shutil.rmtree(root / "test")


def empty(root: Path) -> None:
    for part in ("train", "test"):
        shutil.rmtree(root / part)


def plain(root: Path, *names: str) -> None:
    for name in names:
        shutil.copytree(root / "train/cat", root / name)
    shutil.rmtree(root / "train")
    shutil.rmtree(root / "test")


def only_val(root: Path) -> None:
    (root / "train").rename(root / "val")
    shutil.rmtree(root / "test")


def a_class_named_test(root: Path) -> None:
    plain(root, "car", "bus")
    (root / "car" / "0.png").rename(root / "0.png")
    shutil.copytree(root / "car", root / "test")


def capitals(root: Path) -> None:
    (root / "train").rename(root / "Train")
    (root / "test").rename(root / "Test")


def validation_beside_classes(root: Path) -> None:
    plain(root, "car", "bus", "validation")


def only_images(root: Path) -> None:
    shutil.copy(root / "train/cat/0.png", root / "0.png")
    plain(root)


def one_folder(root: Path) -> None:
    plain(root, "bus")


def train_is_a_file(root: Path) -> None:
    shutil.rmtree(root / "train")
    (root / "train").touch()


def empty_train(root: Path) -> None:
    shutil.rmtree(root / "train")
    (root / "train").mkdir()


def no_class_folders(root: Path) -> None:
    shutil.copy(root / "train/cat/0.png", root / "kept.png")
    empty_train(root)
    shutil.move(root / "kept.png", root / "train/0.png")


def one_class(root: Path) -> None:
    shutil.rmtree(root / "train/dog")


def empty_class(root: Path) -> None:
    shutil.rmtree(root / "train/dog")
    (root / "train/dog").mkdir()


def other_suffixes(root: Path) -> None:
    for file in (root / "train/dog").iterdir():
        file.rename(file.with_suffix(".heic"))


def class_missing_in_test(root: Path) -> None:
    shutil.rmtree(root / "test/dog")
    shutil.copytree(root / "test/cat", root / "test/cow")


def class_missing_in_val(root: Path) -> None:
    for name in ("cat", "emu", "dog"):
        shutil.copytree(root / "test/cat", root / "val" / name)
    shutil.rmtree(root / "val/emu")
    (root / "train/emu").mkdir()
    shutil.copytree(root / "test/cat", root / "test/emu")


def broken_link(root: Path) -> None:
    (root / "train/cat/99.png").symlink_to(root / "nowhere.png")


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (missing, "{root}: expected a folder, got nothing there"),
        (a_file, "{root}: expected a folder, got a file"),
        (no_train, f"{_BOTH}, got test"),
        (no_test, f"{_BOTH}, got train"),
        (only_val, f"{_BOTH}, got val"),
        (a_class_named_test, f"{_BOTH}, got test beside 3 others"),
        (capitals, f"{_BOTH}, got Test, Train"),
        (validation_beside_classes, f"{_BOTH}, got validation beside 2 others"),
        (empty, "{root}: expected one folder of images per class, got an empty folder"),
        (only_images, "{root}: expected one folder of images per class, got only files"),
        (one_folder, "{root}: expected at least 2 classes, got only 'bus'"),
        (train_is_a_file, "{root}/train: expected a folder, got a file"),
        (
            empty_train,
            "{root}/train: expected one folder of images per class, got an empty folder",
        ),
        (
            no_class_folders,
            "{root}/train: expected one folder of images per class, got only files",
        ),
        (one_class, "{root}/train: expected at least 2 classes, got only 'cat'"),
        (
            empty_class,
            "{root}/train/dog: expected at least one image (.bmp, .jpeg, .jpg, .pgm, .png, .ppm, "
            ".tif, .tiff, .webp), got none",
        ),
        (
            other_suffixes,
            "{root}/train/dog: expected at least one image (.bmp, .jpeg, .jpg, .pgm, .png, .ppm, "
            ".tif, .tiff, .webp), got only other files such as 'train/dog/0.heic'",
        ),
        (
            class_missing_in_test,
            "{root}/test: expected the classes of {root}/train, got the unknown class 'cow'",
        ),
        (
            class_missing_in_val,
            "{root}/val: expected the classes of {root}/train, got no class 'emu'",
        ),
        (
            broken_link,
            "{root}/train/cat/99.png: expected a readable file, got: no such file or directory",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_layout_is_one_line_and_nothing_is_written(
    damage: Callable[[Path], None],
    expected: str,
    write_folder: WriteFolder,
    folder_config: Configure,
) -> None:
    root = write_folder()
    damage(root)
    config = folder_config(root)
    assert message_of(config) == expected.format(root=root)
    assert not config.cache_folder.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission(write_folder: WriteFolder, folder_config: Configure) -> None:
    root = write_folder()
    (root / "train" / "cat").chmod(0)
    assert message_of(folder_config(root)).endswith("got: permission denied")


def test_too_few_images_for_the_splits(write_folder: WriteFolder, folder_config: Configure) -> None:
    root = write_folder(train=8)
    (root / "train/dog/7.png").unlink()
    sizes = {"reward_size": 3, "selection_size": 3, "labels_per_class": 2}
    assert message_of(folder_config(root, **sizes)) == (
        f"{root}/train: expected at least 8 images of class 'dog' "
        "(reward 3, selection 3, train 2), got 7"
    )
    (root / "train/dog/6.png").unlink()
    assert message_of(folder_config(root, reward_size=3, selection_size=3)) == (
        f"{root}/train: expected at least 7 images of class 'dog' "
        "(reward 3, selection 3, train 1), got 6"
    )


def test_too_few_images_in_val(write_folder: WriteFolder, folder_config: Configure) -> None:
    root = write_folder(val=1)
    assert message_of(folder_config(root)) == (
        f"{root}/val: expected at least 2 images of class 'cat' (reward 1, selection 1), got 1"
    )


@pytest.fixture(scope="module")
def photographs(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the first 30 training and 5 test images of each class."""
    archive = shared_folder / "data" / "cifar10-jpeg.zip"
    if not archive.is_file():
        pytest.skip("the photographs are not on this machine")
    root = tmp_path_factory.mktemp("cifar10")
    taken: Counter[str] = Counter()
    with zipfile.ZipFile(archive) as content:
        for name in content.namelist():
            folder = name.rpartition("/")[0]
            limit = 30 if name.startswith("train/") else 5
            if name.endswith(".jpg") and taken[folder] < limit:
                taken[folder] += 1
                content.extract(name, root)
    assert sum(taken.values()) == 350
    return root


def test_photographs_as_a_folder(
    photographs: Path, folder_config: Callable[..., DataConfig]
) -> None:
    config = folder_config(
        photographs,
        labels_per_class=20,
        reward_size=4,
        selection_size=0.2,
        augment={"crop_padding": 4, "padding_mode": "reflect", "horizontal_flip": True},
    )
    data = load_data(config)
    assert data.seen.image_shape == (3, 32, 32)
    assert data.class_names == (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"
    )  # fmt: skip
    assert class_counts(data.train) == [20] * 10
    assert class_counts(data.seen.reward) == [4] * 10
    assert class_counts(data.seen.selection) == [6] * 10
    assert class_counts(data.test) == [5] * 10
    # The published mean and deviation of CIFAR-10, within what 200 images can tell.
    assert data.statistics.mean == pytest.approx((0.491, 0.482, 0.447), abs=0.05)
    assert data.statistics.std == pytest.approx((0.247, 0.243, 0.262), abs=0.05)
    normalized = BatchPreparer(data.statistics, config.augment).evaluation(
        resident(data.train).images
    )
    assert normalized.mean().abs() < 1e-4
