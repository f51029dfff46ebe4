"""The loss of JPEG compression, as a batch of 8x8 cosine transforms; no bytes are written.

Follows baseline JPEG as libjpeg does it by default (ITU-T T.81, JFIF): colour at half resolution,
the standard's example tables scaled by the quality, rounding where bytes or integers are stored.

Shape suffixes: B batch, C channels, H rows, W columns.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from automix.evaluation.counter_random import SampleRandom

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
# JFIF: red, green and blue to luma and the two colour differences.
_TO_YCC = (
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


def jpeg_compression(images_BCHW: Tensor, random: SampleRandom, quality: int) -> Tensor:
    """Return images in [0, 1] as they come back from JPEG files of ``quality`` 1 to 100.

    Three channels are taken as colour; any other number as that many grey images.
    """
    del random  # the same for every image
    levels = (images_BCHW * 255).round()
    if images_BCHW.shape[1] != len(_TO_YCC):
        return _through_blocks(levels - 128, _LUMINANCE, quality).add(128).clamp(0, 255) / 255
    matrix = levels.new_tensor(_TO_YCC)
    centre = levels.new_tensor([0.0, 128.0, 128.0]).view(1, -1, 1, 1)
    ycc = (torch.einsum("dc,bchw->bdhw", matrix, levels) + centre).round()
    luma = _through_blocks(ycc[:, :1] - 128, _LUMINANCE, quality) + 128
    colour = _half_resolution(ycc[:, 1:])
    colour = (_through_blocks(colour - 128, _CHROMINANCE, quality) + 128).clamp(0, 255)
    colour = _double_resolution(colour)[..., : levels.shape[2], : levels.shape[3]]
    decoded = torch.cat((luma.clamp(0, 255), colour), dim=1) - centre
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
    """Return the colour at full size by weights of 3/4 and 1/4, libjpeg's "fancy upsampling"."""
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
    """Quantise the cosine transform of each 8x8 block of values centred at 0; round the result."""
    height, width = values_BCHW.shape[-2:]
    padded = F.pad(values_BCHW, (0, -width % _BLOCK, 0, -height % _BLOCK), mode="replicate")
    batch, channels, full_height, full_width = padded.shape
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
    """Return the quantisation steps of a quality by libjpeg's rule."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = (torch.tensor(table) * percent + 50) // 100
    return steps.clamp(1, 255).to(like)
