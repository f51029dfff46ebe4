"""Weakly supervised localization: class activation maps, and boxes read off them.

Shape suffixes: N images, B batch, C channels, H rows, W columns, K classes, T thresholds.
Boxes are (left, top, right, lower edge) in pixels, the last two exclusive.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from automix.network_outputs import logits_of
from automix.operator_info import Statistics
from automix.saliency.gradient import without_trace

IOU_LEVELS = (0.3, 0.5, 0.7)
"""Overlaps at which a box counts as right in MaxBoxAccV2."""

NUM_THRESHOLDS = 100

Floats = NDArray[np.float64]
Boxes = NDArray[np.float64] | NDArray[np.int64]


def class_activation_maps(
    model: nn.Module, images_BCHW: Tensor, classes_B: Tensor, *, layer: nn.Module
) -> Tensor:
    """Return the evidence for a class at each pixel, as maps from 0 to 1 of the images' size.

    The channels of ``layer`` are weighted by the mean gradient of the class's logit. Where the
    layer is followed by global average pooling and one linear map, that is CAM
    (https://arxiv.org/abs/1512.04150); elsewhere it is Grad-CAM without its ReLU
    (https://arxiv.org/abs/1610.02391). Maps are resized bicubically and scaled per image; an
    image whose map is constant gets zeros. The model, which takes normalized images, is left as it
    was; ``classes_B`` are usually the predicted ones, and the output of the layer is (B, C, h, w).

    Raises:
        ValueError: the layer does not run, or its output is not four-dimensional.
    """
    outputs: list[Tensor] = []

    def cut(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise ValueError(
                f"layer: expected a module that returns (B, C, h, w), got {type(output).__name__}"
            )
        # The layer's output becomes a leaf, so the gradient ends here. The layers after it may
        # work in place, which a leaf does not allow.
        outputs.append(output.detach().requires_grad_())
        return outputs[0].clone()

    handle = layer.register_forward_hook(cut)
    try:
        with without_trace(model, device=images_BCHW.device, statistics=Statistics.RUNNING):
            logits_BK = logits_of(model(images_BCHW))
            if len(outputs) != 1 or outputs[0].ndim != 4:
                raise ValueError(
                    "layer: expected a module that runs once and returns (B, C, h, w), "
                    f"got outputs {[tuple(output.shape) for output in outputs]}"
                )
            # The images of a batch do not interact, so one backward pass serves all of them.
            score = logits_BK.gather(1, classes_B[:, None]).sum()
            gradient = torch.autograd.grad(score, outputs[0])[0]
    finally:
        handle.remove()
    # Grad-CAM: alpha_c = mean over positions of d y / d A_c, and the map is sum_c alpha_c A_c.
    weights = gradient.float().mean(dim=(2, 3), keepdim=True)
    maps = (weights * outputs[0].detach().float()).sum(dim=1, keepdim=True)
    maps = F.interpolate(maps, size=images_BCHW.shape[-2:], mode="bicubic")[:, 0]
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    # A map that is constant but for rounding has nothing to show.
    is_flat = high - low <= 1e-5 * torch.maximum(high.abs(), low.abs())
    return torch.where(is_flat, torch.zeros_like(maps), (maps - low) / (high - low))


def boxes_of(map_HW: NDArray[np.floating], threshold: float) -> NDArray[np.int64]:
    """Return (M, 4): the box of each connected region above ``threshold``, corners touching."""
    regions, _ = ndimage.label(map_HW > threshold, structure=np.ones((3, 3)))
    boxes = [
        (columns.start, rows.start, columns.stop, rows.stop)
        for rows, columns in ndimage.find_objects(regions)
    ]
    return np.array(boxes, dtype=np.int64).reshape(-1, 4)


def box_overlaps(first: Boxes, second: Boxes) -> Floats:
    """Return (A, B): intersection over union of each box of (A, 4) with each of (B, 4)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    # Clamped on each axis: two negative lengths would make a positive area.
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    overlaps = np.zeros(union.shape)
    np.divide(shared, union, out=overlaps, where=union > 0)
    return overlaps


def best_overlaps(
    maps_NHW: NDArray[np.floating],
    boxes: Sequence[Boxes],
    *,
    num_thresholds: int = NUM_THRESHOLDS,
) -> Floats:
    """Return (N, T): the best overlap of a box of each map with a true box, at each threshold.

    Every connected region above the threshold gives a box; any of them and any true box count
    (the second version of https://arxiv.org/abs/2007.04178; the first takes one region only).
    Maps are in [0, 1]; ``boxes`` are for each image its true ones, (M, 4), at least one. Thresholds
    are evenly spaced from 0, exclusive of 1.

    Raises:
        ValueError: there is no image, or numbers of maps and boxes differ.
    """
    if not len(maps_NHW) or len(boxes) != len(maps_NHW):
        raise ValueError(
            "expected at least one map and as many sets of boxes, "
            f"got {len(maps_NHW)} and {len(boxes)}"
        )
    thresholds = np.arange(num_thresholds) / num_thresholds
    return np.array(
        [
            [box_overlaps(boxes_of(image, t), true).max(initial=0) for t in thresholds]
            for image, true in zip(maps_NHW, boxes, strict=True)
        ]
    )


def localization_accuracy(overlaps_NT: Floats, *, is_right: NDArray[np.bool_]) -> Floats:
    """Return the fraction of images localized, at each threshold of the map and level of overlap.

    The result is (T, 3), with one column for each of `IOU_LEVELS`. Images count only where
    ``is_right``: the predicted class is the label, or anything, to measure localization alone.
    """
    is_localized = overlaps_NT[..., None] >= np.array(IOU_LEVELS)
    is_localized &= is_right[:, None, None]
    return np.asarray(is_localized.mean(axis=0), dtype=np.float64)


def max_box_accuracy(accuracy_T3: Floats, *, tuned_on: Floats | None = None) -> float:
    """Return MaxBoxAccV2: the accuracy at the best threshold, averaged over `IOU_LEVELS`.

    Thresholds are chosen on ``tuned_on``, the same table of other images with boxes, or without it
    on the images themselves, as the benchmark does, which is optimistic.
    """
    chosen = (accuracy_T3 if tuned_on is None else tuned_on).argmax(axis=0)
    return float(accuracy_T3[chosen, np.arange(len(IOU_LEVELS))].mean())


def last_feature_layer(model: nn.Module, images_BCHW: Tensor) -> str | None:
    """Return the name of the last module that gives a map of features, None if there is none.

    What follows it must be pooled: a network that turns its map into a row of tokens, such as a
    vision transformer, has none. One image is enough; the model is left as it was.
    """
    # Record every module's output in the order of the forward pass.
    order: list[tuple[str, int, bool]] = []
    names = {module: name for name, module in model.named_modules() if name}
    runs = Counter[str]()

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        if isinstance(output, Tensor):
            runs[names[module]] += 1
            has_positions = output.ndim == 4 and output.shape[-2:] != (1, 1)
            order.append((names[module], output.ndim, has_positions))

    handles = [module.register_forward_hook(record) for module in names]
    try:
        with (
            torch.no_grad(),
            without_trace(model, device=images_BCHW.device, statistics=Statistics.RUNNING),
        ):
            model(images_BCHW)
    finally:
        for handle in handles:
            handle.remove()
    # The last map that is made by a module that runs once; a row of tokens (three dimensions) after
    # it takes its positions away.
    last = None
    for name, num_dimensions, has_positions in order:
        if has_positions and runs[name] == 1:
            last = name
        elif num_dimensions == 3:
            last = None
    return last
