"""Corruptions by weather and light. Lengths are for 32-pixel images and grow with the image.

Shape suffixes: B batch, C channels, H rows, W columns, S side of a square map.
"""

import math

import torch
from torch import Tensor

from automix.evaluation.corruptions.blur import directional_blur
from automix.evaluation.corruptions.linear import zoom
from automix.evaluation.counter_random import SampleRandom

_LUMA = (0.299, 0.587, 0.114)
_FROST_TINT = (0.86, 0.94, 1.0)
_FROST_DECAY = 1.6


def snow(
    images_BCHW: Tensor,
    random: SampleRandom,
    mean: float,
    threshold: float,
    sigma: float,
    kept: float,
) -> Tensor:
    """Whiten, then add flakes that fall at 45 to 135 degrees, and the same upside down.

    Args:
        images_BCHW: in [0, 1].
        random: draws the flakes and the angle.
        mean: of the normal map that flakes are made of; its standard deviation is 0.3.
        threshold: below it the map has no flake.
        sigma: length of the flakes.
        kept: share of the image that is not whitened.
    """
    height, width = images_BCHW.shape[-2:]
    flakes = mean + 0.3 * random.normal("flakes", (1, height, width))
    flakes = zoom(flakes, 1.5)
    flakes = torch.where(flakes < threshold, 0.0, flakes).clamp(max=1)
    angles = -math.pi / 4 - random.uniform("angle") * (math.pi / 2)
    flakes = directional_blur(flakes, angles, sigma=sigma)
    whitened = torch.maximum(images_BCHW, _grey(images_BCHW) * 1.5 + 0.5)
    images = kept * images_BCHW + (1 - kept) * whitened
    return images + flakes + flakes.flip(2, 3)


def frost(images_BCHW: Tensor, random: SampleRandom, kept: float, amount: float) -> Tensor:
    """Add ``amount`` of a map of ice needles to the ``kept`` share of the image.

    The published version blends photographs of frost; ours is a ridged fractal of similar
    brightness, tinted blue on colour images.
    """
    height, width = images_BCHW.shape[-2:]
    ridges = [
        1 - (2 * plasma(random, name, height, width, decay=_FROST_DECAY) - 1).abs()
        for name in ("frost 1", "frost 2")
    ]
    ice = 0.3 + 0.7 * ridges[0] * ridges[1]
    if images_BCHW.shape[1] == len(_FROST_TINT):
        ice = ice * ice.new_tensor(_FROST_TINT).view(1, -1, 1, 1)
    return kept * images_BCHW + amount * ice


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
    # Scaling a colour keeps hue and saturation; black has none and becomes grey.
    scaled = images_BCHW * (brighter / value.clamp(min=1e-6))
    return torch.where(value > 0, scaled, brighter)


def plasma(random: SampleRandom, name: str, height: int, width: int, *, decay: float) -> Tensor:
    """Return (B, 1, H, W) fractal maps from 0 to 1 by the diamond-square algorithm, on a torus.

    Args:
        random: draws the displacements.
        name: of the draws.
        height: rows.
        width: columns.
        decay: the displacement falls by its square from level to level; smaller is rougher.
    """
    side = 1 << max(1, math.ceil(math.log2(max(height, width))))
    map_BSS = torch.zeros(len(random.indices), side, side, device=random.indices.device)
    draws = 2 * random.uniform(name, (side, side)) - 1
    step, amplitude = side, 1.0
    while step >= 2:
        half = step // 2
        corners = map_BSS[:, ::step, ::step]
        squares = _mean_of_four(corners, corners.roll(-1, 1), corners.roll(-1, 2))
        map_BSS[:, half::step, half::step] = squares + amplitude * draws[:, half::step, half::step]
        centres = map_BSS[:, half::step, half::step]
        across = (centres + centres.roll(1, 1) + corners + corners.roll(-1, 2)) / 4
        map_BSS[:, ::step, half::step] = across + amplitude * draws[:, ::step, half::step]
        down = (centres + centres.roll(1, 2) + corners + corners.roll(-1, 1)) / 4
        map_BSS[:, half::step, ::step] = down + amplitude * draws[:, half::step, ::step]
        step, amplitude = half, amplitude / decay**2
    low, high = map_BSS.amin(dim=(1, 2), keepdim=True), map_BSS.amax(dim=(1, 2), keepdim=True)
    return ((map_BSS - low) / (high - low))[:, None, :height, :width]


def _mean_of_four(corners: Tensor, below: Tensor, right: Tensor) -> Tensor:
    return (corners + below + right + below.roll(-1, 2)) / 4


def _grey(images_BCHW: Tensor) -> Tensor:
    """Return (B, 1, H, W): luma of colour images, the mean of other numbers of channels."""
    if images_BCHW.shape[1] != len(_LUMA):
        return images_BCHW.mean(dim=1, keepdim=True)
    weights = images_BCHW.new_tensor(_LUMA).view(1, -1, 1, 1)
    return (images_BCHW * weights).sum(dim=1, keepdim=True)
