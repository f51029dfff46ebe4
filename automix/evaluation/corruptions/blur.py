"""Corruptions by blur. Lengths are for 32-pixel images and grow with the image.

Shape suffixes: B batch, C channels, H rows, W columns, T taps.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from automix.evaluation.corruptions.linear import (
    convolve,
    gaussian_blur,
    reference_pixels,
    zoom,
)
from automix.evaluation.counter_random import SampleRandom

_SUBPIXELS = 8


def defocus_blur(
    images_BCHW: Tensor, random: SampleRandom, radius: float, softening: float
) -> Tensor:
    """Convolve with a disk of ``radius``, itself blurred by a Gaussian of ``softening``."""
    del random  # the same for every image
    scale = reference_pixels(*images_BCHW.shape[-2:])
    reach = math.ceil(radius * scale) + math.ceil(softening * scale)
    fine = torch.arange((2 * reach + 1) * _SUBPIXELS, device=images_BCHW.device)
    fine = (fine + 0.5) / _SUBPIXELS - reach - 0.5
    is_inside = fine.square() + fine[:, None].square() <= (radius * scale) ** 2
    # The share of each pixel inside: a hard edge would make the blur grow in jumps.
    disk = F.avg_pool2d(is_inside[None, None].to(images_BCHW.dtype), _SUBPIXELS)
    offsets = torch.arange(-reach, reach + 1, dtype=disk.dtype, device=disk.device)
    soft = torch.exp(-0.5 * (offsets / (softening * scale)).square())
    kernel = convolve(disk, torch.outer(soft, soft))[0, 0]
    return convolve(images_BCHW, kernel / kernel.sum())


def glass_blur(
    images_BCHW: Tensor, random: SampleRandom, sigma: float, share: float, num_rounds: int
) -> Tensor:
    """Blur, shuffle locally ``num_rounds`` times, blur again.

    In a round, each pixel takes the value of a random neighbour (or keeps its own) with
    probability ``share``. The published version swaps pixels one after the other.
    """
    batch, channels, height, width = images_BCHW.shape
    scale = reference_pixels(height, width)
    reach = round(scale)
    images = gaussian_blur(images_BCHW, sigma * scale)
    rows = torch.arange(height, device=images.device)[:, None]
    columns = torch.arange(width, device=images.device)
    for step in range(num_rounds):
        moves = random.integers(f"move {step}", (2, height, width), high=2 * reach + 1) - reach
        moves = moves * (random.uniform(f"is moved {step}", (1, height, width)) < share)
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


def directional_blur(images_BCHW: Tensor, angles_B: Tensor, *, sigma: float) -> Tensor:
    """Average along one direction with one-sided Gaussian weights, in steps of a pixel.

    Args:
        images_BCHW: floating; the edge pixel is repeated outside.
        angles_B: direction of each image in radians, 0 along the rows.
        sigma: of the weights, in pixels of a 32-pixel image.
    """
    sigma *= reference_pixels(*images_BCHW.shape[-2:])
    # Weights beyond three sigmas are below 1.2% of the first.
    weights = [math.exp(-0.5 * (tap / sigma) ** 2) for tap in range(math.ceil(3 * sigma) + 1)]
    total = torch.zeros_like(images_BCHW)
    for tap, weight in enumerate(weights):
        shifted = _shifted(images_BCHW, tap * angles_B.sin(), tap * angles_B.cos())
        total += shifted * (weight / sum(weights))
    return total


def _shifted(images_BCHW: Tensor, down_B: Tensor, right_B: Tensor) -> Tensor:
    """Return images read ``down`` rows and ``right`` columns further, bilinearly."""
    height, width = images_BCHW.shape[-2:]
    images = _along(images_BCHW, down_B, height, 2)
    return _along(images, right_B, width, 3)


def _along(images_BCHW: Tensor, shift_B: Tensor, length: int, dim: int) -> Tensor:
    """Shift along one dimension by a fraction of pixels per image."""
    whole_B = shift_B.floor()
    view = [-1, 1, 1, 1]
    positions_BL = torch.arange(length, device=shift_B.device) + whole_B.long()[:, None]
    part = (shift_B - whole_B).view(view)
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
