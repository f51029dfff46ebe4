"""Everything that operators share before pixels are blended: checks, draws, boxes, grid cells."""

from typing import Literal

import torch
from torch import Generator, Tensor

# --- Checks ---------------------------------------------------------------------------------------


def check_images(images_BCHW: Tensor, drawn_B: Tensor | None) -> None:
    """Refuse images that cannot be mixed with the drawn parameters, of which ``drawn_B`` is one.

    Raises:
        TypeError: the images are not floating point (uint8 images, say).
        ValueError: the images are not a batch, or not the batch that the draws are for.
    """
    if not images_BCHW.is_floating_point():
        raise TypeError(
            "images: expected a floating point tensor (convert and scale uint8 images first), "
            f"got {images_BCHW.dtype}"
        )
    if images_BCHW.dim() != 4:
        raise ValueError(f"images: expected shape (B, C, H, W), got {tuple(images_BCHW.shape)}")
    if drawn_B is None:
        return
    if images_BCHW.shape[0] != drawn_B.shape[0]:
        raise ValueError(
            f"draws: expected parameters for {images_BCHW.shape[0]} images, got {drawn_B.shape[0]}"
        )
    if images_BCHW.device != drawn_B.device:
        raise ValueError(
            f"draws: expected tensors on {images_BCHW.device}, the device of the images, got "
            f"{drawn_B.device} (the device of the generator)"
        )


def required_saliency(saliency_BHW: Tensor | None, images_BCHW: Tensor) -> Tensor:
    """Return the saliency maps of the images as float32.

    Raises:
        TypeError: the maps are not floating point.
        ValueError: there are no maps, or their shape is not (B, H, W) of the images.
    """
    batch, _, height, width = images_BCHW.shape
    if saliency_BHW is None:
        raise ValueError("saliency: expected maps of shape (B, H, W), got None")
    if tuple(saliency_BHW.shape) != (batch, height, width):
        raise ValueError(
            f"saliency: expected shape {(batch, height, width)}, got {tuple(saliency_BHW.shape)}"
        )
    if not saliency_BHW.is_floating_point():
        raise TypeError(f"saliency: expected a floating point tensor, got {saliency_BHW.dtype}")
    return saliency_BHW.to(torch.float32)


# --- Draws: all from an explicit generator, on its device, without reading a value back -----------

Per = Literal["image", "batch"]
"""Whether a number is drawn for each image or once for the whole batch."""


def draw_partner(batch: int, generator: Generator) -> Tensor:
    """Return a random permutation, (B,) int64; fixed points occur, and one image keeps itself."""
    return torch.randperm(batch, generator=generator, device=generator.device)


def draw_beta(batch: int, alpha: float, generator: Generator, *, per: Per = "image") -> Tensor:
    """Draw from Beta(alpha, alpha): (B,) float32 in [0, 1].

    Below an alpha of 1 values near 0 and 1 are likely, above 1 values near 1/2.
    """
    if not alpha > 0:
        raise ValueError(f"alpha: expected a positive number, got {alpha}")
    count = batch if per == "image" else 1
    # In float32 the two gamma variates underflow together for small alpha (17 % of the draws at
    # 0.01), and their ratio is then 1/2 instead of a number near 0 or 1.
    concentration = torch.full((count, 2), alpha, dtype=torch.float64, device=generator.device)
    # torch.distributions.Beta takes no generator; this is the private function under it. Only this,
    # `draw_beta_each` and `draw_gamma` call private functions, and tests pin what they return.
    lam_N = torch._sample_dirichlet(concentration, generator)[:, 0].to(torch.float32)
    return lam_N.expand(batch)


def draw_beta_each(first_B: Tensor, second_B: Tensor, generator: Generator) -> Tensor:
    """Draw from Beta(first, second) for each image: (B,) float32 in [0, 1]."""
    concentration = torch.stack((first_B, second_B), dim=1).to(torch.float64)
    return torch._sample_dirichlet(concentration, generator)[:, 0].to(torch.float32)


