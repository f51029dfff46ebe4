import dataclasses

import pytest
import torch
from torch import Tensor

from automix.evaluation.inference import EvaluationImages, ImageBatch
from automix.evaluation.occlusion import (
    FRACTIONS,
    occlude_objects,
    occlude_patches,
    occlude_salient_patches,
    occlusion_curve,
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
        hidden = patches.float().mean((3, 4))
        assert set(hidden.flatten().tolist()) <= {0.0, 1.0}
        assert (hidden.sum((1, 2)) == round(24 * fraction)).all()
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


def test_objects_are_hidden_by_a_nested_rectangle_of_the_fraction() -> None:
    images = plain(20, 40, 60)
    boxes = torch.tensor([[10, 5, 50, 35]]).repeat(20, 1)
    last = torch.zeros(20, 40, 60, dtype=torch.bool)
    for fraction in FRACTIONS:
        result = occlude_objects(images, fraction, boxes=boxes, fill=FILL, seed=0)
        now = hidden_pixels(images, result)
        assert (last <= now).all()
        assert now[:, :5].sum() + now[:, 35:].sum() + now[:, :, :10].sum() == 0
        hidden = now.float().sum((1, 2)) / 1200
        assert (hidden - fraction).abs().max() < 0.06
        last = now
    whole = occlude_objects(images, 1, boxes=boxes, fill=FILL, seed=0)
    assert (hidden_pixels(images, whole).sum((1, 2)) == 1200).all()
    half = occlude_objects(images, 0.3, boxes=boxes, fill=FILL, seed=0)
    assert not torch.equal(half[0], half[1])


def test_curves_fall_from_the_clean_accuracy_whatever_the_batches() -> None:
    stored = make_photos(50, height=16, width=16).clamp(min=1)
    whole = EvaluationImages.whole(stored, torch.zeros(50, dtype=torch.int64))

    def predict(changed: Tensor) -> Tensor:
        # What is hidden is 0, which no stored pixel is.
        shown = (changed > 0).float().mean((1, 2, 3))
        return torch.stack((shown, torch.full((len(changed),), 0.55)), 1)

    def hide_patches(batch: ImageBatch, fraction: float) -> Tensor:
        return occlude_patches(
            batch.images, fraction, patch_size=2, fill=(0, 0, 0), seed=0, indices=batch.indices
        )

    def hide_objects(batch: ImageBatch, fraction: float) -> Tensor:
        boxes = torch.tensor([[0, 0, 16, 16]]).repeat(len(batch.images), 1)
        return occlude_objects(
            batch.images, fraction, boxes=boxes, fill=(0, 0, 0), seed=0, indices=batch.indices
        )

    by_patches = occlusion_curve(predict, hide_patches, whole)
    assert (by_patches.num_images, by_patches.fractions) == (50, FRACTIONS)
    assert list(by_patches.accuracies) == [1] * 5 + [0] * 5
    by_objects = occlusion_curve(predict, hide_objects, whole)
    assert (by_objects.accuracies[0], by_objects.accuracies[-1]) == (1, 0)
    small = dataclasses.replace(whole, batch_size=7)
    assert occlusion_curve(predict, hide_objects, small) == by_objects


def test_an_image_loses_the_same_patches_in_any_batch() -> None:
    images = plain(9, 16, 16)
    whole = occlude_patches(images, 0.4, patch_size=4, fill=FILL, seed=1)
    part = occlude_patches(
        images[:2], 0.4, patch_size=4, fill=FILL, seed=1, indices=torch.tensor([6, 3])
    )
    assert torch.equal(part, whole[[6, 3]])


@pytest.mark.parametrize(("height", "width", "patch_size"), [(16, 24, 4), (10, 7, 4), (3, 2, 5)])
def test_salient_patches_go_first(height: int, width: int, patch_size: int) -> None:
    images = plain(6, height, width)
    source = torch.Generator().manual_seed(0)
    saliency = torch.rand(6, height, width, generator=source)
    last = torch.zeros(6, height, width, dtype=torch.bool)
    for fraction in (0, 0.25, 0.5, 0.75, 1):
        result = occlude_salient_patches(
            images, fraction, patch_size=patch_size, fill=FILL, saliency_NHW=saliency
        )
        now = hidden_pixels(images, result)
        assert (last <= now).all()
        for image, hidden in zip(saliency, now, strict=True):
            means = {
                (row, column): image[row : row + patch_size, column : column + patch_size]
                .mean()
                .item()
                for row in range(0, height, patch_size)
                for column in range(0, width, patch_size)
            }
            gone = {place for place in means if hidden[place]}
            assert len(gone) == round(fraction * len(means))
            kept = [value for place, value in means.items() if place not in gone]
            assert all(means[place] >= max(kept, default=0) - 1e-6 for place in gone)
        last = now


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
    with pytest.raises(ValueError, match=r"saliency: expected shape \(2, 8, 8\)"):
        occlude_salient_patches(
            images, 0.5, patch_size=2, fill=FILL, saliency_NHW=torch.zeros(2, 8, 7)
        )
    with pytest.raises(ValueError, match=r"boxes: expected shape \(2, 4\)"):
        occlude_objects(images, 0.5, boxes=torch.zeros(1, 4), fill=FILL, seed=0)
