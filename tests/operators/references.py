"""Operators a second time, one pixel at a time, in plain Python and NumPy, and the comparison.

Each slow function takes one image, its partner, and the parameters of that pair, and returns the
mixed image and `lam`. Nothing here is shared with the operators.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from torch import Tensor

from automix.operator_info import Operator
from automix.operators.types import MixedBatch
from tests.operators.cases import Scenario, apply, draw, random_images

Array = npt.NDArray[np.float64]
Mixed = tuple[Array, float]

every_scenario = pytest.mark.parametrize(
    "scenario", [Scenario(3, channels=1, size=(9, 14)), Scenario(2, size=(16, 8))], ids=str
)
every_seed = pytest.mark.parametrize("seed", range(3))


def array(tensor: Tensor) -> Array:
    return tensor.double().numpy()


def pairs(images: Tensor, mixed: MixedBatch) -> list[tuple[Array, Array]]:
    return list(zip(array(images), array(images[mixed.partner]), strict=True))


def assert_agree(mixed: MixedBatch, expected: list[Mixed]) -> None:
    images, lam = (np.stack(values) for values in zip(*expected, strict=True))
    np.testing.assert_allclose(array(mixed.images), images, atol=2e-5)
    np.testing.assert_allclose(array(mixed.lam), lam, atol=1e-6)


def mixed_by(operator: Operator, scenario: Scenario, seed: int) -> tuple[Tensor, Any, MixedBatch]:
    images = random_images(scenario, seed)
    draws = draw(operator, images, seed)
    return images, draws, apply(operator, scenario, images, draws)


def by_mask(first: Array, partner: Array, mask: Array) -> Mixed:
    mixed = np.empty_like(first)
    channels, height, width = first.shape
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                weight = mask[y, x]
                mixed[c, y, x] = (1 - weight) * first[c, y, x] + weight * partner[c, y, x]
    return mixed, 1 - float(mask.mean())


def box_mask(box: Any, height: int, width: int) -> Array:
    y0, y1, x0, x1 = (int(bound) for bound in box)
    mask = np.zeros((height, width))
    mask[y0:y1, x0:x1] = 1
    return mask


def resized(first: Array, shown: Array, box: Any, *, is_bilinear: bool) -> Mixed:
    y0, y1, x0, x1 = (int(bound) for bound in box)
    mixed = first.copy()
    channels, height, width = shown.shape
    for y in range(y0, y1):
        for x in range(x0, x1):
            if is_bilinear:
                down = np.clip((y - y0 + 0.5) * height / (y1 - y0) - 0.5, 0, height - 1)
                across = np.clip((x - x0 + 0.5) * width / (x1 - x0) - 0.5, 0, width - 1)
                for c in range(channels):
                    mixed[c, y, x] = between(shown[c], down, across)
            else:
                source_y = (y - y0) * height // (y1 - y0)
                source_x = (x - x0) * width // (x1 - x0)
                mixed[:, y, x] = shown[:, source_y, source_x]
    area = (y1 - y0) * (x1 - x0)
    return mixed, 1 - area / (first.shape[1] * first.shape[2])


def between(plane: Array, down: float, across: float) -> float:
    top, left = math.floor(down), math.floor(across)
    bottom, right = min(top + 1, plane.shape[0] - 1), min(left + 1, plane.shape[1] - 1)
    upper = plane[top, left] * (1 - across + left) + plane[top, right] * (across - left)
    lower = plane[bottom, left] * (1 - across + left) + plane[bottom, right] * (across - left)
    return float(upper * (1 - down + top) + lower * (down - top))


def pooled(saliency: Array, grid: int) -> Array:
    """Return cell means; pixel y of H belongs to cell y * grid // H."""
    height, width = saliency.shape
    sums, counts = np.zeros((grid, grid)), np.zeros((grid, grid))
    for y in range(height):
        for x in range(width):
            sums[y * grid // height, x * grid // width] += saliency[y, x]
            counts[y * grid // height, x * grid // width] += 1
    return np.asarray(sums / counts)


def enlarged(cells: Array, height: int, width: int) -> Array:
    grid = len(cells)
    mask = np.empty((height, width))
    for y in range(height):
        for x in range(width):
            mask[y, x] = cells[y * grid // height, x * grid // width]
    return mask
