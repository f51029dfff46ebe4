"""Boxes: where a drawn share and centre put them, and the mask they make.

A box is (y0, y1, x0, x1): rows y0 to y1 - 1 and columns x0 to x1 - 1 come from the partner.
Shape suffixes: B batch, H rows, W columns.
"""

from typing import Literal

import torch
from torch import Tensor

BoxRule = Literal["timm", "torchvision", "clovaai"]
"""How an odd side is laid around the centre; the three differ by one row or column."""


def centred_box(
    side_B: Tensor, row_B: Tensor, column_B: Tensor, size: tuple[int, int], rule: BoxRule = "timm"
) -> Tensor:
    """Return boxes around given centres, cut at the border of the image.

    ``timm`` 1.0.31 lays h // 2 rows above the centre and (h + 1) // 2 below, h = int(H side);
    ``clovaai`` (the authors of CutMix, and older timm) lays h // 2 on both sides, so an odd h
    loses a row; ``torchvision`` 0.29 lays int(H side / 2) on both sides.

    Args:
        side_B: (B,) float32 in [0, 1], side of the box as a share of the image's.
        row_B: (B,) int64, centre row.
        column_B: (B,) int64, centre column.
        size: (H, W).
        rule: one of the above.

    Returns:
        (B, 4) int64 boxes; empty ones have y0 = y1 or x0 = x1.
    """
    bounds = []
    for length, centre_B in zip(size, (row_B, column_B), strict=True):
        if rule == "torchvision":
            before_B = after_B = (side_B * (length / 2)).to(torch.int64)
        else:
            whole_B = (side_B * length).to(torch.int64)
            before_B = whole_B // 2
            after_B = whole_B - before_B if rule == "timm" else before_B
        bounds += [(centre_B - before_B).clamp(0, length), (centre_B + after_B).clamp(0, length)]
    return torch.stack(bounds, 1)


def box_mask(box_B4: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the masks of boxes: (B, 1, H, W) float32, 1 inside.

    The outer product of two small masks: comparing every pixel with the box costs six times as
    much on a CPU.
    """
    y0_B1, y1_B1, x0_B1, x1_B1 = box_B4.unsqueeze(2).unbind(1)
    rows_BH, columns_BW = _inside(y0_B1, y1_B1, size[0]), _inside(x0_B1, x1_B1, size[1])
    return rows_BH[:, None, :, None] * columns_BW[:, None, None, :]


def box_lam(box_B4: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the share of the image outside each box, (B,) float32: the label weight ``lam``."""
    y0_B, y1_B, x0_B, x1_B = box_B4.unbind(1)
    return 1 - (y1_B - y0_B) * (x1_B - x0_B) / (size[0] * size[1])


def _inside(low_B1: Tensor, high_B1: Tensor, length: int) -> Tensor:
    position_L = torch.arange(length, device=low_B1.device)
    return ((position_L >= low_B1) & (position_L < high_B1)).to(torch.float32)
