"""Corruptions by noise. The same draws serve all severities: a stronger one only adds.

Shape suffixes: B batch, C channels, H rows, W columns.
"""

import torch
from torch import Tensor

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
    # P(count <= k) is the regularised upper incomplete gamma function; at mean 0 it is 1.
    cumulative = torch.special.gammaincc(counts + 1, levels[:, None])
    table = (cumulative * (_UNIT - 1)).long()
    offsets = torch.arange(_NUM_LEVELS)[:, None] * _UNIT
    sorted_table = (table + offsets).flatten().to(images_BCHW.device)
    level = (images_BCHW * (_NUM_LEVELS - 1)).round().long()
    draws = (random.uniform("noise", images_BCHW.shape[1:]).double() * (_UNIT - 1)).long()
    positions = torch.searchsorted(sorted_table, draws + level * _UNIT)
    return (positions - level * len(counts)).to(images_BCHW.dtype) / photons


def impulse_noise(images_BCHW: Tensor, random: SampleRandom, share: float) -> Tensor:
    """Replace a ``share`` of all values by 0 or 1, with equal probability."""
    draws = random.uniform("noise", images_BCHW.shape[1:])
    salted = torch.where(draws < share / 2, 1.0, images_BCHW)
    return torch.where(draws > 1 - share / 2, 0.0, salted)
