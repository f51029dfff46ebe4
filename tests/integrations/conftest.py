"""Fixtures of the tests of clients."""

from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 12 images of 3 classes, for training and once more for validation."""
    root = tmp_path_factory.mktemp("photographs")
    for split in ("train", "validation"):
        for label in range(3):
            (root / split / str(label)).mkdir(parents=True)
            for number in range(4):
                color = 80 * label, 255 - 10 * number, 128
                Image.new("RGB", (16, 16), color).save(root / split / str(label) / f"{number}.png")
    return root
