"""Linear maps of images that act on rows and columns separately, as small matrices.

A blur or a resize of 1,000 small images is then two matrix products. Shape suffixes: B batch,
C channels, H rows, W columns, L length of one side, T taps.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Boundary = Literal["nearest", "symmetric"]


def apply_separably(images_BCHW: Tensor, rows_HH: Tensor, columns_WW: Tensor) -> Tensor:
    """Return rows @ image @ columns^T for every channel."""
    return rows_HH @ images_BCHW @ columns_WW.T


def gaussian_blur(
    images_BCHW: Tensor, sigma: float, *, boundary: Boundary = "nearest", truncate: float = 4.0
) -> Tensor:
    """Return images blurred with a Gaussian of ``sigma`` pixels, cut at ``truncate`` sigmas.

    Outside, "nearest" repeats the edge pixel and "symmetric" mirrors with the edge pixel twice.
    """
    radius = int(truncate * sigma + 0.5)
    if radius == 0:
        return images_BCHW
    offsets = torch.arange(-radius, radius + 1, device=images_BCHW.device)
    weights = torch.exp(-0.5 * (offsets / sigma).square())
    weights = (weights / weights.sum()).to(images_BCHW.dtype)
    height, width = images_BCHW.shape[-2:]
    return apply_separably(
        images_BCHW,
        _filter_matrix(height, offsets, weights, boundary),
        _filter_matrix(width, offsets, weights, boundary),
    )


def zoom(images_BCHW: Tensor, factor: float) -> Tensor:
    """Return images magnified about their centre by ``factor`` >= 1, bilinearly, same size."""
    height, width = images_BCHW.shape[-2:]
    return apply_separably(
        images_BCHW,
        _zoom_matrix(height, factor, images_BCHW),
        _zoom_matrix(width, factor, images_BCHW),
    )


def box_resize(images_BCHW: Tensor, height: int, width: int) -> Tensor:
    """Return images of another size, each pixel the mean of the area that it covers."""
    rows, columns = images_BCHW.shape[-2:]
    return apply_separably(
        images_BCHW,
        _overlap_matrix(rows, height, images_BCHW),
        _overlap_matrix(columns, width, images_BCHW),
    )


def convolve(images_BCHW: Tensor, kernel_TT: Tensor) -> Tensor:
    """Return images convolved with one odd square kernel, mirrored outside without the edge."""
    batch, channels, height, width = images_BCHW.shape
    radius = kernel_TT.shape[0] // 2
    rows = mirrored(torch.arange(-radius, height + radius, device=kernel_TT.device), height)
    columns = mirrored(torch.arange(-radius, width + radius, device=kernel_TT.device), width)
    padded = images_BCHW[..., rows[:, None], columns]
    flat = padded.view(batch * channels, 1, *padded.shape[-2:])
    return F.conv2d(flat, kernel_TT[None, None]).view(images_BCHW.shape)


def mirrored(positions: Tensor, length: int) -> Tensor:
    """Return integer positions folded into [0, length): c b | a b c | b a."""
    if length == 1:
        return torch.zeros_like(positions)
    period = 2 * (length - 1)
    folded = positions % period
    return torch.minimum(folded, period - folded)


def sample_bilinearly(images_BCHW: Tensor, rows_BHW: Tensor, columns_BHW: Tensor) -> Tensor:
    """Return images read at fractional positions, mirrored outside.

    Args:
        images_BCHW: floating.
        rows_BHW: row positions in pixels, 0 at the centre of the first pixel.
        columns_BHW: column positions in pixels.
    """
    height, width = images_BCHW.shape[-2:]
    # grid_sample wants (x, y) in [-1, 1]; a side of one pixel has no extent.
    grid = torch.stack(
        (
            columns_BHW * (2 / max(width - 1, 1)) - 1,
            rows_BHW * (2 / max(height - 1, 1)) - 1,
        ),
        dim=-1,
    )
    return F.grid_sample(images_BCHW, grid, padding_mode="reflection", align_corners=True)


def _filter_matrix(length: int, offsets_T: Tensor, weights_T: Tensor, boundary: Boundary) -> Tensor:
    """Return (L, L): each row holds the weights around one position."""
    positions_LT = torch.arange(length, device=offsets_T.device)[:, None] + offsets_T
    if boundary == "nearest":
        sources_LT = positions_LT.clamp(0, length - 1)
    else:
        folded = positions_LT % (2 * length)
        sources_LT = torch.minimum(folded, 2 * length - 1 - folded)
    one_hot = F.one_hot(sources_LT, length).to(weights_T.dtype)
    return (one_hot * weights_T[:, None]).sum(dim=1)


def _zoom_matrix(length: int, factor: float, like: Tensor) -> Tensor:
    positions = torch.arange(length, dtype=like.dtype, device=like.device)
    centre = (length - 1) / 2
    sources_L = centre + (positions - centre) / factor
    # Triangle weights are bilinear interpolation; the sources lie inside for factors >= 1.
    return (1 - (sources_L[:, None] - positions).abs()).clamp(min=0)


def _overlap_matrix(length: int, new_length: int, like: Tensor) -> Tensor:
    """Return (new L, L): the share of each old pixel in each new one; rows sum to 1."""
    cell = length / new_length
    low = torch.arange(new_length, dtype=torch.float64)[:, None] * cell
    edges = torch.arange(length, dtype=torch.float64)
    overlap = torch.minimum(low + cell, edges + 1) - torch.maximum(low, edges)
    return (overlap.clamp(min=0) / cell).to(like)


def reference_pixels(height: int, width: int) -> float:
    """Return by how much lengths given for 32-pixel images grow on images of this size.

    The published lengths are for 32 pixels. They grow with the shorter side and never shrink: a
    blur of a quarter of a pixel would be no corruption.
    """
    return max(1.0, min(height, width) / 32)
