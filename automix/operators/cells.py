"""Grids of cells over an image, whatever its size.

Pixel y of H belongs to cell y * P // H, so the cells of a grid that does not divide the image
differ by one row or column. Pooling and enlarging use the same cells: what is pooled from a cell
is what the cell's mask covers.

Shape suffixes: B batch, H rows, W columns, P grid side.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def pool_cells(maps_BHW: Tensor, grid: int) -> Tensor:
    """Return the mean of each cell: (B, P, P).

    Args:
        maps_BHW: (B, H, W) floating point.
        grid: P, cells along a side.

    Raises:
        ValueError: the image has fewer rows or columns than the grid.
    """
    height, width = maps_BHW.shape[1:]
    if not 1 <= grid <= min(height, width):
        raise ValueError(
            f"grid: expected 1 to {min(height, width)} cells along a side for images of "
            f"{height} x {width}, got {grid}"
        )
    if height % grid == 0 and width % grid == 0:
        return F.avg_pool2d(maps_BHW.unsqueeze(1), (height // grid, width // grid)).squeeze(1)
    rows_PH = _membership(height, grid, maps_BHW)
    columns_PW = _membership(width, grid, maps_BHW)
    return rows_PH @ maps_BHW @ columns_PW.T


def enlarge_cells(cells_BPP: Tensor, size: tuple[int, int]) -> Tensor:
    """Return each cell's value at its pixels: (B, 1, H, W)."""
    height, width = size
    batch, grid = cells_BPP.shape[:2]
    if height % grid == 0 and width % grid == 0:
        shape = (batch, grid, height // grid, grid, width // grid)
        return cells_BPP[:, :, None, :, None].expand(shape).reshape(batch, 1, height, width)
    rows_H = _cell_of_pixel(height, grid, cells_BPP.device)
    columns_W = _cell_of_pixel(width, grid, cells_BPP.device)
    return cells_BPP.index_select(1, rows_H).index_select(2, columns_W).unsqueeze(1)


def _cell_of_pixel(length: int, grid: int, device: torch.device) -> Tensor:
    return torch.arange(length, device=device) * grid // length


def _membership(length: int, grid: int, like: Tensor) -> Tensor:
    """Return (P, length) weights that average the pixels of each cell."""
    cell_L = _cell_of_pixel(length, grid, like.device)
    member_PL = (cell_L == torch.arange(grid, device=like.device).unsqueeze(1)).to(like.dtype)
    return member_PL / member_PL.sum(1, keepdim=True)


def usable(maps_BPP: Tensor) -> Tensor:
    """Return the maps, with those that are zero or not finite replaced by ones.

    A map without information counts as uniform, in every operator.

    Args:
        maps_BPP: (B, H, W) or (B, P, P) float32, non-negative.
    """
    total_B11 = maps_BPP.sum((1, 2), keepdim=True)
    is_usable_B11 = (total_B11 > 0) & total_B11.isfinite()
    return maps_BPP.where(is_usable_B11, torch.ones_like(total_B11))
