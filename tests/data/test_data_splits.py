"""Values that hold images, and the embedded digits from end to end."""

import dataclasses

import pytest
import torch
from sklearn.datasets import load_digits

from automix.configuration.data import AugmentConfig, DataConfig
from automix.data.load import load_data
from automix.data.splits import Dataset, SearchData, Split
from automix.errors import DataError
from tests.resident import class_counts, resident


def flat(split: Split) -> set[bytes]:
    return {image.numpy().tobytes() for image in split.images}


def digits_splits(data: Dataset) -> list[Split]:
    return [resident(data.train), data.seen.reward, data.seen.selection, data.test]


def test_a_split_refuses_other_shapes_and_types() -> None:
    images = torch.zeros(2, 1, 3, 3, dtype=torch.uint8)
    labels = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"expected images of shape \(N, C, H, W\)"):
        Split(images=images.float(), labels=labels, num_classes=1)
    with pytest.raises(ValueError, match=r"expected labels of shape \(2,\) and dtype int64"):
        Split(images=images, labels=labels[:1], num_classes=1)


def test_subset_and_take_agree() -> None:
    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1)
    split = Split(images=images, labels=torch.tensor([0, 1, 0, 1, 1]), num_classes=3)
    indices = torch.tensor([4, 0])
    part = split.subset(indices)
    assert part.images.flatten().tolist() == [4, 0]
    assert part.labels.tolist() == [1, 0]
    assert class_counts(part) == [1, 1, 0]
    assert split.take(indices)[0].equal(part.images)
    assert split.take(indices)[1].equal(part.labels)
    assert len(part) == 2
    assert part.num_bytes == 2 + 16


def test_what_a_search_sees_has_no_test_images() -> None:
    assert "test" not in {field.name for field in dataclasses.fields(SearchData)}
    data = load_data(DataConfig())
    seen = data.for_search()
    assert not hasattr(seen, "test")
    visible = torch.cat([resident(seen.train).images, seen.reward.images, seen.selection.images])
    assert len(visible) == 1797 - len(data.test)


def test_digits_are_the_scans_scaled_to_bytes() -> None:
    data = load_data(DataConfig())
    assert sum(len(split) for split in digits_splits(data)) == 1797
    original = {image.tobytes() for image in (load_digits().images * 255 / 16).round().astype("u1")}
    assert set().union(*map(flat, digits_splits(data))) == original
    assert data.seen.image_shape == (1, 8, 8)
    assert data.class_names == tuple("0123456789")
    for split in digits_splits(data):
        counts = class_counts(split)
        assert max(counts) - min(counts) <= 5


def test_scarce_labels_change_the_training_split_only() -> None:
    full, scarce = load_data(DataConfig()), load_data(DataConfig(labels_per_class=20))
    assert class_counts(scarce.train) == [20] * 10
    for one, other in zip(digits_splits(full)[1:], digits_splits(scarce)[1:], strict=True):
        assert one.images.equal(other.images)
    assert full.fingerprint != scarce.fingerprint


def test_the_fingerprint_follows_data_and_splits() -> None:
    config = DataConfig()
    assert load_data(config).fingerprint == load_data(config).fingerprint
    others = [DataConfig(split_seed=1), DataConfig(reward_size=30), DataConfig(test_size=0.1)]
    prints = {load_data(other).fingerprint for other in [config, *others]}
    assert len(prints) == 4


def test_moving_keeps_everything() -> None:
    data = load_data(DataConfig())
    moved = data.to("meta")
    assert {split.device.type for split in digits_splits(moved)} == {"meta"}
    assert moved.fingerprint == data.fingerprint
    assert moved.statistics == data.statistics
    assert moved.num_bytes == data.num_bytes == 1797 * (64 + 8)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            DataConfig(labels_per_class=500),
            "digits: expected at least 605 images of class '0' "
            "(test 35, reward 35, selection 35, train 500), got 178",
        ),
        (
            DataConfig(augment=AugmentConfig(crop_padding=8)),
            "data.augment.crop_padding: expected less than the image side of 8 pixels, got 8",
        ),
    ],
)
def test_impossible_wishes_are_one_line(config: DataConfig, message: str) -> None:
    with pytest.raises(DataError) as caught:
        load_data(config)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["reward", "selection"])
def test_a_search_needs_images_to_judge_by(name: str) -> None:
    data = load_data(DataConfig.from_mapping({f"{name}_size": 0}, source="here"))
    assert len(data.test) == 355
    with pytest.raises(DataError, match=f"data.{name}_size: expected more than 0 for a search"):
        data.for_search()
