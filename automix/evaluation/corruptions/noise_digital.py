"""Noise, JPEG and other digital corruptions of ImageNet-C.

Shape suffixes: B batch, C channels, H rows, W columns.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from automix.evaluation.corruptions.blur_weather import (
    box_resize,
    gaussian_blur,
    reference_pixels,
    sample_bilinearly,
)
from automix.evaluation.counter_random import SampleRandom

_NUM_LEVELS = 256
# Cumulative probabilities as integers: 2^-31 is fine enough, and row offsets fit beside them.
_UNIT = 1 << 31


def gaussian_noise(images_BCHW: Tensor, random: SampleRandom, deviation: float) -> Tensor:
    """Add normal noise of standard deviation ``deviation``."""
    return images_BCHW + deviation * random.normal("noise", images_BCHW.shape[1:])


def shot_noise(images_BCHW: Tensor, random: SampleRandom, photons: float) -> Tensor:
    """Replace each value by a Poisson count with mean value * ``photons``, over ``photons``.

    Counts come from the inverse cumulative distribution, so each value needs one uniform number
    whatever the severity. Means are rounded to the 256 levels of stored images.
    """
    levels = torch.arange(_NUM_LEVELS, dtype=torch.float64) / (_NUM_LEVELS - 1) * photons
    # Nine standard deviations above the largest mean.
    counts = torch.arange(int(photons + 9 * photons**0.5) + 10, dtype=torch.float64)
    # P(count <= k) is the regularized upper incomplete gamma function; at mean 0 it is 1.
    cumulative = torch.special.gammaincc(counts + 1, levels[:, None])
    table = (cumulative * (_UNIT - 1)).long()
    offsets = torch.arange(_NUM_LEVELS)[:, None] * _UNIT
    # One sorted table for all levels: an offset per level keeps each in a range of its own.
    sorted_table = (table + offsets).flatten().to(images_BCHW.device)
    level = (images_BCHW * (_NUM_LEVELS - 1)).round().long()
    draws = (random.uniform("noise", images_BCHW.shape[1:]).double() * (_UNIT - 1)).long()
    positions = torch.searchsorted(sorted_table, draws + level * _UNIT)
    return (positions - level * len(counts)).to(images_BCHW.dtype) / photons


def impulse_noise(images_BCHW: Tensor, random: SampleRandom, fraction: float) -> Tensor:
    """Replace a ``fraction`` of all values by 0 or 1, with equal probability."""
    draws = random.uniform("noise", images_BCHW.shape[1:])
    salted = torch.where(draws < fraction / 2, 1.0, images_BCHW)
    return torch.where(draws > 1 - fraction / 2, 0.0, salted)


_BLOCK = 8

# ITU-T T.81, annex K, tables K.1 and K.2.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * _BLOCK,) * 4,
)
# JFIF: red, green and blue to luma and the two color differences.
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


def jpeg_compression(images_BCHW: Tensor, random: SampleRandom, quality: int) -> Tensor:
    """Return images in [0, 1] as they come back from JPEG files of ``quality`` 1 to 100.

    Three channels are taken as color; any other number as that many gray images.
    """
    del random  # the same for every image
    levels = (images_BCHW * 255).round()
    if images_BCHW.shape[1] != len(_TO_YCC):
        return _through_blocks(levels - 128, _LUMINANCE, quality).add(128).clamp(0, 255) / 255
    matrix = levels.new_tensor(_TO_YCC)
    center = levels.new_tensor([0.0, 128.0, 128.0]).view(1, -1, 1, 1)
    # Color differences at half the resolution (4:2:0), luma at the full one.
    ycc = (torch.einsum("dc,bchw->bdhw", matrix, levels) + center).round()
    luma = _through_blocks(ycc[:, :1] - 128, _LUMINANCE, quality) + 128
    color = _half_resolution(ycc[:, 1:])
    color = (_through_blocks(color - 128, _CHROMINANCE, quality) + 128).clamp(0, 255)
    color = _double_resolution(color)[..., : levels.shape[2], : levels.shape[3]]
    decoded = torch.cat((luma.clamp(0, 255), color), dim=1) - center
    rgb = torch.einsum("dc,bchw->bdhw", levels.new_tensor(_TO_RGB), decoded)
    return rgb.round().clamp(0, 255) / 255


def _half_resolution(images_BCHW: Tensor) -> Tensor:
    """Return means of 2x2 pixels; an odd last row or column is repeated."""
    height, width = images_BCHW.shape[-2:]
    padded = F.pad(images_BCHW, (0, width % 2, 0, height % 2), mode="replicate")
    means = F.avg_pool2d(padded, 2)
    # libjpeg rounds halves down in even columns and up in odd ones, so that they do not add up.
    is_odd = torch.arange(means.shape[-1], device=means.device) % 2
    return (means + 0.25 + 0.25 * is_odd).floor()


def _double_resolution(images_BCHW: Tensor) -> Tensor:
    """Return the color at full size by weights of 3/4 and 1/4, libjpeg's "fancy upsampling"."""
    doubled = F.interpolate(images_BCHW, scale_factor=2, mode="bilinear")
    is_odd = torch.arange(doubled.shape[-1], device=doubled.device) % 2
    return (doubled + (8 - is_odd) / 16).floor()


