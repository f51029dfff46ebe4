"""Real photographs, a few hundred of them, as a folder."""

import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from automix.configuration.data import DataConfig
from automix.data.batches import BatchPreparer
from automix.data.load import load_data
from tests.resident import class_counts, resident


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
