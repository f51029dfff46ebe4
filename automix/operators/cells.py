"""Grids of cells over an image, whatever its size.

Pixel y of H belongs to cell y * P // H, so the cells of a grid that does not divide the image
differ by one row or column. Pooling and enlarging use the same cells: what is pooled from a cell
is what the cell's mask covers.

Shape suffixes: B batch, H rows, W columns, P grid side, S pixels along a side of a cell.
"""

import torch
from torch import Tensor


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
    rows_BWP = _pool_rows(maps_BHW, grid).transpose(1, 2)
    return _pool_rows(rows_BWP, grid).transpose(1, 2)


def enlarge_cells(cells_BPP: Tensor, size: tuple[int, int]) -> Tensor:
    """Return each cell's value at its pixels: (B, 1, H, W).

    Two selections: three times as fast on a CPU as expanding the cells and copying, and for any
    size. ``interpolate`` computes cell indices in floating point, which is off by one for some.
    """
    grid = cells_BPP.shape[1]
    rows_H, columns_W = (
        torch.arange(length, device=cells_BPP.device) * grid // length for length in size
    )
    return cells_BPP.index_select(2, columns_W).index_select(1, rows_H).unsqueeze(1)


def _pool_rows(maps_BHW: Tensor, grid: int) -> Tensor:
    """Return the mean of the rows of each cell: (B, P, W)."""
    batch, height, width = maps_BHW.shape
    if height % grid == 0:
        return maps_BHW.reshape(batch, grid, height // grid, width).mean(2)
    # Cells of unequal height: take the rows of each up to the largest, and weigh the surplus 0.
    # A sum by index would not give the same bits twice on a GPU.
    cell_P1 = torch.arange(grid, device=maps_BHW.device).unsqueeze(1)
    first_P1 = -(-cell_P1 * height // grid)
    end_P1 = -(-(cell_P1 + 1) * height // grid)
    row_PS = first_P1 + torch.arange(-(-height // grid), device=maps_BHW.device)
    weight_PS = (row_PS < end_P1).to(maps_BHW.dtype) / (end_P1 - first_P1)
    rows_BPSW = maps_BHW.index_select(1, row_PS.clamp(max=height - 1).flatten())
    rows_BPSW = rows_BPSW.view(batch, *row_PS.shape, width) * weight_PS.unsqueeze(2)
    return rows_BPSW.sum(2)


def usable(maps_BHW: Tensor) -> Tensor:
    """Return the maps, with those that are zero or not finite replaced by ones.

    A map without information counts as uniform, in every operator.

    Args:
        maps_BHW: (B, H, W) or (B, P, P) float32, non-negative.
    """
    total_B11 = maps_BHW.sum((1, 2), keepdim=True)
    is_usable_B11 = (total_B11 > 0) & total_B11.isfinite()
    return maps_BHW.where(is_usable_B11, torch.ones_like(total_B11))


def shares(maps_BHW: Tensor) -> Tensor:
    """Return usable maps divided by their sum."""
    maps_BHW = usable(maps_BHW)
    return maps_BHW / maps_BHW.sum((1, 2), keepdim=True)
