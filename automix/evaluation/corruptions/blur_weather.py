"""Blur and weather corruptions of ImageNet-C, and the linear filters they need.

Every corruption takes images in [0, 1], the draws of each image, and the parameters of a severity.
Lengths are in pixels of a 32-pixel image; `reference_pixels` scales them.

Shape suffixes: B batch, C channels, H rows, W columns, L length of one side, T taps, S side of a
square map.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from automix.evaluation.counter_random import SampleRandom

Boundary = Literal["nearest", "symmetric"]

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in the published script
_FROST_TINT = (0.86, 0.94, 1.0)
_FROST_DECAY = 1.6
_SUBPIXELS = 8


def defocus_blur(
    images_BCHW: Tensor, random: SampleRandom, radius: float, softening: float
) -> Tensor:
    """Convolve with a disk of ``radius``, itself blurred by a Gaussian of ``softening``."""
    del random  # the same for every image
    scale = reference_pixels(*images_BCHW.shape[-2:])
    # The disk on a finer lattice, 8 points per pixel along each axis.
    reach = math.ceil(radius * scale) + math.ceil(softening * scale)
    fine = torch.arange((2 * reach + 1) * _SUBPIXELS, device=images_BCHW.device)
    fine = (fine + 0.5) / _SUBPIXELS - reach - 0.5
    is_inside = fine.square() + fine[:, None].square() <= (radius * scale) ** 2
    # The fraction of each pixel inside: a hard edge would make the blur grow in jumps.
    disk = F.avg_pool2d(is_inside[None, None].to(images_BCHW.dtype), _SUBPIXELS)
    offsets = torch.arange(-reach, reach + 1, dtype=disk.dtype, device=disk.device)
    soft = torch.exp(-0.5 * (offsets / (softening * scale)).square())
    kernel = convolve(disk, torch.outer(soft, soft))[0, 0]
    return convolve(images_BCHW, kernel / kernel.sum())


def glass_blur(
    images_BCHW: Tensor, random: SampleRandom, sigma: float, probability: float, num_rounds: int
) -> Tensor:
    """Blur, shuffle locally ``num_rounds`` times, blur again.

    In a round, each pixel takes the value of a random neighbor (or keeps its own) with
    ``probability``. The published version swaps pixels one after the other.
    """
    batch, channels, height, width = images_BCHW.shape
    scale = reference_pixels(height, width)
    reach = round(scale)
    images = gaussian_blur(images_BCHW, sigma * scale)
    rows = torch.arange(height, device=images.device)[:, None]
    columns = torch.arange(width, device=images.device)
    for step in range(num_rounds):
        moves = random.integers(f"move {step}", (2, height, width), high=2 * reach + 1) - reach
        moves = moves * (random.uniform(f"is moved {step}", (1, height, width)) < probability)
        source_rows = (rows + moves[:, 0]).clamp(0, height - 1)
        source_columns = (columns + moves[:, 1]).clamp(0, width - 1)
        sources = (source_rows * width + source_columns).view(batch, 1, -1)
        taken = images.flatten(2).gather(2, sources.expand(-1, channels, -1))
        images = taken.view(images.shape)
    return gaussian_blur(images, sigma * scale)


def motion_blur(images_BCHW: Tensor, random: SampleRandom, sigma: float) -> Tensor:
    """Smear along a line at an angle of -45 to 45 degrees, drawn per image."""
    angles = (random.uniform("angle") - 0.5) * (math.pi / 2)
    return directional_blur(images_BCHW, angles, sigma=sigma)


def zoom_blur(images_BCHW: Tensor, random: SampleRandom, largest: float) -> Tensor:
    """Average magnifications from 1 to ``largest`` in steps of 0.01, with the image once more."""
    del random  # the same for every image
    num_steps = round((largest - 1) / 0.01)
    total = images_BCHW.clone()
    for step in range(num_steps + 1):
        total += zoom(images_BCHW, 1 + 0.01 * step)
    return total / (num_steps + 2)


def snow(
    images_BCHW: Tensor,
    random: SampleRandom,
    mean: float,
    threshold: float,
    sigma: float,
    fraction: float,
) -> Tensor:
    """Whiten, then add flakes that fall at 45 to 135 degrees, and the same upside down.

    ``mean`` is that of the normal map that flakes are made of, which has none below ``threshold``;
    ``sigma`` is their length, ``fraction`` the part of the image that is not whitened.
    """
    # Rare large values of a normal map are flakes, magnified and drawn out along their fall.
    height, width = images_BCHW.shape[-2:]
    flakes = mean + 0.3 * random.normal("flakes", (1, height, width))
    flakes = zoom(flakes, 1.5)
    flakes = torch.where(flakes < threshold, 0.0, flakes).clamp(max=1)
    angles = -math.pi / 4 - random.uniform("angle") * (math.pi / 2)
    flakes = directional_blur(flakes, angles, sigma=sigma)
    # The light of a snowy day: bright gray wherever the image is darker.
    whitened = torch.maximum(images_BCHW, _gray(images_BCHW) * 1.5 + 0.5)
    images = fraction * images_BCHW + (1 - fraction) * whitened
    return images + flakes + flakes.flip(2, 3)


def frost(images_BCHW: Tensor, random: SampleRandom, fraction: float, amount: float) -> Tensor:
    """Add ``amount`` of a map of ice needles to a ``fraction`` of the image.

    The published version blends photographs of frost; ours is a ridged fractal of similar
    brightness, tinted blue on color images.
    """
    # The folded middle values of a fractal are thin ridges; the product of two has crossings.
    height, width = images_BCHW.shape[-2:]
    ridges = [
        1 - (2 * plasma(random, name, height, width, decay=_FROST_DECAY) - 1).abs()
        for name in ("frost 1", "frost 2")
    ]
    ice = 0.3 + 0.7 * ridges[0] * ridges[1]
    if images_BCHW.shape[1] == len(_FROST_TINT):
        ice = ice * ice.new_tensor(_FROST_TINT).view(1, -1, 1, 1)
    return fraction * images_BCHW + amount * ice


def fog(images_BCHW: Tensor, random: SampleRandom, amount: float, decay: float) -> Tensor:
    """Add ``amount`` of a fractal map and scale back to the largest value of each image."""
    height, width = images_BCHW.shape[-2:]
    foggy = images_BCHW + amount * plasma(random, "fog", height, width, decay=decay)
    largest = images_BCHW.amax(dim=(1, 2, 3), keepdim=True)
    return foggy * (largest / (largest + amount))


def brightness(images_BCHW: Tensor, random: SampleRandom, amount: float) -> Tensor:
    """Add ``amount`` to the value of HSV, at most to 1: hue and saturation stay."""
    del random  # the same for every image
    value = images_BCHW.amax(dim=1, keepdim=True)
    brighter = (value + amount).clamp(max=1)
    # Scaling a color keeps hue and saturation; black has none and becomes gray.
    scaled = images_BCHW * (brighter / value.clamp(min=1e-6))
    return torch.where(value > 0, scaled, brighter)


def _gray(images_BCHW: Tensor) -> Tensor:
    """Return (B, 1, H, W): luma of color images, the mean of other numbers of channels."""
    if images_BCHW.shape[1] != len(_LUMA):
        return images_BCHW.mean(dim=1, keepdim=True)
    weights = images_BCHW.new_tensor(_LUMA).view(1, -1, 1, 1)
    return (images_BCHW * weights).sum(dim=1, keepdim=True)


def plasma(random: SampleRandom, name: str, height: int, width: int, *, decay: float) -> Tensor:
    """Return (B, 1, H, W) fractal maps from 0 to 1 by the diamond-square algorithm, on a torus.

    ``name`` names the draws. The displacement falls by the square of ``decay`` from level to level;
    smaller is rougher.
    """
    side = 1 << max(1, math.ceil(math.log2(max(height, width))))
    map_BSS = torch.zeros(len(random.indices), side, side, device=random.indices.device)
    draws = 2 * random.uniform(name, (side, side)) - 1
    # From the whole map to single pixels: each round halves the lattice.
    step, amplitude = side, 1.0
    while step >= 2:
        half = step // 2
        # Diamond step: the center of each square is the mean of its corners, displaced.
        corners = map_BSS[:, ::step, ::step]
        below = corners.roll(-1, 1)
        squares = (corners + below + corners.roll(-1, 2) + below.roll(-1, 2)) / 4
        map_BSS[:, half::step, half::step] = squares + amplitude * draws[:, half::step, half::step]
        # Square step: the middle of each edge is the mean of its two ends and two centers.
        centers = map_BSS[:, half::step, half::step]
        across = (centers + centers.roll(1, 1) + corners + corners.roll(-1, 2)) / 4
        map_BSS[:, ::step, half::step] = across + amplitude * draws[:, ::step, half::step]
        down = (centers + centers.roll(1, 2) + corners + corners.roll(-1, 1)) / 4
        map_BSS[:, half::step, ::step] = down + amplitude * draws[:, half::step, ::step]
        step, amplitude = half, amplitude / decay**2
    low, high = map_BSS.amin(dim=(1, 2), keepdim=True), map_BSS.amax(dim=(1, 2), keepdim=True)
    return ((map_BSS - low) / (high - low))[:, None, :height, :width]


def reference_pixels(height: int, width: int) -> float:
    """Return by how much lengths given for 32-pixel images grow on images of this size."""
    # They grow with the shorter side and never shrink: a blur of a quarter of a pixel would be no
    # corruption.
    return max(1.0, min(height, width) / 32)


def directional_blur(images_BCHW: Tensor, angles_B: Tensor, *, sigma: float) -> Tensor:
    """Average along one direction with one-sided Gaussian weights, in steps of a pixel.

    Angles are in radians, 0 along the rows; the edge pixel is repeated outside.
    """
    sigma *= reference_pixels(*images_BCHW.shape[-2:])
    # Weights beyond three sigmas are below 1.2% of the first.
    weights = [math.exp(-0.5 * (tap / sigma) ** 2) for tap in range(math.ceil(3 * sigma) + 1)]
    total = torch.zeros_like(images_BCHW)
    for tap, weight in enumerate(weights):
        # Down, then to the right: bilinear interpolation one dimension at a time.
        shifted = _shifted(images_BCHW, tap * angles_B.sin(), 2)
        shifted = _shifted(shifted, tap * angles_B.cos(), 3)
        total += shifted * (weight / sum(weights))
    return total


def _shifted(images_BCHW: Tensor, shift_B: Tensor, dim: int) -> Tensor:
    """Return images read ``shift`` pixels further along one dimension, linearly."""
    length = images_BCHW.shape[dim]
    whole_B = shift_B.floor()
    positions_BL = torch.arange(length, device=shift_B.device) + whole_B.long()[:, None]
    part = (shift_B - whole_B).view(-1, 1, 1, 1)
    near, far = (
        images_BCHW.gather(dim, _spread(index.clamp(0, length - 1), images_BCHW, dim))
        for index in (positions_BL, positions_BL + 1)
    )
    return near + part * (far - near)


def _spread(positions_BL: Tensor, images_BCHW: Tensor, dim: int) -> Tensor:
    """Return the positions along ``dim`` repeated over all other dimensions."""
    view = [len(positions_BL), 1, 1, 1]
    view[dim] = positions_BL.shape[1]
    return positions_BL.view(view).expand(images_BCHW.shape)


def gaussian_blur(
    images_BCHW: Tensor, sigma: float, *, boundary: Boundary = "nearest", truncate: float = 4.0
) -> Tensor:
    """Return images blurred with a Gaussian of ``sigma`` pixels, cut at ``truncate`` sigmas.

    Outside, "nearest" repeats the edge pixel and "symmetric" mirrors with the edge pixel twice.
    """
    # A product with one matrix per side: the same on every device, and exact at the border.
    radius = int(truncate * sigma + 0.5)
    if radius == 0:
        return images_BCHW
    offsets = torch.arange(-radius, radius + 1, device=images_BCHW.device)
    weights = torch.exp(-0.5 * (offsets / sigma).square())
    weights = (weights / weights.sum()).to(images_BCHW.dtype)
    rows_HH, columns_WW = (
        _filter_matrix(length, offsets, weights, boundary) for length in images_BCHW.shape[-2:]
    )
    return rows_HH @ images_BCHW @ columns_WW.T


def zoom(images_BCHW: Tensor, factor: float) -> Tensor:
    """Return images magnified about their center by ``factor`` >= 1, bilinearly, same size."""
    rows_HH, columns_WW = (
        _zoom_matrix(length, factor, images_BCHW) for length in images_BCHW.shape[-2:]
    )
    return rows_HH @ images_BCHW @ columns_WW.T


def box_resize(images_BCHW: Tensor, height: int, width: int) -> Tensor:
    """Return images of another size, each pixel the mean of the area that it covers."""
    rows = _overlap_matrix(images_BCHW.shape[2], height, images_BCHW)
    columns = _overlap_matrix(images_BCHW.shape[3], width, images_BCHW)
    return rows @ images_BCHW @ columns.T


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
    """Return images read at positions in pixels (0: center of the first), mirrored outside."""
    height, width = images_BCHW.shape[-2:]
    # grid_sample wants (x, y) in [-1, 1]; a side of one pixel has no extent.
    x_BHW = columns_BHW * (2 / max(width - 1, 1)) - 1
    y_BHW = rows_BHW * (2 / max(height - 1, 1)) - 1
    grid = torch.stack((x_BHW, y_BHW), dim=-1)
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
    center = (length - 1) / 2
    sources_L = center + (positions - center) / factor
    # Triangle weights are bilinear interpolation; the sources lie inside for factors >= 1.
    return (1 - (sources_L[:, None] - positions).abs()).clamp(min=0)


def _overlap_matrix(length: int, new_length: int, like: Tensor) -> Tensor:
    """Return (new L, L): the fraction of each old pixel in each new one; rows sum to 1."""
    cell = length / new_length
    low = torch.arange(new_length, dtype=torch.float64)[:, None] * cell
    edges = torch.arange(length, dtype=torch.float64)
    overlap = torch.minimum(low + cell, edges + 1) - torch.maximum(low, edges)
    return (overlap.clamp(min=0) / cell).to(like)
