"""Batched operations against torchvision's on one image, and draws that follow the key alone."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from automix.configuration.data import AugmentConfig, AutoAugment
from automix.data.augment import CropBoxes, draw_erased_boxes, erase_
from automix.data.batches import BatchKey, BatchPreparer
from automix.data.pixel_operations import GEOMETRIC, OPERATIONS
from automix.data.policies import (
    IDENTITY,
    DrawnOperations,
    apply_operations,
    draw_operations,
)
from automix.data.splits import ChannelStatistics
from tests.equality import untouched_generators

STRENGTHS = {
    **dict.fromkeys(("ShearX", "ShearY"), st.floats(-0.99, 0.99)),
    **dict.fromkeys(("TranslateX", "TranslateY"), st.floats(-8, 8)),
    "Rotate": st.floats(-135, 135),
    **dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), st.floats(-0.99, 0.99)),
    "Posterize": st.integers(2, 8),
    "Solarize": st.floats(0, 1),
    "Hue": st.floats(-0.5, 0.5),
    **dict.fromkeys(("AutoContrast", "Equalize", "Invert", IDENTITY), st.just(0.0)),
}
NAMES = tuple(STRENGTHS)


def images_of(count: int, channels: int, height: int, width: int, *, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, channels, height, width), generator=generator).byte()


def torchvision_operation(image: Tensor, name: str, strength: float) -> Tensor:
    """Apply what torchvision's own policies do, and a hue shift."""
    if name == "Hue":
        shifted: Tensor = tv.adjust_hue(image, strength)
        return shifted
    policy = v2.RandAugment()
    result: Tensor = policy._apply_image_or_video_transform(
        image, name, strength, interpolation=v2.InterpolationMode.NEAREST, fill=policy._fill
    )
    return result


@settings(deadline=None, max_examples=40)
@given(data=st.data(), channels=st.sampled_from([1, 3]), seed=st.integers(0, 1000))
def test_each_image_is_changed_as_by_torchvision(data: Any, channels: int, seed: int) -> None:
    names = data.draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6))
    # In float32, as the strengths are stored.
    strengths = torch.tensor([float(data.draw(STRENGTHS[name])) for name in names])
    images = images_of(len(names), channels, 9, 12, seed=seed)
    numbers = torch.tensor([NAMES.index(name) for name in names])
    drawn = DrawnOperations(names=NAMES, number=numbers, strength=strengths)
    before = images.clone()
    results = apply_operations(images, [drawn])
    assert images.equal(before)
    for image, name, strength, result in zip(
        images, names, strengths.tolist(), results, strict=True
    ):
        expected = torchvision_operation(image, name, strength)
        if name in GEOMETRIC:
            # A point between two pixels may fall to either.
            assert (result != expected).float().mean() <= 0.05, name
        else:
            difference = (result.int() - expected.int()).abs()
            # A hue of 0.9999 and one of 0 are the same color; else bytes may differ by rounding.
            assert difference.max() <= 1, name


def test_every_operation_of_the_policies_is_there() -> None:
    spaces = (v2.AutoAugment, v2.RandAugment, v2.TrivialAugmentWide)
    names = {name for space in spaces for name in space._AUGMENTATION_SPACE}
    assert names | {"Hue"} == {*OPERATIONS, *GEOMETRIC, IDENTITY}


@pytest.mark.parametrize("policy", AutoAugment)
def test_draws_follow_the_seed_alone(policy: AutoAugment) -> None:
    config = AugmentConfig(auto_augment=policy, color_jitter=(0.4, 0.4, 0.4, 0.1))
    images = images_of(64, 3, 8, 8, seed=0)

    def augmented(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        drawn = draw_operations(64, config, height=8, width=8, generator=generator)
        return apply_operations(images, drawn)

    with untouched_generators():
        first, again, other = (augmented(seed) for seed in (1, 1, 2))
    assert first.equal(again)
    assert not first.equal(other)


def test_trivial_augment_draws_its_whole_space_evenly() -> None:
    config = AugmentConfig(auto_augment=AutoAugment.TRIVIALAUGMENT)
    generator = torch.Generator().manual_seed(0)
    (drawn,) = draw_operations(14_000, config, height=32, width=32, generator=generator)
    assert drawn.names == tuple(v2.TrivialAugmentWide._AUGMENTATION_SPACE)
    counts = drawn.number.bincount(minlength=14)
    assert (counts - 1000).abs().max() < 150
    rotations = drawn.strength[drawn.number == drawn.names.index("Rotate")]
    assert len(set(rotations.tolist())) == 61
    assert rotations.abs().max() == 135
    solarized = drawn.strength[drawn.number == drawn.names.index("Solarize")]
    assert solarized.min() >= 0


def test_randaugment_has_one_magnitude() -> None:
    config = AugmentConfig(
        auto_augment=AutoAugment.RANDAUGMENT, randaugment_ops=3, randaugment_magnitude=30
    )
    generator = torch.Generator().manual_seed(0)
    drawn = draw_operations(1000, config, height=10, width=20, generator=generator)
    assert len(drawn) == 3
    for operations in drawn:
        chosen = operations.strength[operations.number == operations.names.index("TranslateX")]
        assert chosen.abs().tolist() == pytest.approx([150 / 331 * 20] * len(chosen))
        assert len(set(chosen.tolist())) == 2


def test_autoaugment_follows_its_probabilities() -> None:
    config = AugmentConfig(auto_augment=AutoAugment.AUTOAUGMENT_CIFAR10)
    generator = torch.Generator().manual_seed(0)
    drawn = draw_operations(20_000, config, height=8, width=8, generator=generator)
    policies = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)._policies
    for place, operations in enumerate(drawn):
        expected = sum(pair[place][1] for pair in policies) / len(policies)
        is_done = operations.number != operations.names.index(IDENTITY)
        assert is_done.float().mean().item() == pytest.approx(expected, abs=0.02)


