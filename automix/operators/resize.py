"""Whole images resized into boxes: a box of its own size for each image, without a loop.

Shape suffixes: B batch, C channels, H rows, W columns (of the source and of the result).
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from automix.operators.blend import is_channels_last

Interpolation = Literal["nearest", "bilinear"]


def resize_into_box(
    images_BCHW: Tensor,
    box_B4: Tensor,
    size: tuple[int, int],
    interpolation: Interpolation = "nearest",
) -> Tensor:
    """Return images whose box shows the whole source image; outside the box they mean nothing.

    Args:
        images_BCHW: (B, C, H, W) sources.
        box_B4: (B, 4) int64, (y0, y1, x0, x1).
        size: rows and columns of the result; may differ from the source's.
        interpolation: ``nearest`` shows source row floor(i H / n) in row i of n;
            ``bilinear`` samples at (i + 1/2) H / n - 1/2, clamped, without antialiasing.

    Returns:
        (B, C, *size), in the dtype of the sources.
    """
    if interpolation == "bilinear":
        return _bilinear(images_BCHW, box_B4, size)
    return _nearest(images_BCHW, box_B4, size)


def _nearest(images_BCHW: Tensor, box_B4: Tensor, size: tuple[int, int]) -> Tensor:
    batch, channels, height, width = images_BCHW.shape
    row_BH = _source_index(box_B4[:, 0:1], box_B4[:, 1:2], height, size[0])
    column_BW = _source_index(box_B4[:, 2:3], box_B4[:, 3:4], width, size[1])
    pixel_BN = (row_BH.unsqueeze(2) * width + column_BW.unsqueeze(1)).flatten(1)
    # One gather over flat pixels: a third of the time of indexing with rows and columns.
    if is_channels_last(images_BCHW):
        flat_BNC = images_BCHW.permute(0, 2, 3, 1).flatten(1, 2)
        shown_BNC = flat_BNC.gather(1, pixel_BN.unsqueeze(2).expand(-1, -1, channels))
        return shown_BNC.view(batch, *size, channels).permute(0, 3, 1, 2)
    flat_BCN = images_BCHW.flatten(2)
    shown_BCN = flat_BCN.gather(2, pixel_BN.unsqueeze(1).expand(-1, channels, -1))
    return shown_BCN.view(batch, channels, *size)


def _source_index(low_B1: Tensor, high_B1: Tensor, source: int, length: int) -> Tensor:
    position_L = torch.arange(length, device=low_B1.device)
    # An empty box shows nothing, but must not divide by zero.
    span_B1 = (high_B1 - low_B1).clamp(min=1)
    return ((position_L - low_B1) * source // span_B1).clamp(0, source - 1)


def _bilinear(images_BCHW: Tensor, box_B4: Tensor, size: tuple[int, int]) -> Tensor:
    y_BH = _source_position(box_B4[:, 0:1], box_B4[:, 1:2], size[0])
    x_BW = _source_position(box_B4[:, 2:3], box_B4[:, 3:4], size[1])
    shape = (images_BCHW.shape[0], *size)
    grid_BHW2 = torch.stack([x_BW.unsqueeze(1).expand(shape), y_BH.unsqueeze(2).expand(shape)], 3)
    # In half precision a coordinate would be off by half a pixel in a 1000-pixel image.
    shown_BCHW = F.grid_sample(
        images_BCHW.to(torch.float32), grid_BHW2, padding_mode="border", align_corners=False
    )
    return shown_BCHW.to(images_BCHW.dtype)


def _source_position(low_B1: Tensor, high_B1: Tensor, length: int) -> Tensor:
    """Return positions in the source from -1 to 1, edge to edge."""
    position_L = torch.arange(length, device=low_B1.device) + 0.5
    return (position_L - low_B1) * 2 / (high_B1 - low_B1).clamp(min=1) - 1
