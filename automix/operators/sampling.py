"""Random draws: all from an explicit generator, as tensors on its device.

The global generators of torch, NumPy and ``random`` are neither read nor advanced.
"""

from typing import Literal

import torch
from torch import Generator, Tensor

Per = Literal["image", "batch"]
"""Whether a number is drawn for each image or once for the whole batch."""


def draw_partner(batch: int, generator: Generator) -> Tensor:
    """Return a random permutation, (B,) int64; fixed points occur, and one image keeps itself."""
    return torch.randperm(batch, generator=generator, device=generator.device)


def draw_beta(batch: int, alpha: float, generator: Generator, *, per: Per = "image") -> Tensor:
    """Draw from Beta(alpha, alpha).

    ``torch.distributions.Beta`` takes no generator, so this calls the private function under it.
    Only this and `draw_gamma` call private functions, and tests pin what they return.

    Args:
        batch: number of images B.
        alpha: positive; below 1 values near 0 and 1 are likely, above 1 values near 1/2.
        generator: source of randomness.
        per: one number for each image, or the same for all.

    Returns:
        (B,) float32 in [0, 1].

    Raises:
        ValueError: alpha is not positive.
    """
    if not alpha > 0:
        raise ValueError(f"alpha: expected a positive number, got {alpha}")
    count = batch if per == "image" else 1
    # In float32 the two gamma variates underflow together for small alpha (17 % of the draws at
    # 0.01), and their ratio is then 1/2 instead of a number near 0 or 1.
    concentration = torch.full((count, 2), alpha, dtype=torch.float64, device=generator.device)
    lam_N = torch._sample_dirichlet(concentration, generator)[:, 0].to(torch.float32)
    return lam_N.expand(batch)


def draw_gamma(batch: int, shape: float, generator: Generator) -> Tensor:
    """Draw from the gamma distribution of scale 1, the parts of a Dirichlet draw.

    Divided by their sum, those of any set of images are a draw from Dirichlet(shape, .., shape).

    Args:
        batch: number of images B.
        shape: positive; the smaller, the more unequal the draws.
        generator: source of randomness.

    Returns:
        (B,) float32, positive.

    Raises:
        ValueError: the shape is not positive.
    """
    if not shape > 0:
        raise ValueError(f"shape: expected a positive number, got {shape}")
    concentration = torch.full((batch,), shape, dtype=torch.float64, device=generator.device)
    gamma_B = torch._standard_gamma(concentration, generator)
    # Draws below the smallest float32 would be 0, and the shares of a group of zeros NaN.
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