def _round_away(values: Tensor) -> Tensor:
    """Round, halves away from zero as libjpeg does.

    Sums of bytes often lie half-way between two steps. The nudge puts them on the same side
    whatever the last bits of a float are, which depend on the size of a batch.
    """
    return values.sign() * (values.abs() + (0.5 + 1e-4)).floor()


def _through_blocks(
    values_BCHW: Tensor, table: tuple[tuple[int, ...], ...], quality: int
) -> Tensor:
    """Quantize the cosine transform of each 8x8 block of values centered at 0; round the result."""
    height, width = values_BCHW.shape[-2:]
    padded = F.pad(values_BCHW, (0, -width % _BLOCK, 0, -height % _BLOCK), mode="replicate")
    batch, channels, full_height, full_width = padded.shape
    # (B, C, rows of blocks, columns of blocks, 8, 8), then T X T^t, round, and back.
    blocks = padded.view(
        batch, channels, full_height // _BLOCK, _BLOCK, full_width // _BLOCK, _BLOCK
    ).transpose(3, 4)
    transform = _cosine_transform(values_BCHW)
    steps = _scaled_table(table, quality, values_BCHW)
    coefficients = _round_away(transform @ blocks @ transform.T / steps) * steps
    restored = (transform.T @ coefficients @ transform).round()
    return restored.transpose(3, 4).reshape(padded.shape)[..., :height, :width]


def _cosine_transform(like: Tensor) -> Tensor:
    """Return the orthonormal 8-point DCT-II; row k holds frequency k."""
    positions = torch.arange(_BLOCK, dtype=torch.float64)
    matrix = torch.cos(math.pi / _BLOCK * (positions + 0.5) * positions[:, None]) / 2
    matrix[0] /= 2**0.5
    return matrix.to(like)


def _scaled_table(table: tuple[tuple[int, ...], ...], quality: int, like: Tensor) -> Tensor:
    """Return the quantization steps of a quality by libjpeg's rule."""
    # 100% is the table of the standard, at quality 50.
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = (torch.tensor(table) * percent + 50) // 100
    return steps.clamp(1, 255).to(like)


def contrast(images_BCHW: Tensor, random: SampleRandom, factor: float) -> Tensor:
    """Move every value towards the mean of its channel, to ``factor`` of its distance."""
    del random  # the same for every image
    mean = images_BCHW.mean(dim=(2, 3), keepdim=True)
    return (images_BCHW - mean) * factor + mean


def elastic_transform(
    images_BCHW: Tensor, random: SampleRandom, amount: float, sigma: float, jitter: float
) -> Tensor:
    """Distort by a random affine map and a smooth random field (Simard et al. 2003).

    The field moves pixels by at most ``amount`` before a Gaussian of width ``sigma`` smooths it.
    Three points at a third of the image around its center move by at most ``jitter`` pixels in
    each direction, and the plane with them. The image is mirrored outside.
    """
    batch, _, height, width = images_BCHW.shape
    scale = reference_pixels(height, width)
    field = 2 * random.uniform("field", (2, height, width)) - 1
    field = gaussian_blur(field, sigma * scale, boundary="symmetric", truncate=3) * amount * scale
    corners = (2 * random.uniform("corners", (3, 2)) - 1) * jitter * scale
    rows = torch.arange(height, device=images_BCHW.device).view(1, -1, 1)
    columns = torch.arange(width, device=images_BCHW.device).view(1, 1, -1)
    arm = max(1, min(height, width) // 3)
    # An affine map by three moving points, in coordinates in which they are (1, 1), (1, -1) and
    # (-1, -1): the three weights are 1 at one point each and 0 at the others.
    v = (rows - height // 2) / arm
    u = (columns - width // 2) / arm
    weights = (1 + u) / 2, (v - u) / 2, (1 - v) / 2
    moves_B2HW = field
    for point, weight in enumerate(weights):
        moves_B2HW = moves_B2HW + corners[:, point].view(batch, 2, 1, 1) * weight
    return sample_bilinearly(images_BCHW, rows + moves_B2HW[:, 0], columns + moves_B2HW[:, 1])


def pixelate(images_BCHW: Tensor, random: SampleRandom, factor: float) -> Tensor:
    """Shrink to ``factor`` of the size by areas, and enlarge again."""
    del random  # the same for every image
    height, width = images_BCHW.shape[-2:]
    rows, columns = max(1, int(height * factor)), max(1, int(width * factor))
    small = box_resize(images_BCHW, rows, columns)
    return small[..., _nearest(rows, height, small)[:, None], _nearest(columns, width, small)]


def _nearest(length: int, new_length: int, like: Tensor) -> Tensor:
    """Return for each new position the old pixel that its center lies in."""
    positions = torch.arange(new_length, device=like.device)
    return (2 * positions + 1) * length // (2 * new_length)
