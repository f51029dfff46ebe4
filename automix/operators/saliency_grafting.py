"""Saliency Grafting: cells of the partner sampled by its saliency, labels by what survives.

Shape suffixes: B batch, C channels, H rows, W columns, P grid side, N cells (P * P).
"""

from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

from automix.operators.blend import pair_batch, paste, take
from automix.operators.sampling import (
    check_images,
    draw_partner,
    enlarge_cells,
    pool_cells,
    required_saliency,
    shares,
)
from automix.operators.types import BatchShape, MixedBatch

Normalization = Literal["max", "mean", "standard"]
"""What a map is divided by before the temperature: its maximum, its mean, or its deviation."""


class SaliencyGraftingDraws(NamedTuple):
    """Parameters of `apply_saliency_grafting`.

    Attributes:
        partner: (B,) int64.
        uniform: (B, P, P) float32 in [0, 1); a cell is grafted where this is below its
            probability.
        temperature: (B,) float32, positive.
    """

    partner: Tensor
    uniform: Tensor
    temperature: Tensor


def draw_saliency_grafting(
    shape: BatchShape, *, strength: float, generator: Generator, grid: int = 4
) -> SaliencyGraftingDraws:
    """Draw partners and a uniform number for each cell.

    Args:
        shape: shape of the batch.
        strength: temperature, positive. Its unit depends on the normalization: with ``max``,
            0.05 grafts about an eighth of the image and 0.2 about a half.
        generator: source of randomness.
        grid: P, cells along a side.

    Raises:
        ValueError: the temperature is not positive.
    """
    if not strength > 0:
        raise ValueError(f"strength: expected a positive temperature, got {strength}")
    device = generator.device
    return SaliencyGraftingDraws(
        partner=draw_partner(shape.batch, generator),
        uniform=torch.rand((shape.batch, grid, grid), generator=generator, device=device),
        temperature=torch.full((shape.batch,), strength, device=device),
    )


def apply_saliency_grafting(
    images_BCHW: Tensor,
    targets: Tensor,
    draws: SaliencyGraftingDraws,
    *,
    num_classes: int | None = None,
    saliency_BHW: Tensor | None = None,
    previous: MixedBatch | None = None,
    normalization: Normalization = "max",
    norm: Literal[1, 2] = 2,
    keep_both: bool = True,
) -> MixedBatch:
    """Graft cells of the partner, each with a probability that grows with its saliency.

    Park et al., https://arxiv.org/abs/2112.08796. There is no public code to compare with, so
    this follows the description, and what it leaves open is a parameter. With S the saliency
    pooled to cells, a cell of the partner is grafted with probability
    ``min(e / mean(e), 1)``, ``e = exp(normalized S / temperature)``: a high temperature grafts
    everything, a low one the peak only. The label weighs what survives of each image,
    ``I = norm(S * visible) / norm(S)``, as ``lam = I_own / (I_own + I_partner)``. It is not the
    share of the pixels.

    A map that is zero or not finite counts as uniform; of a uniform map all cells are grafted.

    Args:
        images_BCHW: (B, C, H, W) floating point.
        targets: (B,) or (B, K), see `soft_targets`.
        draws: what `draw_saliency_grafting` returns; its grid is that of the cells.
        num_classes: number of classes, for integer targets.
        saliency_BHW: (B, H, W) floating point, non-negative, any scale.
        previous: not used.
        normalization: what the partner's map is divided by before the temperature.
        norm: order of the norm that measures importance.
        keep_both: give the partner's least salient cell back where all are grafted; otherwise
            ``lam`` is 0 there. Its peak is always grafted.
    """
    check_images(images_BCHW, draws.partner)
    saliency_BHW = required_saliency(saliency_BHW, images_BCHW)
    grid = draws.uniform.shape[1]
    own_BN = _of_unit_norm(shares(pool_cells(saliency_BHW, grid)).flatten(1), norm)
    partner_BN = own_BN.index_select(0, draws.partner)
    heat_BN = _normalized(partner_BN, normalization) / draws.temperature.unsqueeze(1)
    weight_BN = (heat_BN - heat_BN.amax(1, keepdim=True)).exp()
    probability_BN = (weight_BN / weight_BN.mean(1, keepdim=True)).clamp(max=1)
    cells_BN = (draws.uniform.flatten(1) < probability_BN).to(torch.float32)
    if keep_both:
        cells_BN = _without_lowest_of_all(cells_BN, partner_BN)
    mask_B1HW = enlarge_cells(cells_BN.view_as(draws.uniform), _size(images_BCHW))
    lam_B = _importance_ratio(own_BN, partner_BN, cells_BN, norm)
    mixed_BCHW = paste(images_BCHW, take(images_BCHW, draws.partner), mask_B1HW)
    return pair_batch(mixed_BCHW, targets, draws.partner, lam_B, mask_B1HW, num_classes)


def _size(images_BCHW: Tensor) -> tuple[int, int]:
    return images_BCHW.shape[2], images_BCHW.shape[3]


def _normalized(maps_BN: Tensor, normalization: Normalization) -> Tensor:
    if normalization == "max":
        return maps_BN / maps_BN.amax(1, keepdim=True)
    mean_B1 = maps_BN.mean(1, keepdim=True)
    if normalization == "mean":
        return maps_BN / mean_B1
    deviation_B1 = (maps_BN - mean_B1).square().mean(1, keepdim=True).sqrt()
    # A flat map has no deviation: all cells are then at the mean.
    return (maps_BN - mean_B1) / deviation_B1.where(deviation_B1 > 0, 1.0)


def _without_lowest_of_all(cells_BN: Tensor, partner_BN: Tensor) -> Tensor:
    """Return the cells, less the partner's least salient one where all are grafted."""
    has_all_B1 = cells_BN.amin(1, keepdim=True)
    lowest_B1 = partner_BN.argmin(1, keepdim=True)
    return cells_BN.scatter_add(1, lowest_B1, -has_all_B1)


def _of_unit_norm(maps_BN: Tensor, norm: int) -> Tensor:
    length_B1: Tensor = torch.linalg.vector_norm(maps_BN, norm, 1, keepdim=True)
    return maps_BN / length_B1


def _importance_ratio(own_BN: Tensor, partner_BN: Tensor, cells_BN: Tensor, norm: int) -> Tensor:
    """Return ``lam``, the share of the importance that is the own image's; maps of unit norm."""
    own_B = torch.linalg.vector_norm(own_BN * (1 - cells_BN), norm, 1)
    partner_B = torch.linalg.vector_norm(partner_BN * cells_BN, norm, 1)
    total_B = own_B + partner_B
    # Both are 0 where each image shows only cells without saliency.
    return torch.where(total_B > 0, own_B / total_B, 1 - cells_BN.mean(1))
