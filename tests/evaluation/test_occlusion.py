import pytest
import torch
from torch import Tensor

from automix.evaluation.occlusion import (
    FRACTIONS,
    object_occlusion_curve,
    occlude_objects,
    occlude_patches,
    patch_occlusion_curve,
)
from tests.evaluation.photos import make_photos

FILL = (0.5, 0.25, 1.0)
LEVELS = torch.tensor([128, 64, 255], dtype=torch.uint8).view(1, 3, 1, 1)


def hidden_pixels(images: Tensor, result: Tensor) -> Tensor:
    """Return (N, H, W): where the fill is; the images must not hold it."""
    is_hidden = (result == LEVELS).all(dim=1)
    assert torch.equal(result, torch.where(is_hidden[:, None], LEVELS, images))
    return is_hidden


def plain(num_images: int, height: int, width: int) -> Tensor:
    return torch.zeros(num_images, 3, height, width, dtype=torch.uint8)


def test_whole_patches_are_hidden_and_their_number_is_the_fraction() -> None:
    images = plain(5, 16, 24)
    for fraction in (0, 0.25, 0.5, 1):
        result = occlude_patches(images, fraction, patch_size=4, fill=FILL, seed=0)
        patches = hidden_pixels(images, result).unfold(1, 4, 4).unfold(2, 4, 4)
        share = patches.float().mean((3, 4))
        assert set(share.flatten().tolist()) <= {0.0, 1.0}
        assert (share.sum((1, 2)) == round(24 * fraction)).all()
    assert torch.equal(images, plain(5, 16, 24))


def test_what_is_hidden_stays_hidden_and_depends_on_seed_and_image() -> None:
    images = plain(6, 20, 20)
    last = torch.zeros(6, 20, 20, dtype=torch.bool)
    for fraction in FRACTIONS:
        now = hidden_pixels(
            images, occlude_patches(images, fraction, patch_size=4, fill=FILL, seed=1)
        )
        assert (last <= now).all()
        last = now
    half = occlude_patches(images, 0.5, patch_size=4, fill=FILL, seed=1)
    assert not torch.equal(half[0], half[1])
    assert torch.equal(half[:2], occlude_patches(images[:2], 0.5, patch_size=4, fill=FILL, seed=1))
    assert not torch.equal(half, occlude_patches(images, 0.5, patch_size=4, fill=FILL, seed=2))


def test_border_patches_are_cut() -> None:
    images = plain(3, 10, 7)
    result = occlude_patches(images, 1, patch_size=4, fill=FILL, seed=0)
    assert hidden_pixels(images, result).all()


def test_objects_are_hidden_by_a_nested_rectangle_of_the_share() -> None:
    images = plain(20, 40, 60)
    boxes = torch.tensor([[10, 5, 50, 35]]).repeat(20, 1)
    last = torch.zeros(20, 40, 60, dtype=torch.bool)
    for fraction in FRACTIONS:
        result = occlude_objects(images, fraction, boxes=boxes, fill=FILL, seed=0)
        now = hidden_pixels(images, result)
        assert (last <= now).all()
        assert now[:, :5].sum() + now[:, 35:].sum() + now[:, :, :10].sum() == 0
        share = now.float().sum((1, 2)) / 1200
        assert (share - fraction).abs().max() < 0.06
        last = now
    whole = occlude_objects(images, 1, boxes=boxes, fill=FILL, seed=0)
    assert (hidden_pixels(images, whole).sum((1, 2)) == 1200).all()
    half = occlude_objects(images, 0.3, boxes=boxes, fill=FILL, seed=0)
    assert not torch.equal(half[0], half[1])


def test_curves_fall_from_the_clean_accuracy() -> None:
    images = make_photos(50, height=16, width=16).clamp(min=1)

    def predict(stored: Tensor) -> Tensor:
        return torch.stack(((stored == images).float().mean((1, 2, 3)), torch.full((50,), 0.55)), 1)

    labels = torch.zeros(50, dtype=torch.int64)
    by_patches = patch_occlusion_curve(
        predict, images, labels, patch_size=2, fill=(0, 0, 0), seed=0
    )
    assert by_patches.fractions == FRACTIONS
    assert list(by_patches.accuracies) == [1] * 5 + [0] * 5
    boxes = torch.tensor([[0, 0, 16, 16]]).repeat(50, 1)
    by_objects = object_occlusion_curve(
        predict, images, labels, boxes=boxes, fill=(0, 0, 0), seed=0
    )
    assert by_objects.num_images == 50
    assert by_objects.accuracies[0] == 1
    assert by_objects.accuracies[-1] == 0


def test_wrong_arguments_are_refused() -> None:
    images = plain(2, 8, 8)
    with pytest.raises(ValueError, match=r"fraction: expected 0 to 1, got 1\.5"):
        occlude_patches(images, 1.5, patch_size=2, fill=FILL, seed=0)
    with pytest.raises(ValueError, match="patch_size: expected at least 1, got 0"):
        occlude_patches(images, 0.5, patch_size=0, fill=FILL, seed=0)
    with pytest.raises(ValueError, match="fill: expected 3 values from 0 to 1"):
        occlude_patches(images, 0.5, patch_size=2, fill=(0.5,), seed=0)
    with pytest.raises(ValueError, match="images: expected uint8"):
        occlude_patches(images.float(), 0.5, patch_size=2, fill=FILL, seed=0)
    with pytest.raises(ValueError, match=r"boxes: expected shape \(2, 4\)"):
        occlude_objects(images, 0.5, boxes=torch.zeros(1, 4), fill=FILL, seed=0)
