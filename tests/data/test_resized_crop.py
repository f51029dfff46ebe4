"""Random resized crops against torchvision's, one image at a time."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as transforms

from automix.configuration.data import DEFAULT_CROP_RATIO, AugmentConfig
from automix.data.augment import CropBoxes, apply_resized_crop, draw_crop_boxes
from automix.data.batches import BatchPreparer
from automix.data.splits import ChannelStatistics

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
        theirs = [transform.make_params([image]) for _ in range(count)]
    for name in ("top", "left", "height", "width"):
        expected = torch.tensor([float(params[name]) for params in theirs])
        found = getattr(ours, name).double()
        # Four standard errors of a difference of two means.
        tolerance = 4 * math.sqrt(2 / count) * float(expected.std())
        assert float(found.mean()) == pytest.approx(float(expected.mean()), abs=tolerance), name
        assert float(found.std()) == pytest.approx(float(expected.std()), rel=0.06), name


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
    found = [int(value) for value in (boxes.top, boxes.left, boxes.height, boxes.width)]
    assert found == pytest.approx(box, abs=1)
    assert found[2:] == list(box[2:])


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
    found = apply_resized_crop(images, boxes, torch.tensor(flips))
    for index, flip in enumerate(flips):
        box = [int(values[index]) for values in (boxes.top, boxes.left, boxes.height, boxes.width)]
        # Smoothing has no effect on an enlargement, but torch's is wrong for a single column.
        cut = transforms.resized_crop(images[index], *box, [height, width], antialias=False)
        expected = cut.flip(2) if flip else cut
        torch.testing.assert_close(found[index], expected, atol=2e-5, rtol=0)
    assert images.equal(before)


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
