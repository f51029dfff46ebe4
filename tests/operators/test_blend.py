import re

import pytest
import torch
from torch import Tensor

from automix.operators.blend import blend, mix_rows, paste, resize_into_box, soft_targets, take
from tests.operators.cases import Scenario, as_laid_out, random_images, seeded


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_copies_keep_the_layout(layout: str) -> None:
    images = random_images(Scenario(3, size=(5, 7), layout=layout))
    index = torch.tensor([2, 0, 2, 1])
    copies = take(images, index)
    assert torch.equal(copies, images[index])
    assert copies.stride() == as_laid_out(images[index], layout).stride()
    copies.zero_()
    assert images.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pasting_is_blending_with_whole_weights(dtype: torch.dtype) -> None:
    images = random_images(Scenario(3, size=(5, 7), dtype=dtype))
    partner, before = images.flip(0), images.clone()
    mask = (torch.rand((3, 1, 5, 7), generator=seeded(0)) > 0.5).float()
    expected = torch.where(mask > 0, partner, images)
    assert torch.equal(blend(images, partner.clone(), mask), expected)
    assert torch.equal(paste(images, partner.clone(), mask), expected)
    assert torch.equal(paste(images.clone().requires_grad_(), partner, mask), expected)
    assert torch.equal(images, before)


def test_a_box_shows_the_whole_source() -> None:
    source = torch.arange(16.0).view(1, 1, 4, 4)
    box = torch.tensor([[1, 3, 0, 2], [2, 2, 0, 4]])  # the second is empty
    resized = resize_into_box(source, torch.tensor([0, 0]), box, (5, 6))
    assert resized.shape == (2, 1, 5, 6)
    assert resized[0, 0, 1:3, 0:2].tolist() == [[0, 2], [8, 10]]
    assert resized.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_integers_become_one_hot_rows(dtype: torch.dtype) -> None:
    rows = soft_targets(torch.tensor([2, 0], dtype=dtype), 2, 3)
    assert torch.equal(rows, torch.tensor([[0.0, 0, 1], [1, 0, 0]]))
    assert rows.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float16, torch.float64])
def test_rows_become_float32(dtype: torch.dtype) -> None:
    rows = torch.tensor([[0, 1, 1], [0, 0, 0]]).to(dtype)
    assert torch.equal(soft_targets(rows, 2), rows.float())
    assert soft_targets(rows, 2, 3).dtype == torch.float32


@pytest.mark.parametrize(
    ("targets", "num_classes", "message"),
    [
        (torch.zeros(3).long(), 5, "expected shape (2,) or (2, 5), one entry or row for each"),
        (torch.zeros(2, 1, 5), None, "expected shape (2,) or (2, K), one entry or row for each"),
        (torch.zeros(()).long(), 5, "got ()"),
        (torch.zeros(2, 4), 5, "expected 5 columns, got shape (2, 4)"),
        (torch.zeros(2).long(), None, "expected a number for integer targets, got None"),
    ],
)
def test_refused_shapes(targets: Tensor, num_classes: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        soft_targets(targets, 2, num_classes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64])
def test_refused_types(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=r"expected integer classes for shape \(B,\), got torch"):
        soft_targets(torch.zeros(2, dtype=dtype), 2, 3)
    if dtype.is_complex:
        with pytest.raises(TypeError, match=r"expected real numbers, got torch\.complex64"):
            soft_targets(torch.zeros((2, 3), dtype=dtype), 2)


def test_a_class_outside_the_range_is_not_ignored() -> None:
    with pytest.raises(ValueError, match="expected classes from 0 to 2, got 0 to 3"):
        soft_targets(torch.tensor([0, 3]), 2, 3)


def test_rows_are_weighed_exactly_at_the_ends() -> None:
    first, partner = torch.rand((2, 4, 5), generator=torch.Generator().manual_seed(0))
    lam = torch.tensor([1.0, 0.0, 0.5, 0.25])
    mixed = mix_rows(first, partner, lam)
    assert torch.equal(mixed[0], first[0])
    assert torch.equal(mixed[1], partner[1])
    torch.testing.assert_close(
        mixed[2:], lam[2:, None] * first[2:] + (1 - lam[2:, None]) * partner[2:]
    )
