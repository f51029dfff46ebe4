"""Synthetic batches for the benchmarks.

Shape suffixes: B batch, C channels, H rows, W columns.
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional as F


class Batch(NamedTuple):
    """Images, integer classes and saliency maps."""

    images: Tensor
    targets: Tensor
    saliency: Tensor


def synthetic_batch(
    shape: tuple[int, int, int, int], *, num_classes: int, generator: Generator
) -> Batch:
    """Return normal noise with saliency maps of the contrast of a trained network.

    Flat maps make solvers look cheap. Pooled to 4 x 4 and 8 x 8 cells, the maps of a small
    network trained on CIFAR-10 have a coefficient of variation of .60 and .74;
    `cell_contrast` measures these.

    Args:
        shape: (B, C, H, W).
        num_classes: classes of the targets.
        generator: source of randomness, on the device of the result.
    """
    batch, _, height, width = shape
    device = generator.device
    saliency = torch.ones((batch, 1, height, width), device=device)
    for grid, deviation in ((3, 0.9), (8, 0.55), (height, 0.5)):
        normal = torch.randn((batch, 1, grid, grid), generator=generator, device=device)
        octave = (deviation * normal).exp()
        saliency = saliency * F.interpolate(octave, size=(height, width), mode="bilinear")
    return Batch(
        images=torch.randn(shape, generator=generator, device=device),
        targets=torch.randint(num_classes, (batch,), generator=generator, device=device),
        saliency=saliency.squeeze(1),
    )


def cell_contrast(saliency_BHW: Tensor, grid: int) -> float:
    """Return the mean coefficient of variation of the pooled cells of a map."""
    cells = F.adaptive_avg_pool2d(saliency_BHW.unsqueeze(1), grid).flatten(1)
    return float((cells.std(1, correction=0) / cells.mean(1)).mean())
