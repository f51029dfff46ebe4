"""Every operator a second time, one pixel at a time, in plain Python and NumPy.

Each function takes one image, its partner, and the parameters of that pair, and returns the mixed
image and `lam`. Nothing here is shared with the operators.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Mixed = tuple[Array, float]


def by_mask(own: Array, partner: Array, mask: Array) -> Mixed:
    mixed = np.empty_like(own)
    channels, height, width = own.shape
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                weight = mask[y, x]
                mixed[c, y, x] = (1 - weight) * own[c, y, x] + weight * partner[c, y, x]
    return mixed, 1 - float(mask.mean())


def box_mask(box: Any, height: int, width: int) -> Array:
    y0, y1, x0, x1 = (int(bound) for bound in box)
    mask = np.zeros((height, width))
    mask[y0:y1, x0:x1] = 1
    return mask


def clovaai_box(lam: float, row: int, column: int, height: int, width: int) -> tuple[int, ...]:
    half_h, half_w = (int(side * math.sqrt(1 - lam)) // 2 for side in (height, width))
    return (
        max(row - half_h, 0),
        min(row + half_h, height),
        max(column - half_w, 0),
        min(column + half_w, width),
    )


def resized(own: Array, shown: Array, box: Any, *, is_bilinear: bool) -> Mixed:
    y0, y1, x0, x1 = (int(bound) for bound in box)
    mixed = own.copy()
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
    return mixed, 1 - area / (own.shape[1] * own.shape[2])


def between(plane: Array, down: float, across: float) -> float:
    top, left = math.floor(down), math.floor(across)
    bottom, right = min(top + 1, plane.shape[0] - 1), min(left + 1, plane.shape[1] - 1)
    upper = plane[top, left] * (1 - across + left) + plane[top, right] * (across - left)
    lower = plane[bottom, left] * (1 - across + left) + plane[bottom, right] * (across - left)
    return float(upper * (1 - down + top) + lower * (down - top))


def fmix_mask(noise: Array, lam: float, coin: float, height: int, width: int) -> Array:
    spectrum = np.zeros((height, width // 2 + 1), dtype=np.complex128)
    for v in range(height):
        for k in range(width // 2 + 1):
            down = (v if v < (height + 1) // 2 else v - height) / height
            frequency = max(math.hypot(down, k / width), 1 / max(height, width))
            spectrum[v, k] = complex(*noise[v, k]) / frequency**3
    gray = np.fft.irfft2(spectrum, s=(height, width))
    kept = lam * height * width
    count = math.ceil(kept) if coin > 0.5 else math.floor(kept)
    mask = np.ones(height * width)
    mask[np.argsort(-gray.flatten(), kind="stable")[:count]] = 0
    return mask.reshape(height, width)


def gridmix_mask(draws: dict[str, float], height: int, width: int) -> Array:
    area = int(height * width * draws["cut_area"])
    region_w = int(math.sqrt(area / draws["cut_aspect"]))
    region_h = min(int(region_w * draws["cut_aspect"]), height)
    region_w = min(region_w, width)
    patch_w = math.ceil(region_w / draws["num_holes"])
    patch_h = int(patch_w * draws["hole_aspect"])
    side = math.sqrt(1 - draws["lam"])
    hole_w, hole_h = int(patch_w * side), int(patch_h * side)
    x0 = int((width - region_w) * draws["across"])
    y0 = int((height - region_h) * draws["down"])
    mask = np.zeros((height, width))
    for y in range(y0, y0 + region_h):
        for x in range(x0, x0 + region_w):
            if (y - y0) % patch_h < hole_h and (x - x0) % patch_w < hole_w:
                mask[y, x] = 1
    return mask


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


def rmix_mask(
    own: Array, partner: Array, percentiles: tuple[float, float], lam: float, shape: tuple[int, int]
) -> Array:
    grid = len(own)
    salient = own >= np.quantile(own, percentiles[0])
    other = partner >= np.quantile(partner, percentiles[1])
    cells = np.empty((grid, grid))
    for r in range(grid):
        for c in range(grid):
            both_or_none = salient[r, c] == other[r, c]
            cells[r, c] = 1 - lam if both_or_none else float(other[r, c])
    return enlarged(cells, *shape)


def blurred(saliency: Array) -> Array:
    """Return the 7 x 7 Gaussian of sigma 3, mirrored at the border without the edge."""
    height, width = saliency.shape
    kernel = np.exp(-0.5 * (np.arange(-3, 4) / 3) ** 2)
    kernel /= kernel.sum()
    result = np.zeros_like(saliency)
    for y in range(height):
        for x in range(width):
            for i in range(-3, 4):
                for j in range(-3, 4):
                    source_y, source_x = mirrored(y + i, height), mirrored(x + j, width)
                    result[y, x] += kernel[i + 3] * kernel[j + 3] * saliency[source_y, source_x]
    return result


def mirrored(position: int, length: int) -> int:
    if position < 0:
        return -position
    return position if position < length else 2 * (length - 1) - position


def guidedmixup_mask(own: Array, partner: Array) -> Array:
    first, second = blurred(own), blurred(partner)
    first, second = first / first.sum(), second / second.sum()
    return np.asarray(second / (first + second))


def grafting(own: Array, partner: Array, uniform: Array, temperature: float) -> tuple[Array, float]:
    """Return the cells of the partner, and `lam`, for pooled maps."""
    heat = np.exp(partner / partner.max() / temperature)
    probability = np.minimum(heat / heat.mean(), 1)
    cells = (uniform < probability).astype(np.float64)
    if cells.all():
        cells[np.unravel_index(partner.argmin(), partner.shape)] = 0
    if not cells.any():
        cells[np.unravel_index(partner.argmax(), partner.shape)] = 1
    of_own = math.sqrt(((own * (1 - cells)) ** 2).sum() / (own**2).sum())
    of_partner = math.sqrt(((partner * cells) ** 2).sum() / (partner**2).sum())
    return cells, of_own / (of_own + of_partner)


def greedy_cycle(maps: Array) -> list[int]:
    count = len(maps)
    distance = [[float(((a - b) ** 2).sum()) for b in maps] for a in maps]
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    if not pairs:
        return [0]
    first, current = max(pairs, key=lambda pair: distance[pair[0]][pair[1]])
    partner = [0] * count
    partner[first] = current
    unused = set(range(count)) - {first, current}
    while unused:
        following = max(unused, key=lambda index: distance[current][index])
        partner[current] = following
        unused.remove(following)
        current = following
    partner[current] = first
    return partner
