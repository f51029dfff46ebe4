"""A streamed folder has the splits of the decoded one, and decodes held-out images only."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import automix.data.load
import automix.data.sources.folder
import automix.data.splits
from automix.data.load import load_data
from automix.data.sources.decode import ImageFormat, read_image
from automix.data.splits import Dataset, StreamedSplit
from tests.data.conftest import STREAMING, Configure, WriteFolder
from tests.resident import class_counts, resident


def streamed(data: Dataset) -> StreamedSplit:
    assert isinstance(data.train, StreamedSplit)
    return data.train


@pytest.mark.parametrize("val", [0, 6, None])
def test_the_splits_and_their_pixels_are_those_of_the_decoded_folder(
    write_folder: WriteFolder,
    folder_config: Configure,
    request: pytest.FixtureRequest,
    val: int | None,
) -> None:
    if val is None:
        root, labels = request.getfixturevalue("plain_folder"), 3
    else:
        root, labels = write_folder(train=10, val=val), 4
    values = {"reward_size": 2, "selection_size": 3, "labels_per_class": labels}
    decoded = load_data(folder_config(root, **values))
    data = load_data(folder_config(root, **values, **STREAMING))
    train = streamed(data)
    assert data.class_names == decoded.class_names
    assert class_counts(train) == class_counts(decoded.train) == [labels, labels]
    assert train.image_shape == data.seen.image_shape == decoded.seen.image_shape
    assert train.take(torch.arange(2 * labels))[0].equal(resident(decoded.train).images)
    assert train.labels.equal(decoded.train.labels)
    assert train.to("meta") is train
    for name in ("reward", "selection"):
        assert getattr(data.seen, name).images.equal(getattr(decoded.seen, name).images)
        assert getattr(data.seen, name).labels.equal(getattr(decoded.seen, name).labels)
    assert data.test.images.equal(decoded.test.images)
    assert data.statistics.mean == pytest.approx(decoded.statistics.mean)
    assert data.fingerprint != decoded.fingerprint
    assert data.fingerprint == load_data(folder_config(root, **values, **STREAMING)).fingerprint


def test_evaluation_keeps_the_middle_where_it_is_told(
    large_images: Path, folder_config: Configure
) -> None:
    values = STREAMING | {"image_size": 14, "reward_size": 0, "selection_size": 0}
    whole = load_data(folder_config(large_images, **values))
    middle = load_data(folder_config(large_images, **values, evaluation_crop=0.875))
    scaled = load_data(folder_config(large_images, **(values | {"image_size": 16})))
    # 14 of 16 pixels, as resizing to 16 and cutting 14 at the center gives.
    expected = scaled.test.images[:, :, 1:15, 1:15].float()
    distance = (middle.test.images.float() - expected).abs().mean()
    assert distance < 2.5
    assert distance < 0.2 * (whole.test.images.float() - expected).abs().mean()


def test_no_training_image_is_decoded_to_load_a_streamed_folder(
    write_folder: WriteFolder, folder_config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_folder(train=8, val=2)
    read: list[Path] = []

    def recorded(file: Path, image_format: ImageFormat) -> NDArray[np.uint8]:
        read.append(file)
        return read_image(file, image_format)

    for module in (automix.data.sources.folder, automix.data.splits):
        monkeypatch.setattr(module, "read_image", recorded)
    values = {"image_size": [4, 6], "loading": "streaming", "normalization": "imagenet"}
    load_data(folder_config(root, **values))
    assert {file.relative_to(root).parts[0] for file in read} == {"val", "test"}
    assert len(read) == len(set(read)) == 10
    read.clear()
    load_data(folder_config(root, **values))
    assert read == []
