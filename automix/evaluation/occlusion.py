"""Accuracy while more and more of the image, or of its object, is hidden.

The same draws serve all fractions: what is hidden at one fraction is hidden at every larger one.

Shape suffixes: N images, C channels, H rows, W columns, K classes, P patches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from automix.evaluation.calibration import accuracy
from automix.evaluation.counter_random import SampleRandom

FRACTIONS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

Predictor = Callable[[Tensor], Tensor]
"""Returns (N, K) logits of (N, C, H, W) uint8 images."""

Occluder = Callable[[float], Tensor]
"""Returns the images with a fraction of something hidden."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OcclusionCurve:
    """Accuracy over the fraction that is hidden.

    Attributes:
        num_images: how many images each accuracy is of.
        fractions: hidden shares, in [0, 1].
        accuracies: share of correct predictions at each, in [0, 1].
    """

    num_images: int
    fractions: tuple[float, ...]
    accuracies: tuple[float, ...]


def occlude_patches(
    images_NCHW: Tensor,
    fraction: float,
    *,
    patch_size: int,
    fill: Sequence[float],
    seed: int,
) -> Tensor:
    """Return images with a random ``fraction`` of the patches of a grid filled.

    Papers use patches of 16 pixels for 224-pixel images, and the mean as the fill (0 after
    normalisation). Patches at the right and lower border may be cut.

    Args:
        images_NCHW: uint8.
        fraction: share of the patches to hide, rounded to whole patches, in [0, 1].
        patch_size: side of a patch in pixels.
        fill: value per channel, in [0, 1].
        seed: names the order in which each image's patches are hidden.

    Raises:
        ValueError: a value is out of range.
    """
    _check(images_NCHW, fraction, fill)
    if patch_size < 1:
        raise ValueError(f"patch_size: expected at least 1, got {patch_size}")
    num_images, _, height, width = images_NCHW.shape
    rows, columns = -(-height // patch_size), -(-width // patch_size)
    random = SampleRandom(seed=seed, indices=torch.arange(num_images, device=images_NCHW.device))
    ranks_NP = random.uniform("patches", (rows * columns,)).argsort(dim=1).argsort(dim=1)
    is_hidden_NP = ranks_NP < round(fraction * rows * columns)
    is_hidden = is_hidden_NP.view(num_images, 1, rows, columns)
    is_hidden = is_hidden.repeat_interleave(patch_size, 2).repeat_interleave(patch_size, 3)
    return _filled(images_NCHW, is_hidden[..., :height, :width], fill)


def occlude_objects(
    images_NCHW: Tensor,
    fraction: float,
    *,
    boxes: Tensor,
    fill: Sequence[float],
    seed: int,
) -> Tensor:
    """Return images with a random rectangle of ``fraction`` of the object's box filled.

    The rectangle has the shape of the box.

    Args:
        images_NCHW: uint8.
        fraction: share of the area of the box, in [0, 1].
        boxes: (N, 4) left, top, right and lower edge in pixels; the last two are exclusive.
        fill: value per channel, in [0, 1].
        seed: names the place of the rectangle in each image.

    Raises:
        ValueError: a value is out of range, or there is not one box per image.
    """
    _check(images_NCHW, fraction, fill)
    if boxes.shape != (len(images_NCHW), 4):
        raise ValueError(f"boxes: expected shape ({len(images_NCHW)}, 4), got {tuple(boxes.shape)}")
    height, width = images_NCHW.shape[-2:]
    device = images_NCHW.device
    random = SampleRandom(seed=seed, indices=torch.arange(len(boxes), device=device))
    low_N2, high_N2 = boxes[:, :2].to(device).float(), boxes[:, 2:].to(device).float()
    size_N2 = (high_N2 - low_N2) * fraction**0.5
    start_N2 = low_N2 + random.uniform("place", (2,)) * (high_N2 - low_N2 - size_N2)
    (left, top), (right, bottom) = start_N2.T, (start_N2 + size_N2).T
    # A pixel is hidden when its centre is.
    x = (torch.arange(width, device=device) + 0.5).view(1, 1, 1, -1)
    y = (torch.arange(height, device=device) + 0.5).view(1, 1, -1, 1)
    left, top, right, bottom = (edge.view(-1, 1, 1, 1) for edge in (left, top, right, bottom))
    is_hidden = (x >= left) & (x < right) & (y >= top) & (y < bottom)
    return _filled(images_NCHW, is_hidden, fill)


def patch_occlusion_curve(
    predict: Predictor,
    images_NCHW: Tensor,
    labels_N: Tensor,
    *,
    patch_size: int,
    fill: Sequence[float],
    seed: int,
) -> OcclusionCurve:
    """Return the accuracy while more and more patches are hidden; see `occlude_patches`."""
    occlude = partial(occlude_patches, images_NCHW, patch_size=patch_size, fill=fill, seed=seed)
    return _curve(predict, occlude, labels_N)


def object_occlusion_curve(
    predict: Predictor,
    images_NCHW: Tensor,
    labels_N: Tensor,
    *,
    boxes: Tensor,
    fill: Sequence[float],
    seed: int,
) -> OcclusionCurve:
    """Return the accuracy while more and more of the object is hidden; see `occlude_objects`."""
    occlude = partial(occlude_objects, images_NCHW, boxes=boxes, fill=fill, seed=seed)
    return _curve(predict, occlude, labels_N)


@torch.no_grad()
def _curve(predict: Predictor, occlude: Occluder, labels_N: Tensor) -> OcclusionCurve:
    accuracies = tuple(
        accuracy(predict(occlude(fraction)).cpu().double(), labels_N.cpu()).item()
        for fraction in FRACTIONS
    )
    return OcclusionCurve(num_images=len(labels_N), fractions=FRACTIONS, accuracies=accuracies)


def _check(images_NCHW: Tensor, fraction: float, fill: Sequence[float]) -> None:
    if images_NCHW.ndim != 4 or images_NCHW.dtype != torch.uint8:
        raise ValueError(
            "images: expected uint8 of shape (N, C, H, W), "
            f"got {images_NCHW.dtype} of shape {tuple(images_NCHW.shape)}"
        )
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction: expected 0 to 1, got {fraction}")
    if len(fill) != images_NCHW.shape[1] or not all(0 <= value <= 1 for value in fill):
        raise ValueError(
            f"fill: expected {images_NCHW.shape[1]} values from 0 to 1, got {tuple(fill)}"
        )


def _filled(images_NCHW: Tensor, is_hidden: Tensor, fill: Sequence[float]) -> Tensor:
    levels = torch.tensor([round(255 * value) for value in fill], dtype=torch.uint8)
    return torch.where(is_hidden, levels.to(images_NCHW.device).view(1, -1, 1, 1), images_NCHW)
