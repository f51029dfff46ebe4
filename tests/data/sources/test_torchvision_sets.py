"""Torchvision's datasets, from tiny files in their layouts; nothing is downloaded."""

import inspect
import struct
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision import datasets

from automix.configuration.data import DataConfig, DataSource
from automix.data.load import load_data
from automix.data.sources.torchvision_sets import TORCHVISION_SETS
from automix.errors import DataError
from tests.resident import class_counts, resident

Configure = Callable[..., DataConfig]


def config_of(source: str, tmp_path: Path, **values: object) -> DataConfig:
    mapping = {"source": source, "path": tmp_path / "files", "cache": tmp_path / "cache"}
    return DataConfig.from_mapping(mapping | values, source="test")


def write_idx(file: Path, array: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    file.write_bytes(header + array.astype(np.uint8).tobytes())


def write_mnist(root: Path, *, per_class: int = 6) -> np.ndarray:
    """Write files of 10 classes in the layout of MNIST and return the training images."""
    generator = np.random.default_rng(0)
    images: dict[str, np.ndarray] = {}
    for part in ("train", "t10k"):
        labels = np.repeat(np.arange(10), per_class)
        images[part] = generator.integers(256, size=(len(labels), 28, 28), dtype=np.uint8)
        write_idx(root / f"{part}-images-idx3-ubyte", images[part])
        write_idx(root / f"{part}-labels-idx1-ubyte", labels)
    return images["train"]


@pytest.mark.parametrize(
    ("source", "folder"),
    [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST"), ("kmnist", "KMNIST")],
)
def test_mnist_and_its_relatives(source: str, folder: str, tmp_path: Path) -> None:
    images = write_mnist(tmp_path / "files" / folder / "raw")
    data = load_data(config_of(source, tmp_path, reward_size=1, selection_size=1))
    assert data.seen.image_shape == (1, 28, 28)
    assert class_counts(data.train) == [4] * 10
    assert class_counts(data.test) == [6] * 10
    assert list(data.class_names) == getattr(datasets, folder).classes
    seen = {image.numpy().tobytes() for image in resident(data.train).images}
    assert seen < {image.tobytes() for image in images}
    resized = load_data(config_of(source, tmp_path, image_size=[14, 20]))
    assert resized.seen.image_shape == (1, 14, 20)


def test_svhn(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(1, 11), 6)[:, None]
    for part in ("train", "test"):
        images = generator.integers(256, size=(32, 32, 3, 60), dtype=np.uint8)
        scipy.io.savemat(tmp_path / "files" / f"{part}_32x32.mat", {"X": images, "y": labels})
    with pytest.raises(DataError, match="expected intact files of svhn, got: "):
        load_data(config_of("svhn", tmp_path))
    with pytest.MonkeyPatch.context() as context:
        context.setattr(datasets.SVHN, "_check_integrity", lambda _: True)
        data = load_data(config_of("svhn", tmp_path))
    assert data.class_names == tuple("0123456789")
    assert data.seen.image_shape == (3, 32, 32)
    first_zero = int((data.test.labels == 0).nonzero()[0])
    assert data.test.images[first_zero].equal(data.test.images[54])


class Photographs:
    """Stands for any dataset of torchvision: images of two classes, two sizes."""

    classes: ClassVar[list[str]] = ["cat", "dog"]

    def __init__(self, root: Path, *, train: bool, download: bool) -> None:
        if download:
            (root / "photos").mkdir(exist_ok=True)
            (root / "photos" / "all").touch()
        self.seed = 0 if train else 100
        self.odd = train

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        generator = np.random.default_rng(self.seed + index)
        height = 9 if self.odd and index == 7 else 8
        pixels = generator.integers(256, size=(height, 10, 3), dtype=np.uint8)
        return Image.fromarray(pixels), index % 2


@pytest.fixture
def photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = TORCHVISION_SETS[DataSource.CIFAR10]
    monkeypatch.setattr(
        "automix.data.sources.torchvision_sets.TORCHVISION_SETS",
        {DataSource.CIFAR10: type(facts)(build=Photographs, files=("photos/*",))},
    )


@pytest.mark.usefixtures("photographs")
def test_downloads_only_where_it_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_data(config_of("cifar10", tmp_path, image_size=8))
    assert str(caught.value) == (
        f"{tmp_path / 'files'}: expected the files of cifar10 (photos/*), got none; "
        "--data.download fetches them"
    )
    assert not (tmp_path / "files").exists()
    data = load_data(config_of("cifar10", tmp_path, image_size=8, download=True))
    assert data.class_names == ("cat", "dog")
    again = load_data(config_of("cifar10", tmp_path, image_size=8))
    assert again.fingerprint == data.fingerprint


@pytest.mark.usefixtures("photographs")
def test_mixed_sizes_need_a_size(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_data(config_of("cifar10", tmp_path, download=True))
    assert str(caught.value) == (
        f"{tmp_path / 'files'} (cifar10), image 7: expected 8 x 10 pixels, got 9 x 10; "
        "data.image_size brings all to one size"
    )


def test_a_failed_download_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(_: datasets.CIFAR10) -> None:
        raise OSError("<urlopen error\nno route>")

    monkeypatch.setattr(datasets.CIFAR10, "download", unreachable)
    with pytest.raises(DataError) as caught:
        load_data(config_of("cifar10", tmp_path, download=True))
    assert str(caught.value) == (
        f"{tmp_path / 'files'}: expected to download cifar10, got: <urlopen error no route>"
    )


def test_damaged_files_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "files" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    (folder / "data_batch_1").write_bytes(b"not a batch")
    with pytest.raises(DataError, match="expected intact files of cifar10, got: Dataset not found"):
        load_data(config_of("cifar10", tmp_path))


def test_files_live_in_the_cache_by_default(tmp_path: Path) -> None:
    config = DataConfig(source=DataSource.MNIST, cache=tmp_path)
    with pytest.raises(DataError, match=f"^{tmp_path}/torchvision: expected the files of mnist"):
        load_data(config)


def test_every_named_set_is_one_that_torchvision_can_build() -> None:
    named = set(DataSource) - {DataSource.DIGITS, DataSource.FOLDER}
    assert set(TORCHVISION_SETS) == named
    for facts in TORCHVISION_SETS.values():
        parameters = inspect.signature(facts.build).parameters
        assert {"root", "download", *facts.arguments("test")} <= set(parameters)
