"""Tiny folders of generated images."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from automix.configuration.data import DataConfig, DataSource

WriteFolder = Callable[..., Path]
Configure = Callable[..., DataConfig]
CROP = {"resized_crop_scale": [0.3, 1.0], "horizontal_flip": True}
STREAMING = {"loading": "streaming", "image_size": [4, 6], "loader_workers": 0}


def write_image(
    file: Path, *, seed: int, mode: str = "RGB", size: tuple[int, int] = (6, 4)
) -> None:
    """Write a random image of ``size`` (width, height) that differs for every seed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    bands = len(Image.new(mode, (1, 1)).getbands())
    shape = (height, width) if bands == 1 else (height, width, bands)
    pixels = np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)
    if mode == "I;16":
        Image.fromarray(pixels.astype(np.uint16) * 257).save(file)
    else:
        Image.fromarray(pixels, mode=mode if bands > 1 else None).convert(mode).save(file)


@pytest.fixture
def write_folder(tmp_path: Path) -> WriteFolder:
    """Write an ImageFolder layout of 6 x 4 color images and return its root."""

    def write(
        *, train: int = 8, test: int = 3, val: int = 0, mode: str = "RGB", suffix: str = ".png"
    ) -> Path:
        root = tmp_path / "photos"
        seed = 0
        for part, count in (("train", train), ("test", test), ("val", val)):
            for class_name in ("cat", "dog"):
                for number in range(count):
                    seed += 1
                    file = root / part / class_name / f"{number}{suffix}"
                    write_image(file, seed=seed, mode=mode)
        return root

    return write


@pytest.fixture
def plain_folder(write_folder: WriteFolder) -> Path:
    """A folder of two classes, ten images each, without train/ and test/."""
    root = write_folder(train=10)
    shutil.rmtree(root / "test")
    for name in ("cat", "dog"):
        (root / "train" / name).rename(root / name)
    (root / "train").rmdir()
    return root


@pytest.fixture
def folder_config(tmp_path: Path) -> Callable[..., DataConfig]:
    """Return a configuration for a folder, with a cache of its own."""

    def configure(root: Path, **values: object) -> DataConfig:
        mapping = {"source": DataSource.FOLDER, "path": root, "cache": tmp_path / "cache"}
        return DataConfig.from_mapping(mapping | values, source="test")

    return configure


@pytest.fixture(scope="session")
def large_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of many sizes and kinds, larger than what is fed."""
    root = tmp_path_factory.mktemp("large")
    seed = 0
    for part, count in (("train", 9), ("test", 2)):
        for class_name in ("cat", "dog"):
            for number in range(count):
                seed += 1
                suffix, mode = ((".jpg", "RGB"), (".png", "RGBA"), (".jpg", "L"))[number % 3]
                file = root / part / class_name / f"{number}{suffix}"
                write_image(file, seed=seed, mode=mode, size=(20 + seed, 60 - seed))
    return root


@pytest.fixture
def crops(large_images: Path, folder_config: Configure) -> Callable[..., DataConfig]:
    def configure(**values: object) -> DataConfig:
        mapping = STREAMING | {"image_size": [12, 10], "augment": CROP, "reward_size": 1}
        return folder_config(large_images, **(mapping | {"selection_size": 0} | values))

    return configure