def test_color_jitter_stays_in_its_ranges_in_every_order() -> None:
    config = AugmentConfig(color_jitter=(0.4, 2.0, 0.0, 0.1))
    generator = torch.Generator().manual_seed(0)
    drawn = draw_operations(2000, config, height=8, width=8, generator=generator)
    numbers = torch.stack([operations.number for operations in drawn])
    assert numbers.sort(dim=0).values.equal(torch.arange(4)[:, None].expand(4, 2000))
    assert len(set(zip(*numbers.tolist(), strict=True))) == 24
    strengths = torch.stack([operations.strength for operations in drawn])
    for number, low, high in ((0, -0.4, 0.4), (1, -1.0, 2.0), (2, 0.0, 0.0), (3, -0.1, 0.1)):
        chosen = strengths[numbers == number]
        assert low <= chosen.min() <= low + 0.02
        assert high - 0.02 <= chosen.max() <= high


@settings(deadline=None, max_examples=20)
@given(height=st.integers(1, 20), width=st.integers(1, 20), seed=st.integers(0, 100))
def test_erased_boxes_are_those_of_random_erasing(height: int, width: int, seed: int) -> None:
    boxes = draw_erased_boxes(
        64, 1.0, height=height, width=width, generator=torch.Generator().manual_seed(seed)
    )
    is_erased = boxes.height > 0
    assert (boxes.height[is_erased] < height).all()
    assert (boxes.width[is_erased] < width).all()
    assert (boxes.top >= 0).all()
    assert (boxes.top + boxes.height <= height).all()
    assert (boxes.left + boxes.width <= width).all()
    images = erase_(torch.ones(64, 2, height, width), boxes)
    assert (images == 0).sum(dim=(1, 2, 3)).equal(2 * boxes.height * boxes.width)


def test_erased_areas_are_distributed_as_torchvisions() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = draw_erased_boxes(2000, 0.5, height=40, width=40, generator=generator)
    is_erased = boxes.height > 0
    assert is_erased.float().mean().item() == pytest.approx(0.5, abs=0.05)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        rows = [v2.RandomErasing(p=1).make_params([torch.ones(1, 40, 40)]) for _ in range(1000)]
    for ours, name in ((boxes.height, "h"), (boxes.width, "w")):
        of_torchvision = torch.tensor([float(row[name]) for row in rows])
        assert ours[is_erased].float().mean().item() == pytest.approx(
            of_torchvision.mean().item(), abs=4 * of_torchvision.std().item() / math.sqrt(900)
        )


def test_an_erased_box_has_the_mean_color() -> None:
    boxes = CropBoxes(
        top=torch.tensor([1]),
        left=torch.tensor([0]),
        height=torch.tensor([2]),
        width=torch.tensor([1]),
    )
    assert erase_(torch.ones(1, 1, 3, 2), boxes)[0, 0].tolist() == [[1, 1], [0, 1], [0, 1]]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_is_a_function_of_its_key(channels: int) -> None:
    config = AugmentConfig(
        crop_padding=1,
        auto_augment=AutoAugment.TRIVIALAUGMENT,
        color_jitter=(0.4, 0.4, 0.4, 0.1),
        random_erasing=0.5,
    )
    statistics = ChannelStatistics(mean=(0.5,) * channels, std=(0.25,) * channels)
    images = images_of(16, channels, 8, 8, seed=4)
    labels = indices = torch.arange(16)

    def batch(seed: int, step: int, micro_batch: int = 0) -> Tensor:
        key = BatchKey(seed=seed, step=step, micro_batch=micro_batch)
        return BatchPreparer(statistics, config).batch(key, images, labels, indices).images

    with untouched_generators():
        first, again = batch(1, 5), batch(1, 5)
    assert first.equal(again)
    assert first.shape == images.shape
    for other in (batch(1, 6), batch(2, 5), batch(1, 5, 1)):
        assert not first.equal(other)


@pytest.mark.parametrize("field", ["randaugment_ops", "randaugment_magnitude"])
@pytest.mark.parametrize(
    ("policy", "got"), [(None, "not given"), ("trivialaugment", "'trivialaugment'")]
)
def test_options_of_randaugment_need_it(field: str, policy: str | None, got: str) -> None:
    values = {"auto_augment": policy, field: 3}
    with pytest.raises(ValueError, match=f"expected nothing where auto_augment is {got}, got 3"):
        AugmentConfig.model_validate(values)