def draw_gamma(batch: int, shape: float, generator: Generator) -> Tensor:
    """Draw from the gamma distribution of scale 1: (B,) float32, positive.

    Divided by their sum, those of any set of images are a draw from Dirichlet(shape, .., shape):
    the smaller the shape, the more unequal.
    """
    if not shape > 0:
        raise ValueError(f"shape: expected a positive number, got {shape}")
    concentration = torch.full((batch,), shape, dtype=torch.float64, device=generator.device)
    gamma_B = torch._standard_gamma(concentration, generator)
    # Below the smallest float32 they would be 0, and a group of zeros divided by its sum NaN.
    return gamma_B.clamp_min(torch.finfo(torch.float32).tiny).to(torch.float32)


def draw_uniform(
    batch: int, generator: Generator, *, low: float = 0.0, high: float = 1.0, per: Per = "image"
) -> Tensor:
    """Draw from [low, high): (B,) float32, one number for each image or the same for all."""
    count = batch if per == "image" else 1
    uniform_N = torch.rand(count, generator=generator, device=generator.device)
    return uniform_N.mul_(high - low).add_(low).expand(batch)


def draw_index(batch: int, size: int, generator: Generator, *, per: Per = "image") -> Tensor:
    """Draw whole numbers from 0 to size - 1: (B,) int64."""
    count = batch if per == "image" else 1
    return torch.randint(size, (count,), generator=generator, device=generator.device).expand(batch)


# --- Boxes: (B, 4) int64, (y0, y1, x0, x1), of which y1 and x1 are the first outside --------------

BoxRule = Literal["timm", "torchvision", "clovaai"]
"""Placement of an odd side around the center; the three differ by one row or column."""


def centered_box(
    side_B: Tensor,
    row_B: Tensor,
    column_B: Tensor,
    size: tuple[int, int],
    rule: BoxRule = "timm",
    *,
    align: int = 1,
) -> Tensor:
    """Return boxes around given centers, cut at the border of the image; some may be empty.

    ``timm`` 1.0.31 lays h // 2 rows above the center and (h + 1) // 2 below, h = int(H side);
    ``clovaai`` (the authors of CutMix, and older timm) lays h // 2 on both sides, so an odd h
    loses a row; ``torchvision`` 0.29 lays int(H side / 2) on both sides.

    ``side_B`` is the side of the box as a fraction of the image's; (row, column) is the center.
    ``align`` is that of `aligned`.

    Raises:
        ValueError: ``align`` does not divide the sides of the image.
    """
    check_align(align, size)
    # Both axes of a square at once: with small batches each operation costs its call.
    if size[0] == size[1]:
        axes = [(size[0], torch.stack((row_B, column_B)))]
    else:
        axes = [(size[0], row_B.unsqueeze(0)), (size[1], column_B.unsqueeze(0))]
    bounds = []
    for length, center_AB in axes:
        if rule == "torchvision":
            before_B = after_B = (side_B * (length / 2)).to(torch.int64)
        else:
            whole_B = (side_B * length).to(torch.int64)
            before_B = whole_B >> 1
            after_B = whole_B - before_B if rule == "timm" else before_B
        low_AB, high_AB = center_AB - before_B, center_AB + after_B
        bounds.append(torch.stack((low_AB, high_AB), 1).clamp_(0, length).flatten(0, 1))
    return aligned(torch.cat(bounds).t().contiguous(), align)


