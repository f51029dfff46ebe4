"""Batches are functions of their keys; micro-batches of all processes cover an epoch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from automix.configuration.data import AugmentConfig, Normalization, PaddingMode, Sampling
from automix.data.augment import apply_augmentation, draw_augmentation
from automix.data.batches import (
    BatchKey,
    BatchLayout,
    BatchPreparer,
    ResidentBatches,
    augmentation_generator,
    balanced_order,
    epoch_order,
)
from automix.data.splits import ChannelStatistics, Split, channel_statistics
from automix.errors import ConfigError

AUGMENT = AugmentConfig(crop_padding=2, horizontal_flip=True)


def split_of(num_images: int) -> Split:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (num_images, 1, 6, 6), generator=generator, dtype=torch.uint8)
    return Split(images=images, labels=torch.arange(num_images) % 3, num_classes=3)


def batches(layout: BatchLayout, augment: AugmentConfig = AUGMENT) -> ResidentBatches:
    preparer = BatchPreparer(ChannelStatistics(mean=(0.5,), std=(0.25,)), augment)
    return ResidentBatches(split_of(layout.num_images), preparer, layout)


def layout_of(
    num_images: int, batch_size: int, accumulation: int, world_size: int, rank: int = 0
) -> BatchLayout:
    return BatchLayout.fitting(
        num_images, batch_size, accumulation=accumulation, rank=rank, world_size=world_size
    )


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 30))
def test_micro_batches_cover_each_step_exactly_once(
    accumulation: int, world_size: int, micro_batch_size: int, extra: int
) -> None:
    batch_size = accumulation * world_size * micro_batch_size
    num_images = batch_size + extra
    seen: list[int] = []
    for rank in range(world_size):
        layout = layout_of(num_images, batch_size, accumulation, world_size, rank)
        key = layout.key(7, 0)
        while layout.epoch(key) == 0:
            places = layout.places(key)
            assert places.stop - places.start == layout.micro_batch_size == micro_batch_size
            seen += range(num_images)[places]
            key = layout.following(key)
        assert key == layout.key(7, layout.steps_per_epoch)
    assert sorted(seen) == list(range(num_images // batch_size * batch_size))


def test_following_goes_through_micro_batches_then_steps() -> None:
    layout = layout_of(40, 12, accumulation=3, world_size=2, rank=1)
    keys = [layout.key(5, 0)]
    for _ in range(4):
        keys.append(layout.following(keys[-1]))
    assert [(key.step, key.micro_batch) for key in keys] == [(0, 1), (0, 3), (0, 5), (1, 1), (1, 3)]
    assert keys[4] == layout.key(5, 1, 1)


def test_an_epoch_feeds_images_in_its_order() -> None:
    layout = layout_of(30, 8, accumulation=1, world_size=1)
    source = batches(layout)
    for epoch in range(2):
        steps = range(3 * epoch, 3 * epoch + 3)
        fed = [source.batch(BatchKey(seed=3, step=step)) for step in steps]
        order = epoch_order(30, seed=3, epoch=epoch)[:24]
        assert torch.cat([batch.indices for batch in fed]).equal(order)
        assert torch.cat([batch.labels for batch in fed]).equal(order % 3)


def test_any_order_of_keys_gives_the_same_bits() -> None:
    layout = layout_of(20, 4, accumulation=2, world_size=1)
    keys = [
        layout.key(seed, step, micro) for seed in (0, 1) for step in (6, 0, 9) for micro in (1, 0)
    ]
    first, second = batches(layout), batches(layout)
    forward = [first.batch(key) for key in keys]
    backward = [second.batch(key) for key in reversed(keys)][::-1]
    for one, other in zip(forward, backward, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_processes_see_together_what_accumulation_sees() -> None:
    alone = batches(layout_of(24, 8, accumulation=4, world_size=1))
    ranks = [batches(layout_of(24, 8, accumulation=2, world_size=2, rank=r)) for r in range(2)]
    for step in range(6):
        for micro in range(4):
            part = ranks[micro % 2]
            one = alone.batch(alone.layout.key(0, step, micro))
            other = part.batch(part.layout.key(0, step, micro // 2))
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_every_micro_batch_of_every_step_draws_independently() -> None:
    keys = [
        BatchKey(seed=a, step=b, micro_batch=c)
        for a in range(3)
        for b in range(3)
        for c in range(3)
    ]
    draws = {torch.rand(1, generator=augmentation_generator(key)).item() for key in keys}
    assert len(draws) == 27


def test_a_split_smaller_than_a_batch_is_one_step_of_equal_micro_batches() -> None:
    layout = layout_of(11, 64, accumulation=2, world_size=2)
    assert (layout.batch_size, layout.micro_batch_size, layout.steps_per_epoch) == (8, 2, 1)


def test_what_cannot_be_divided_evenly_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"batch_size: expected a multiple of 6 \(3 processes x"):
        layout_of(100, 50, accumulation=2, world_size=3)
    with pytest.raises(
        ConfigError, match=r"task\.data: expected at least 6 training images.*got 5"
    ):
        layout_of(5, 60, accumulation=2, world_size=3)


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


def test_the_preparer_cuts_resizes_and_normalizes() -> None:
    images = torch.randint(256, (5, 3, 9, 7), generator=torch.Generator().manual_seed(1)).byte()
    config = AugmentConfig(resized_crop_scale=(0.3, 0.8), horizontal_flip=True)
    statistics = ChannelStatistics(mean=(0.5,) * 3, std=(0.25,) * 3)
    preparer = BatchPreparer(statistics, config)
    first, again, other = (
        preparer.training(images, generator=torch.Generator().manual_seed(seed))
        for seed in (2, 2, 3)
    )
    assert first.shape == (5, 3, 9, 7)
    assert first.equal(again)
    assert not first.equal(other)
    assert not first.equal(preparer.evaluation(images))
    assert float(first.abs().max()) <= 2.0001


@settings(deadline=None)
@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=40), seed=st.integers(0, 99))
def test_a_balanced_epoch_has_as_many_images_of_each_class(labels: list[int], seed: int) -> None:
    classes = torch.tensor(labels)
    order = balanced_order(classes, seed=seed, epoch=1)
    assert len(order) == len(labels)
    per_class = classes[order].bincount(minlength=5)[sorted(set(labels))]
    assert per_class.max() - per_class.min() <= 1
    for label in set(labels):
        members = (classes == label).nonzero().squeeze(1)
        times = order.bincount(minlength=len(labels))[members]
        assert times.max() - times.min() <= 1
    assert order.equal(balanced_order(classes, seed=seed, epoch=1))


def test_balanced_batches_come_from_the_balanced_order() -> None:
    split = Split(
        images=torch.zeros(40, 1, 2, 2, dtype=torch.uint8),
        labels=torch.tensor([0] * 36 + [1] * 4),
        num_classes=2,
    )
    layout = BatchLayout(num_images=40, batch_size=8)
    preparer = BatchPreparer(channel_statistics(split, Normalization.NONE), AugmentConfig())
    batches = ResidentBatches(split, preparer, layout, sampling=Sampling.BALANCED)
    assert batches.class_counts.tolist() == [36, 4]
    for epoch in (0, 1, 2, 0):
        parts = [batches.batch(layout.key(7, 5 * epoch + step)) for step in range(5)]
        order = torch.cat([part.indices for part in parts])
        assert order.equal(balanced_order(split.labels, seed=7, epoch=epoch))
        assert torch.cat([part.labels for part in parts]).bincount().tolist() == [20, 20]
