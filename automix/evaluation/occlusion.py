"""Accuracy while more and more of the image, or of its object, is hidden.

What is hidden at one fraction is hidden at every larger one. All functions take uint8 images,
``fraction`` in [0, 1], a ``fill`` value per channel in [0, 1] (papers use the mean), and raise
ValueError for values out of range. ``indices``, (N,) int64, are the numbers of the images in their
dataset, 0 to N - 1 by default: draws belong to them, not to the batch.

Shape suffixes: N images, C channels, H rows, W columns, K classes, P patches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from automix.evaluation.counter_random import SampleRandom
from automix.evaluation.inference import (
    EvaluationImages,
    ImageBatch,
    Predictor,
    check_stored,
    count_correct,
)

FRACTIONS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

Occluder = Callable[[ImageBatch, float], Tensor]
"""Returns the images of a batch with a fraction of something hidden."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OcclusionCurve:
    """Accuracy over the fraction that is hidden."""

    num_images: int  # how many images each accuracy is of
    fractions: tuple[float, ...]  # hidden, in [0, 1]
    accuracies: tuple[float, ...]  # fraction of correct predictions at each, in [0, 1]


def occlude_patches(
    images_NCHW: Tensor,
    fraction: float,
    *,
    patch_size: int,
    fill: Sequence[float],
    seed: int,
    indices: Tensor | None = None,
) -> Tensor:
    """Return images with a random ``fraction`` of the patches of a grid filled.

    "Random PatchDrop" of https://arxiv.org/abs/2105.10497, with patches of 16 pixels for 224-pixel
    images. The fraction is rounded to whole patches; those at the right and lower border may be
    cut. ``seed`` names the order in which each image's patches are hidden.
    """
    _check(images_NCHW, fraction, fill)
    rows, columns = _grid(images_NCHW, patch_size)
    if indices is None:
        indices = torch.arange(len(images_NCHW), device=images_NCHW.device)
    # One order per image, of which the first patches are hidden: larger fractions hide more of it.
    random = SampleRandom(seed=seed, indices=indices)
    order_NP = random.uniform("patches", (rows * columns,)).argsort(dim=1, stable=True)
    return _with_patches_filled(images_NCHW, order_NP, fraction, patch_size, fill)


def occlude_salient_patches(
    images_NCHW: Tensor,
    fraction: float,
    *,
    patch_size: int,
    fill: Sequence[float],
    saliency_NHW: Tensor,
) -> Tensor:
    """Return images with the most salient ``fraction`` of the patches of a grid filled.

    "Salient PatchDrop" of https://arxiv.org/abs/2105.10497: what a saliency map takes for the
    object goes first. A patch counts by the mean of the map, which is not negative. Equally salient
    patches go from the upper left to the lower right.
    """
    _check(images_NCHW, fraction, fill)
    _grid(images_NCHW, patch_size)
    if saliency_NHW.shape != (len(images_NCHW), *images_NCHW.shape[-2:]):
        raise ValueError(
            f"saliency: expected shape ({len(images_NCHW)}, {images_NCHW.shape[-2]}, "
            f"{images_NCHW.shape[-1]}), got {tuple(saliency_NHW.shape)}"
        )
    # A cut patch at the border counts by the pixels that it has.
    means_N1RC = F.avg_pool2d(
        saliency_NHW[:, None].float(), patch_size, ceil_mode=True, count_include_pad=False
    )
    order_NP = means_N1RC.flatten(1).argsort(dim=1, descending=True, stable=True)
    return _with_patches_filled(images_NCHW, order_NP, fraction, patch_size, fill)


