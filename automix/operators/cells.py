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
    return _pool_axis(_pool_axis(maps_BHW, 1, grid), 2, grid)


def enlarge_cells(cells_BPP: Tensor, size: tuple[int, int]) -> Tensor:
    """Return each cell's value at its pixels: (B, 1, H, W).

    Rows of cells are widened first and repeated then: a third of the time of copying both at once
    on a CPU. Where the grid does not divide the image, two selections, which take twice as long.
    ``interpolate`` computes cell indices in floating point, which is off by one for some sizes.
    """
    batch, grid, _ = cells_BPP.shape
    height, width = size
    if height % grid == 0 and width % grid == 0:
        wide = cells_BPP.unsqueeze(3).expand(-1, -1, -1, width // grid)
        rows = wide.reshape(batch, grid, 1, width).expand(-1, -1, height // grid, -1)
        return rows.reshape(batch, 1, height, width)
    rows_H = columns_W = _cell_of_pixel(height, cells_BPP)
    if width != height:
        columns_W = _cell_of_pixel(width, cells_BPP)
    return cells_BPP.index_select(2, columns_W).index_select(1, rows_H).unsqueeze(1)


def _cell_of_pixel(length: int, cells_BPP: Tensor) -> Tensor:
    return torch.arange(length, device=cells_BPP.device) * cells_BPP.shape[1] // length


def _pool_axis(maps: Tensor, axis: int, grid: int) -> Tensor:
    """Return the mean of the rows (axis 1) or columns (axis 2) of each cell."""
    length = maps.shape[axis]
    before, after = maps.shape[:axis], maps.shape[axis + 1 :]
    if length % grid == 0:
        return maps.reshape(*before, grid, length // grid, *after).mean(axis + 1)
    # Cells of unequal length: take the pixels of each up to the longest, and weigh the surplus 0.
    # A sum by index would not give the same bits twice on a GPU.
    cell_P1 = torch.arange(grid, device=maps.device).unsqueeze(1)
    first_P1 = -(-cell_P1 * length // grid)
    end_P1 = -(-(cell_P1 + 1) * length // grid)
    pixel_PS = first_P1 + torch.arange(-(-length // grid), device=maps.device)
    weight_PS = (pixel_PS < end_P1).to(maps.dtype) / (end_P1 - first_P1)
    taken = maps.index_select(axis, pixel_PS.clamp(max=length - 1).flatten())
    weighed = taken.view(*before, *pixel_PS.shape, *after) * weight_PS.view(
        *pixel_PS.shape, *[1] * len(after)
    )
    return weighed.sum(axis + 1)


def shares(maps_BHW: Tensor) -> Tensor:
    """Return maps divided by their sum; uniform ones for those that are zero or not finite.

    A map without information counts as uniform, in every operator.

    Args:
        maps_BHW: (B, H, W) or (B, P, P) float32, non-negative.
    """
    total_B11 = maps_BHW.sum((1, 2), keepdim=True)
    is_usable_B11 = (total_B11 > 0) & (total_B11 < torch.inf)
    # Divided by NaN every number becomes NaN, which is replaced in a sixth of the time of
    # selecting from two maps.
    uniform = 1 / (maps_BHW.shape[1] * maps_BHW.shape[2])
    return (maps_BHW / total_B11.where(is_usable_B11, torch.nan)).nan_to_num_(uniform)
