"""Weakly supervised localisation: class activation maps, and boxes read off them.

Shape suffixes: N images, B batch, C channels, H rows, W columns, K classes, T thresholds.
Boxes are (left, top, right, lower edge) in pixels, the last two exclusive.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from automix.saliency.config import Statistics
from automix.saliency.isolation import without_trace

IOU_LEVELS = (0.3, 0.5, 0.7)
"""Overlaps at which a box counts as right in MaxBoxAccV2."""

NUM_THRESHOLDS = 100

_FLAT = 1e-5

Floats = NDArray[np.float64]


def class_activation_maps(
    model: nn.Module, images_BCHW: Tensor, classes_B: Tensor, *, layer: nn.Module
) -> Tensor:
    """Return where each image speaks for a class, as maps from 0 to 1 at the size of the images.

    The channels of ``layer`` are weighted by the mean gradient of the class's logit. Where the
    layer is followed by global average pooling and one linear map, that is CAM
    (https://arxiv.org/abs/1512.04150); elsewhere it is Grad-CAM without its ReLU
    (https://arxiv.org/abs/1610.02391). Maps are resized bicubically and scaled per image; an
    image whose map is constant gets zeros. The model is left as it was.

    Args:
        model: takes ``images_BCHW``.
        images_BCHW: what the network takes, normalised.
        classes_B: (B,) int64, usually the predicted classes.
        layer: a module of the model whose output is (B, C, h, w).

    Returns:
        (B, H, W) float32 in [0, 1].

    Raises:
        ValueError: the layer does not run, or its output is not four-dimensional.
    """
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        # What follows may work in place, which a leaf does not allow.
        return kept[0].clone()

    handle = layer.register_forward_hook(keep)
    try:
        with without_trace(model, device=images_BCHW.device, statistics=Statistics.RUNNING):
            logits_BK = model(images_BCHW)
            if len(kept) != 1 or kept[0].ndim != 4:
                raise ValueError(
                    "layer: expected a module that runs once and returns (B, C, h, w), "
                    f"got outputs {[tuple(output.shape) for output in kept]}"
                )
            score = logits_BK.gather(1, classes_B[:, None]).sum()
            gradient = torch.autograd.grad(score, kept[0])[0]
    finally:
        handle.remove()
    weights = gradient.float().mean(dim=(2, 3), keepdim=True)
    maps = (weights * kept[0].detach().float()).sum(dim=1, keepdim=True)
    maps = F.interpolate(maps, size=images_BCHW.shape[-2:], mode="bicubic")[:, 0]
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    # A map that is constant but for rounding has nothing to show.
    is_flat = high - low <= _FLAT * torch.maximum(high.abs(), low.abs())
    return torch.where(is_flat, torch.zeros_like(maps), (maps - low) / (high - low))


def boxes_of(map_HW: NDArray[np.floating], threshold: float) -> NDArray[np.int64]:
    """Return (M, 4): the box of each connected region above ``threshold``, corners touching."""
    regions, _ = ndimage.label(map_HW > threshold, structure=np.ones((3, 3)))
    boxes = [
        (columns.start, rows.start, columns.stop, rows.stop)
        for rows, columns in ndimage.find_objects(regions)
    ]
    return np.array(boxes, dtype=np.int64).reshape(-1, 4)


def box_overlaps(first: NDArray[np.int64], second: NDArray[np.int64]) -> Floats:
    """Return (A, B): intersection over union of each box of (A, 4) with each of (B, 4)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    # Clamped on each axis: two negative lengths would make a positive area.
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    return np.asarray(shared / np.maximum(union, 1), dtype=np.float64)


def localisation_accuracy(
    maps_NHW: NDArray[np.floating],
    boxes: Sequence[NDArray[np.int64]],
    *,
    num_thresholds: int = NUM_THRESHOLDS,
    is_right: NDArray[np.bool_] | None = None,
) -> Floats:
    """Return the share of images localised, at each threshold of the map and level of overlap.

    An image is localised when any box of a connected region overlaps any of its true boxes enough
    (the second version of https://arxiv.org/abs/2007.04178; the first takes one region only).

    Args:
        maps_NHW: in [0, 1].
        boxes: for each image its true boxes, (M, 4).
        num_thresholds: evenly spaced from 0, exclusive of 1.
        is_right: (N,) whether the predicted class is the label; others then count as not
            localised. Without it the class is taken as known.

    Returns:
        (T, 3): one row per threshold, one column for each of `IOU_LEVELS`.

    Raises:
        ValueError: there is no image, or numbers of maps and boxes differ.
    """
    if not len(maps_NHW) or len(boxes) != len(maps_NHW):
        raise ValueError(
            "expected at least one map and as many sets of boxes, "
            f"got {len(maps_NHW)} and {len(boxes)}"
        )
    thresholds = np.arange(num_thresholds) / num_thresholds
    best_NT = np.array(
        [
            [box_overlaps(boxes_of(image, t), true).max(initial=0) for t in thresholds]
            for image, true in zip(maps_NHW, boxes, strict=True)
        ]
    )
    is_localised = best_NT[..., None] >= np.array(IOU_LEVELS)
    if is_right is not None:
        is_localised &= is_right[:, None, None]
    return np.asarray(is_localised.mean(axis=0), dtype=np.float64)


def max_box_accuracy(accuracy_T3: Floats, *, tuned_on: Floats | None = None) -> float:
    """Return MaxBoxAccV2: the accuracy at the best threshold, averaged over `IOU_LEVELS`.

    Args:
        accuracy_T3: from `localisation_accuracy`.
        tuned_on: the same table of other images with boxes; thresholds are chosen there. Without
            it they are chosen on the images themselves, as the benchmark does, which flatters.
    """
    chosen = (accuracy_T3 if tuned_on is None else tuned_on).argmax(axis=0)
    return float(accuracy_T3[chosen, np.arange(len(IOU_LEVELS))].mean())
