"""Batched crops and flips against a slow loop, resized crops against those of torchvision."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as transforms

from automix.configuration.data import DEFAULT_CROP_RATIO, AugmentConfig, PaddingMode
from automix.data.augment import (
    AugmentDraws,
    CropBoxes,
    apply_augmentation,
    apply_resized_crop,
    draw_augmentation,
    draw_crop_boxes,
)


def slow_reference(
    images: Tensor, draws: AugmentDraws, *, padding: int, mode: PaddingMode
) -> Tensor:
    height, width = images.shape[2:]
    cut = []
    for image, top, left, flip in zip(
        images, draws.top.tolist(), draws.left.tolist(), draws.flip.tolist(), strict=True
    ):
        padded = F.pad(
            image.float(),
            (padding,) * 4,
            mode="constant" if mode is PaddingMode.ZERO else "reflect",
        )
        crop = padded[:, top : top + height, left : left + width]
        cut.append(crop.flip(2) if flip else crop)
    return torch.stack(cut).to(images.dtype)


@settings(deadline=None)
@given(
    batch=st.integers(1, 5),
    channels=st.integers(1, 3),
    height=st.integers(3, 8),
    width=st.integers(3, 8),
    padding=st.integers(0, 2),
    mode=st.sampled_from(PaddingMode),
    seed=st.integers(0, 1000),
)
def test_equals_the_slow_reference(
    *,
    batch: int,
    channels: int,
    height: int,
    width: int,
    padding: int,
    mode: PaddingMode,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, channels, height, width)
    images = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    before = images.clone()
    config = AugmentConfig(crop_padding=padding, horizontal_flip=True)
    draws = draw_augmentation(batch, config, generator=generator)
    fast = apply_augmentation(images, draws, padding=padding, mode=mode)
    assert fast.equal(slow_reference(images, draws, padding=padding, mode=mode))
    assert images.equal(before)


def test_draws_are_per_image_cover_the_range_and_follow_the_seed() -> None:
    config = AugmentConfig(crop_padding=2, horizontal_flip=True)
    first, again, other = (
        draw_augmentation(500, config, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    )
    assert set(first.top.tolist()) == set(first.left.tolist()) == {0, 1, 2, 3, 4}
    assert not first.top.equal(first.left)
    assert 200 < int(first.flip.sum()) < 300
    for name in ("top", "left", "flip"):
        assert getattr(first, name).equal(getattr(again, name))
        assert not getattr(first, name).equal(getattr(other, name))


def test_switching_the_flip_off_leaves_the_crops_as_they_were() -> None:
    crops, both = (
        draw_augmentation(
            50,
            AugmentConfig(crop_padding=2, horizontal_flip=flip),
            generator=torch.Generator().manual_seed(0),
        )
        for flip in (False, True)
    )
    assert crops.top.equal(both.top)
    assert not crops.flip.any()


def test_global_random_state_is_neither_read_nor_advanced() -> None:
    before = torch.get_rng_state()
    generator = torch.Generator().manual_seed(0)
    draw_augmentation(8, AugmentConfig(crop_padding=1), generator=generator)
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_no_padding_and_no_flip_is_the_identity(dtype: torch.dtype) -> None:
    images = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5).to(dtype)
    config = AugmentConfig()
    draws = draw_augmentation(2, config, generator=torch.Generator())
    assert apply_augmentation(images, draws, padding=0, mode=PaddingMode.ZERO).equal(images)


SCALE = (0.08, 1.0)


def draw(height: int, width: int, *, count: int, seed: int = 0) -> CropBoxes:
    return draw_crop_boxes(
        torch.full((count,), height),
        torch.full((count,), width),
        scale=SCALE,
        ratio=DEFAULT_CROP_RATIO,
        generator=torch.Generator().manual_seed(seed),
    )


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    low=st.floats(0.01, 1.0),
    ratio=st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)).map(sorted),
    seed=st.integers(0, 2**40),
)
def test_boxes_lie_inside_the_image(
    *, height: int, width: int, low: float, ratio: list[float], seed: int
) -> None:
    boxes = draw_crop_boxes(
        torch.tensor([height, 2]),
        torch.tensor([width, 3]),
        scale=(low, 1.0),
        ratio=(ratio[0], ratio[1]),
        generator=torch.Generator().manual_seed(seed),
    )
    heights, widths = torch.tensor([height, 2]), torch.tensor([width, 3])
    assert bool((boxes.height >= 1).all() & (boxes.width >= 1).all())
    assert bool((boxes.top >= 0).all() & (boxes.top + boxes.height <= heights).all())
    assert bool((boxes.left >= 0).all() & (boxes.left + boxes.width <= widths).all())


@pytest.mark.parametrize(("height", "width"), [(64, 64), (50, 200)])
def test_boxes_are_distributed_as_those_of_torchvision(height: int, width: int) -> None:
    count = 4000
    ours = draw(height, width, count=count)
    image = torch.empty(3, height, width)
    transform = v2.RandomResizedCrop(8, scale=SCALE, ratio=DEFAULT_CROP_RATIO, antialias=True)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        reference = [transform.make_params([image]) for _ in range(count)]
    for name in ("top", "left", "height", "width"):
        expected = torch.tensor([float(params[name]) for params in reference])
        values = getattr(ours, name).double()
        # Four standard errors of a difference of two means.
        tolerance = 4 * math.sqrt(2 / count) * float(expected.std())
        assert float(values.mean()) == pytest.approx(float(expected.mean()), abs=tolerance), name
        assert float(values.std()) == pytest.approx(float(expected.std()), rel=0.06), name


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [(10, 90, (0, 38, 10, 13)), (90, 10, (38, 0, 13, 10))],
)
def test_an_image_that_no_box_fits_is_cut_in_the_middle(
    height: int, width: int, box: tuple[int, int, int, int]
) -> None:
    boxes = draw_crop_boxes(
        torch.tensor([height]),
        torch.tensor([width]),
        scale=(1.0, 1.0),
        ratio=DEFAULT_CROP_RATIO,
        generator=torch.Generator(),
    )
    result = [int(value) for value in (boxes.top, boxes.left, boxes.height, boxes.width)]
    assert result == pytest.approx(box, abs=1)
    assert result[2:] == list(box[2:])


@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    seed=st.integers(0, 2**40),
    flips=st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_cutting_and_scaling_equals_torchvision_image_by_image(
    *, height: int, width: int, seed: int, flips: list[bool]
) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand((3, 2, height, width), generator=generator)
    before = images.clone()
    boxes = draw(height, width, count=3, seed=seed)
    crops = apply_resized_crop(images, boxes, torch.tensor(flips))
    for index, flip in enumerate(flips):
        box = [int(values[index]) for values in (boxes.top, boxes.left, boxes.height, boxes.width)]
        # Smoothing has no effect on an enlargement, but torch's is wrong for a single column.
        cut = transforms.resized_crop(images[index], *box, [height, width], antialias=False)
        expected = cut.flip(2) if flip else cut
        torch.testing.assert_close(crops[index], expected, atol=2e-5, rtol=0)
    assert images.equal(before)


def test_the_whole_image_is_itself() -> None:
    images = torch.rand((2, 3, 6, 6), generator=torch.Generator().manual_seed(1))
    whole = draw_crop_boxes(
        torch.full((2,), 6),
        torch.full((2,), 6),
        scale=(1.0, 1.0),
        ratio=(1.0, 1.0),
        generator=torch.Generator(),
    )
    no_flip = torch.zeros(2, dtype=torch.bool)
    torch.testing.assert_close(apply_resized_crop(images, whole, no_flip), images)
