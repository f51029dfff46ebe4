"""Splits in memory and in files, statistics of their pixels, and sizes of memory."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import automix.data.load
import automix.data.sources.folder
import automix.data.splits
from automix.configuration.data import (
    DEFAULT_CROP_RATIO,
    AugmentConfig,
    DataConfig,
    Normalization,
)
from automix.data.augment import draw_crop_boxes
from automix.data.load import load_data
from automix.data.splits import (
    ChannelStatistics,
    Dataset,
    ImageFiles,
    SearchData,
    Split,
    StreamedSplit,
    channel_statistics,
    format_bytes,
    main_memory,
)
from automix.errors import DataError
from tests.data.conftest import Configure
from tests.resident import class_counts, resident


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


def test_moving_keeps_everything() -> None:
    data = load_data(DataConfig())
    seen, moved = data.seen, data.seen.to("meta")
    splits = (moved.train, moved.reward, moved.selection)
    assert {split.device.type for split in splits} == {"meta"}
    assert moved.fingerprint == seen.fingerprint
    assert moved.statistics == seen.statistics
    assert moved.num_bytes == seen.num_bytes == (1797 - len(data.test)) * (64 + 8)


@pytest.mark.parametrize("name", ["reward", "selection"])
def test_a_search_needs_images_to_judge_by(name: str) -> None:
    data = load_data(DataConfig.from_mapping({f"{name}_size": 0}, source="here"))
    assert len(data.test) == 355
    with pytest.raises(DataError, match=f"data.{name}_size: expected more than 0 for a search"):
        data.for_search()


def streamed(data: Dataset) -> StreamedSplit:
    assert isinstance(data.train, StreamedSplit)
    return data.train


def test_a_crop_is_the_box_that_was_drawn_scaled_as_pillow_does(crops: Configure) -> None:
    split = streamed(load_data(crops()))
    augment = AugmentConfig(resized_crop_scale=(0.3, 1.0))
    for index in range(len(split)):
        image_read = split.read_training(index, augment, torch.Generator().manual_seed(index))
        with Image.open(split.files[index]) as image:
            color = image.convert("RGB")
        drawn = draw_crop_boxes(
            torch.tensor([color.height]),
            torch.tensor([color.width]),
            scale=(0.3, 1.0),
            ratio=DEFAULT_CROP_RATIO,
            generator=torch.Generator().manual_seed(index),
        )
        top, left, height, width = map(int, (drawn.top, drawn.left, drawn.height, drawn.width))
        box = (left, top, left + width, top + height)
        expected = np.asarray(color.crop(box).resize((10, 12), Image.Resampling.BILINEAR))
        difference = image_read.float() - torch.tensor(expected).permute(2, 0, 1).float()
        assert not difference.any(), split.files[index]


def test_paths_of_files_come_back(tmp_path: Path) -> None:
    names = ["train/a/1.jpg", "train/\udce9/x y.png", "train/\u00e4\u6f22/3.webp", "q"]
    files = ImageFiles(tmp_path, names)
    assert [files[index] for index in range(len(files))] == [tmp_path / name for name in names]
    assert len(ImageFiles(tmp_path, [])) == 0


def random_split(num_images: int, channels: int, *, seed: int = 0) -> Split:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (num_images, channels, 5, 7), generator=generator).byte()
    images[:, -1] //= 3
    return Split(images=images, labels=torch.zeros(num_images, dtype=torch.int64), num_classes=1)


@pytest.mark.parametrize("num_images", [1, 7, 1500])
def test_statistics_equal_the_textbook_formula(num_images: int) -> None:
    train = random_split(num_images, 3)
    statistics = channel_statistics(train, Normalization.TRAIN)
    values = train.images.double() / 255
    assert statistics.mean == pytest.approx(values.mean(dim=(0, 2, 3)).tolist(), rel=1e-12)
    assert statistics.std == pytest.approx(
        values.std(dim=(0, 2, 3), correction=0).tolist(), rel=1e-9
    )


def test_statistics_of_one_color_divide_by_one() -> None:
    gray = Split(
        images=torch.full((4, 1, 2, 2), 51, dtype=torch.uint8),
        labels=torch.zeros(4, dtype=torch.int64),
        num_classes=1,
    )
    statistics = channel_statistics(gray, Normalization.TRAIN)
    assert statistics == ChannelStatistics(mean=(0.2,), std=(1.0,))


def test_other_normalizations() -> None:
    color, gray = random_split(3, 3), random_split(3, 1)
    assert channel_statistics(color, Normalization.IMAGENET).mean == (0.485, 0.456, 0.406)
    assert channel_statistics(gray, Normalization.NONE).std == (1.0,)
    with pytest.raises(DataError, match="expected images of 3 channels for 'imagenet', got 1"):
        channel_statistics(gray, Normalization.IMAGENET)


def test_a_container_has_what_its_limit_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    physical = main_memory()
    assert physical is None or physical > 2**20
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(automix.data.splits, "_MEMORY_LIMITS", (limit, tmp_path / "missing"))
    for text, expected in (("max\n", None), ("4096\n", 4096)):
        limit.write_text(text)
        memory = main_memory()
        assert memory is not None
        assert memory == expected if expected else memory > 2**20


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (60_000 * 3 * 16 * 16, "43.9 MiB"),
        (2**30 - 1, "1024.0 MiB"),
        (2**30, "1.0 GiB"),
        (3 * 2**50, "3072.0 TiB"),
    ],
)
def test_sizes_are_told_in_a_unit_that_fits(count: int, text: str) -> None:
    assert format_bytes(count) == text
