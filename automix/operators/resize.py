"""Whole images resized into boxes: a box of its own size for each image, without a loop.

Shape suffixes: N sources, B batch, C channels, H rows, W columns (of source and result).
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from automix.operators.blend import is_channels_last, take

Interpolation = Literal["nearest", "bilinear"]


def resize_into_box(
    images_NCHW: Tensor,
    index_B: Tensor,
    box_B4: Tensor,
    size: tuple[int, int],
    interpolation: Interpolation = "nearest",
) -> Tensor:
    """Return images whose box shows a whole source image; outside the box they mean nothing.

    Args:
        images_NCHW: (N, C, H, W) sources.
        index_B: (B,) int64, source of each image.
        box_B4: (B, 4) int64, (y0, y1, x0, x1).
        size: rows and columns of the result; may differ from the source's.
        interpolation: ``nearest`` shows source row floor(i H / n) in row i of n;
            ``bilinear`` samples at (i + 1/2) H / n - 1/2, clamped, without antialiasing.

    Returns:
        (B, C, *size), in the dtype and memory format of the sources; a copy.
    """
    if interpolation == "bilinear":
        return _bilinear(take(images_NCHW, index_B), box_B4, size)
    return _nearest(images_NCHW, index_B, box_B4, size)


def _nearest(images_NCHW: Tensor, index_B: Tensor, box_B4: Tensor, size: tuple[int, int]) -> Tensor:
    batch, (_, channels, height, width) = index_B.shape[0], images_NCHW.shape
    row_BH = _source_index(box_B4[:, 0:1], box_B4[:, 1:2], height, size[0])
    column_BW = _source_index(box_B4[:, 2:3], box_B4[:, 3:4], width, size[1])
    channel_C = torch.arange(channels, device=index_B.device)
    first_B1 = (index_B * (channels * height * width)).unsqueeze(1)
    # One index into all elements, in 32 bits where they do and without its columns up to the last
    # sum: on a CPU four fifths of the time of copying the sources and gathering from the copies.
    kind = torch.int64 if images_NCHW.numel() >= 2**31 else torch.int32
    if is_channels_last(images_NCHW):
        stored, shape = images_NCHW.permute(0, 2, 3, 1), (batch, *size, channels)
        line_BH = (row_BH * (width * channels) + first_B1).to(kind)
        pixel_BHW = line_BH.unsqueeze(2) + (column_BW * channels).to(kind).unsqueeze(1)
        place = pixel_BHW.unsqueeze(3) + channel_C.to(kind)
    else:
        stored, shape = images_NCHW, (batch, channels, *size)
        line_BH = row_BH * width + first_B1
        line_BCH = line_BH.unsqueeze(1) + (channel_C * (height * width)).unsqueeze(1)
        place = line_BCH.to(kind).unsqueeze(3) + column_BW.to(kind).view(batch, 1, 1, -1)
    shown = stored.flatten().index_select(0, place.flatten()).view(shape)
    return shown.permute(0, 3, 1, 2) if is_channels_last(images_NCHW) else shown


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
