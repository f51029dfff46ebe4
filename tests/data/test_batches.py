"""Epoch order, normalization and batch preparation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from automix.configuration.data import AugmentConfig, Normalization, PaddingMode
from automix.data.augment import apply_augmentation, draw_augmentation
from automix.data.batches import BatchPreparer, epoch_order
from automix.data.splits import ChannelStatistics, Split, channel_statistics
from automix.errors import DataError


def random_split(num_images: int, channels: int, *, seed: int = 0) -> Split:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (num_images, channels, 5, 7), generator=generator).byte()
    images[:, -1] //= 3
    return Split(images=images, labels=torch.zeros(num_images, dtype=torch.int64), num_classes=1)


@settings(deadline=None)
@given(num_images=st.integers(0, 50), seed=st.integers(0, 2**62), epoch=st.integers(0, 1000))
def test_epoch_order_is_a_permutation_fixed_by_seed_and_epoch(
    num_images: int, seed: int, epoch: int
) -> None:
    order = epoch_order(num_images, seed=seed, epoch=epoch)
    assert sorted(order.tolist()) == list(range(num_images))
    assert order.equal(epoch_order(num_images, seed=seed, epoch=epoch))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {
        tuple(epoch_order(100, seed=seed, epoch=epoch).tolist())
        for seed in range(5)
        for epoch in range(5)
    }
    assert len(orders) == 25


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


def test_evaluation_normalizes_and_nothing_else() -> None:
    train = random_split(20, 3)
    statistics = channel_statistics(train, Normalization.TRAIN)
    preparer = BatchPreparer(statistics, AugmentConfig(crop_padding=2, horizontal_flip=True))
    images = preparer.evaluation(train.images)
    assert images.dtype == torch.float32
    mean = torch.tensor(statistics.mean).view(1, 3, 1, 1)
    std = torch.tensor(statistics.std).view(1, 3, 1, 1)
    torch.testing.assert_close(images, (train.images / 255 - mean) / std)
    torch.testing.assert_close(images.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    assert preparer.to_bytes(images).equal(train.images)


@pytest.mark.parametrize("mode", PaddingMode)
def test_training_crops_before_it_normalizes(mode: PaddingMode) -> None:
    train = random_split(20, 3)
    config = AugmentConfig(crop_padding=2, padding_mode=mode, horizontal_flip=True)
    preparer = BatchPreparer(channel_statistics(train, Normalization.TRAIN), config)
    images = preparer.training(train.images, generator=torch.Generator().manual_seed(3))
    draws = draw_augmentation(20, config, generator=torch.Generator().manual_seed(3))
    cut = apply_augmentation(train.images, draws, padding=2, mode=mode)
    assert images.equal(preparer.evaluation(cut))
    assert not cut.equal(train.images)


def test_training_without_augmentation_draws_nothing() -> None:
    train = random_split(4, 1)
    preparer = BatchPreparer(channel_statistics(train, Normalization.TRAIN), AugmentConfig())
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    images = preparer.training(train.images, generator=generator)
    assert images.equal(preparer.evaluation(train.images))
    assert generator.get_state().equal(before)
