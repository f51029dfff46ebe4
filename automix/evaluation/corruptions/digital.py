"""Corruptions by contrast, distortion and resolution.

Shape suffixes: B batch, C channels, H rows, W columns.
"""

import torch
from torch import Tensor

from automix.evaluation.corruptions.linear import (
    box_resize,
    gaussian_blur,
    reference_pixels,
    sample_bilinearly,
)
from automix.evaluation.counter_random import SampleRandom


def contrast(images_BCHW: Tensor, random: SampleRandom, factor: float) -> Tensor:
    """Move every value towards the mean of its channel, to ``factor`` of its distance."""
    del random  # the same for every image
    mean = images_BCHW.mean(dim=(2, 3), keepdim=True)
    return (images_BCHW - mean) * factor + mean


def elastic_transform(
    images_BCHW: Tensor, random: SampleRandom, amount: float, sigma: float, jitter: float
) -> Tensor:
    """Distort by a random affine map and a smooth random field.

    Args:
        images_BCHW: in [0, 1]; mirrored outside.
        random: draws the map and the field.
        amount: uniform displacements of at most this many pixels are smoothed ...
        sigma: ... by a Gaussian of this width.
        jitter: three points at a third of the image around its centre move by at most this many
            pixels in each direction, and the plane with them.
    """
    batch, _, height, width = images_BCHW.shape
    scale = reference_pixels(height, width)
    field = 2 * random.uniform("field", (2, height, width)) - 1
    field = gaussian_blur(field, sigma * scale, boundary="symmetric", truncate=3) * amount * scale
    corners = (2 * random.uniform("corners", (3, 2)) - 1) * jitter * scale
    rows = torch.arange(height, device=images_BCHW.device).view(1, -1, 1)
    columns = torch.arange(width, device=images_BCHW.device).view(1, 1, -1)
    arm = max(1, min(height, width) // 3)
    # Coordinates in which the three points are (1, 1), (1, -1) and (-1, -1).
    v = (rows - height // 2) / arm
    u = (columns - width // 2) / arm
    weights = (1 + u) / 2, (v - u) / 2, (1 - v) / 2
    moves_B2HW = field
    for point, weight in enumerate(weights):
        moves_B2HW = moves_B2HW + corners[:, point].view(batch, 2, 1, 1) * weight
    return sample_bilinearly(images_BCHW, rows + moves_B2HW[:, 0], columns + moves_B2HW[:, 1])


def pixelate(images_BCHW: Tensor, random: SampleRandom, factor: float) -> Tensor:
    """Shrink to ``factor`` of the size by areas, and enlarge again."""
    del random  # the same for every image
    height, width = images_BCHW.shape[-2:]
    rows, columns = max(1, int(height * factor)), max(1, int(width * factor))
    small = box_resize(images_BCHW, rows, columns)
    return small[..., _nearest(rows, height, small)[:, None], _nearest(columns, width, small)]


def _nearest(length: int, new_length: int, like: Tensor) -> Tensor:
    """Return for each new position the old pixel that its centre lies in."""
    positions = torch.arange(new_length, device=like.device)
    return (2 * positions + 1) * length // (2 * new_length)