def aligned(pixels: Tensor, align: int) -> Tensor:
    """Round whole numbers of pixels to multiples of ``align``, the nearest or the larger of two.

    Over all places of a box, its sides stay as long as they were on average.

    Examples:
        >>> aligned(torch.tensor([0, 1, 2, 5, 6, 8]), 4).tolist()
        [0, 0, 4, 4, 8, 8]
    """
    return pixels if align == 1 else (pixels + align // 2) // align * align


def check_align(align: int, size: tuple[int, int]) -> None:
    """Refuse patches that do not divide an image.

    Raises:
        ValueError: ``align`` is no divisor of rows and columns.
    """
    if align < 1 or size[0] % align or size[1] % align:
        raise ValueError(f"align: expected a divisor of {size[0]} x {size[1]} pixels, got {align}")


def box_mask(box_B4: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the masks of boxes: (B, 1, H, W) float32, 1 inside."""
    # The outer product of two small masks: comparing every pixel with the box costs six times as
    # much on a CPU.
    if size[0] == size[1]:
        bounds_B221 = box_B4.reshape(-1, 2, 2, 1)
        rows_BH, columns_BW = _inside(bounds_B221[:, :, 0], bounds_B221[:, :, 1], size[0]).unbind(1)
    else:
        y0_B1, y1_B1, x0_B1, x1_B1 = box_B4.unsqueeze(2).unbind(1)
        rows_BH, columns_BW = _inside(y0_B1, y1_B1, size[0]), _inside(x0_B1, x1_B1, size[1])
    return (rows_BH.unsqueeze(2) * columns_BW.unsqueeze(1)).unsqueeze(1)


def _inside(low_B1: Tensor, high_B1: Tensor, length: int) -> Tensor:
    position_L = torch.arange(length, device=low_B1.device)
    return ((position_L >= low_B1) & (position_L < high_B1)).to(torch.float32)


def box_lam(box_B4: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the fraction of the image outside each box, (B,) float32: the label weight ``lam``."""
    y0_B, y1_B, x0_B, x1_B = box_B4.unbind(1)
    return 1 - (y1_B - y0_B) * (x1_B - x0_B) / (size[0] * size[1])


# --- Cells: pixel y of H belongs to cell y * P // H, so every size works with every grid ----------


def unit_sum(maps_BHW: Tensor) -> Tensor:
    """Return non-negative maps divided by their sum; uniform where that is 0 or not finite."""
    # A map without information counts as uniform, in every operator.
    total_B11 = maps_BHW.sum((1, 2), keepdim=True)
    is_usable_B11 = (total_B11 > 0) & (total_B11 < torch.inf)
    # Divided by NaN every number becomes NaN, which is replaced in a sixth of the time of
    # selecting from two maps.
    uniform = 1 / (maps_BHW.shape[1] * maps_BHW.shape[2])
    return (maps_BHW / total_B11.where(is_usable_B11, torch.nan)).nan_to_num_(uniform)


def pool_cells(maps_BHW: Tensor, grid: int | tuple[int, int]) -> Tensor:
    """Return the mean of each cell of a grid of P x P, or of so many rows and columns: (B, P, P).

    Raises:
        ValueError: the image has fewer rows or columns than the grid.
    """
    rows, columns = (grid, grid) if isinstance(grid, int) else grid
    height, width = maps_BHW.shape[1:]
    if not (1 <= rows <= height and 1 <= columns <= width):
        raise ValueError(
            f"grid: expected 1 to {min(height, width)} cells along a side for images of "
            f"{height} x {width}, got {grid}"
        )
    return _pool_axis(_pool_axis(maps_BHW, 1, rows), 2, columns)


def _pool_axis(maps: Tensor, axis: int, grid: int) -> Tensor:
    """Return the mean of the rows (axis 1) or columns (axis 2) of each cell."""
    length = maps.shape[axis]
    before, after = maps.shape[:axis], maps.shape[axis + 1 :]
    if length % grid == 0:
        return maps.reshape(*before, grid, length // grid, *after).mean(axis + 1)
    # Cells of unequal length: take the S pixels of each up to the longest, and weigh the surplus
    # 0. A sum by index would not give the same bits twice on a GPU.
    cell_P1 = torch.arange(grid, device=maps.device).unsqueeze(1)
    first_P1 = -(-cell_P1 * length // grid)
    end_P1 = -(-(cell_P1 + 1) * length // grid)
    pixel_PS = first_P1 + torch.arange(-(-length // grid), device=maps.device)
    weight_PS = (pixel_PS < end_P1).to(maps.dtype) / (end_P1 - first_P1)
    pixels = maps.index_select(axis, pixel_PS.clamp(max=length - 1).flatten())
    weighed = pixels.view(*before, *pixel_PS.shape, *after) * weight_PS.view(
        *pixel_PS.shape, *[1] * len(after)
    )
    return weighed.sum(axis + 1)


def enlarge_cells(cells_BPP: Tensor, size: tuple[int, int]) -> Tensor:
    """Return each cell's value at its pixels: (B, 1, H, W)."""
    batch, grid, _ = cells_BPP.shape
    height, width = size
    # Rows of cells are widened first and repeated then: a third of the time of copying both at
    # once on a CPU. Where the grid does not divide the image, two selections, which take twice as
    # long. (`interpolate` computes cell indices in floating point: off by one for some sizes.)
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