def occlude_objects(
    images_NCHW: Tensor,
    fraction: float,
    *,
    boxes: Tensor,
    fill: Sequence[float],
    seed: int,
    indices: Tensor | None = None,
) -> Tensor:
    """Return images with a random rectangle of ``fraction`` of the object's box filled.

    The rectangle has the shape of the box, and ``seed`` names its place. Boxes are (N, 4): left,
    top, right and lower edge in pixels, the last two exclusive.
    """
    _check(images_NCHW, fraction, fill)
    if boxes.shape != (len(images_NCHW), 4):
        raise ValueError(f"boxes: expected shape ({len(images_NCHW)}, 4), got {tuple(boxes.shape)}")
    height, width = images_NCHW.shape[-2:]
    device = images_NCHW.device
    if indices is None:
        indices = torch.arange(len(images_NCHW), device=device)
    random = SampleRandom(seed=seed, indices=indices)
    low_N2, high_N2 = boxes[:, :2].to(device).float(), boxes[:, 2:].to(device).float()
    # Both sides scale by the root of the fraction of the area.
    size_N2 = (high_N2 - low_N2) * fraction**0.5
    start_N2 = low_N2 + random.uniform("place", (2,)) * (high_N2 - low_N2 - size_N2)
    (left, top), (right, bottom) = start_N2.T, (start_N2 + size_N2).T
    # A pixel is hidden when its center is.
    x = (torch.arange(width, device=device) + 0.5).view(1, 1, 1, -1)
    y = (torch.arange(height, device=device) + 0.5).view(1, 1, -1, 1)
    left, top, right, bottom = (edge.view(-1, 1, 1, 1) for edge in (left, top, right, bottom))
    is_hidden = (x >= left) & (x < right) & (y >= top) & (y < bottom)
    return _filled(images_NCHW, is_hidden, fill)


def occlusion_curve(
    predict: Predictor, occlude: Occluder, images: EvaluationImages
) -> OcclusionCurve:
    """Return the accuracy while ``occlude`` hides more and more, a batch at a time."""

    def accuracy(fraction: float) -> float:
        correct = count_correct(predict, images, change=lambda batch: occlude(batch, fraction))
        return correct / len(images)

    accuracies = tuple(map(accuracy, FRACTIONS))
    return OcclusionCurve(num_images=len(images), fractions=FRACTIONS, accuracies=accuracies)


def _check(images_NCHW: Tensor, fraction: float, fill: Sequence[float]) -> None:
    check_stored(images_NCHW)
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction: expected 0 to 1, got {fraction}")
    if len(fill) != images_NCHW.shape[1] or not all(0 <= value <= 1 for value in fill):
        raise ValueError(
            f"fill: expected {images_NCHW.shape[1]} values from 0 to 1, got {tuple(fill)}"
        )


def _filled(images_NCHW: Tensor, is_hidden: Tensor, fill: Sequence[float]) -> Tensor:
    levels = torch.tensor([round(255 * value) for value in fill], dtype=torch.uint8)
    return torch.where(is_hidden, levels.to(images_NCHW.device).view(1, -1, 1, 1), images_NCHW)


def _grid(images_NCHW: Tensor, patch_size: int) -> tuple[int, int]:
    if patch_size < 1:
        raise ValueError(f"patch_size: expected at least 1, got {patch_size}")
    height, width = images_NCHW.shape[-2:]
    return -(-height // patch_size), -(-width // patch_size)


def _with_patches_filled(
    images_NCHW: Tensor, order_NP: Tensor, fraction: float, patch_size: int, fill: Sequence[float]
) -> Tensor:
    """Fill the first ``fraction`` of the patches in ``order_NP``, numbered row by row."""
    height, width = images_NCHW.shape[-2:]
    rows, columns = _grid(images_NCHW, patch_size)
    # The inverse of a permutation is the rank of each patch.
    is_hidden_NP = order_NP.argsort(dim=1) < round(fraction * rows * columns)
    is_hidden = is_hidden_NP.view(len(images_NCHW), 1, rows, columns)
    is_hidden = is_hidden.repeat_interleave(patch_size, 2).repeat_interleave(patch_size, 3)
    return _filled(images_NCHW, is_hidden[..., :height, :width], fill)
