"""Saliency Grafting: cells of the partner sampled by its saliency, labels by what survives.

Shape suffixes: N cells (P * P).
"""

from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

from automix.operators.blend import pair_batch, paste, take
from automix.operators.sampling import (
    check_images,
    draw_beta,
    draw_partner,
    enlarge_cells,
    pool_cells,
    required_saliency,
    unit_sum,
)
from automix.operators.types import BatchShape, MixedBatch

Normalization = Literal["max", "mean", "standard"]
"""Scale of a map before the temperature: divided by its maximum or mean, or standardized."""

_ROUNDING = 1e-5


class SaliencyGraftingDraws(NamedTuple):
    """Parameters of `apply_saliency_grafting`."""

    partner: Tensor  # (B,) int64
    uniform: Tensor  # (B, P, P) float32 in [0, 1); a cell is grafted below its probability
    temperature: Tensor  # (B,) float32, positive


def draw_saliency_grafting(
    shape: BatchShape, *, strength: float, generator: Generator, grid: int = 4
) -> SaliencyGraftingDraws:
    """Draw partners and a uniform number for each of ``grid`` x ``grid`` cells.

    The strength is the temperature. Its unit depends on the normalization: with ``max``, 0.05
    grafts about an eighth of the image and 0.2 about a half.

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
    saliency_BHW: Tensor | None,
    num_classes: int | None = None,
    normalization: Normalization = "max",
    norm: Literal[1, 2] = 2,
    keep_both: bool = True,
) -> MixedBatch:
    """Graft cells of the partner, each with a probability that grows with its saliency.

    Park et al. 2022, https://arxiv.org/abs/2112.08796. There is no public code to compare with,
    so this follows the description, and what it leaves open is a parameter. With S the saliency
    pooled to the grid of the draws, M = 1 where a cell of the partner is grafted, and T the
    temperature:

        P(M = 1) = min(e / mean(e), 1),  e = exp(normalized S_partner / T)
        I_own = |S_own (1 - M)| / |S_own|,  I_partner = |S_partner M| / |S_partner|
        lam = I_own / (I_own + I_partner)

    A high temperature grafts everything, a low one the peak only; the peak is always grafted. The
    label weighs what survives of each image in the norm of order ``norm``; it is not the fraction
    of the pixels. Of a uniform map all cells are grafted. With ``keep_both`` the partner's least
    salient cell is given back where all are; otherwise ``lam`` is 0 there.

    Examples:
        >>> saliency = torch.ones(2, 8, 8)
        >>> saliency[:, :2, :2] = 100.0  # one cell of 4 x 4
        >>> generator = torch.Generator().manual_seed(0)
        >>> draws = draw_saliency_grafting(BatchShape(2, 8, 8), strength=0.05, generator=generator)
        >>> mixed = apply_saliency_grafting(
        ...     torch.ones(2, 3, 8, 8), torch.arange(2), draws, saliency_BHW=saliency, num_classes=2
        ... )
        >>> mixed.mask[0].mean().item(), bool((mixed.lam < 0.1).all())
        (0.0625, True)
    """
    check_images(images_BCHW, draws.partner)
    saliency_BHW = required_saliency(saliency_BHW, images_BCHW)
    size, grid = (images_BCHW.shape[2], images_BCHW.shape[3]), draws.uniform.shape[1]
    own_BN = _of_unit_norm(unit_sum(pool_cells(saliency_BHW, grid)).flatten(1), norm)
    partner_BN = own_BN.index_select(0, draws.partner)
    # A softmax without its sum, which cancels; the largest exponent is 0, so none overflows.
    heat_BN = _normalized(partner_BN, normalization) / draws.temperature.unsqueeze(1)
    weight_BN = (heat_BN - heat_BN.amax(1, keepdim=True)).exp()
    probability_BN = (weight_BN / weight_BN.mean(1, keepdim=True)).clamp(max=1)
    cells_BN = (draws.uniform.flatten(1) < probability_BN).to(torch.float32)
    if keep_both:
        is_all_B1 = cells_BN.amin(1, keepdim=True)
        cells_BN = cells_BN.scatter_add(1, partner_BN.argmin(1, keepdim=True), -is_all_B1)
    mask_B1HW = enlarge_cells(cells_BN.view_as(draws.uniform), size)
    lam_B = _importance_ratio(own_BN, partner_BN, cells_BN, norm)
    mixed_BCHW = paste(images_BCHW, take(images_BCHW, draws.partner), mask_B1HW)
    return pair_batch(mixed_BCHW, targets, draws.partner, lam_B, mask_B1HW, num_classes)


class BernoulliGraftingDraws(NamedTuple):
    """Parameters of `apply_bernoulli_grafting`."""

    partner: Tensor  # (B,) int64
    uniform: Tensor  # (B, P, P) float32 in [0, 1); a candidate is grafted below the rate
    rate: Tensor  # (B,) float32 in [0, 1]


def draw_bernoulli_grafting(
    shape: BatchShape, *, strength: float, generator: Generator, grid: int = 4
) -> BernoulliGraftingDraws:
    """Draw partners, rates from Beta(strength, strength), and a uniform number for each cell.

    The cells are ``grid`` x ``grid``.
    """
    device = generator.device
    return BernoulliGraftingDraws(
        partner=draw_partner(shape.batch, generator),
        uniform=torch.rand((shape.batch, grid, grid), generator=generator, device=device),
        rate=draw_beta(shape.batch, strength, generator),
    )


def apply_bernoulli_grafting(
    images_BCHW: Tensor,
    targets: Tensor,
    draws: BernoulliGraftingDraws,
    *,
    saliency_BHW: Tensor | None,
    num_classes: int | None = None,
    threshold: float = 1.0,
    norm: Literal[1, 2] = 2,
) -> MixedBatch:
    """Graft each salient cell of the partner with one probability.

    Saliency Grafting, Park et al. 2022, https://arxiv.org/abs/2112.08796, as a survey describes it
    (https://arxiv.org/abs/2212.10888): the map is truncated to candidates, and a Bernoulli draw
    keeps some of them. With S the saliency pooled to the grid of the draws, M = 1 where a cell of
    the partner is grafted, and p the rate of the image:

        M = [S_partner >= threshold * mean(S_partner)] * Bernoulli(p),  p from Beta(alpha, alpha)

    ``lam`` is that of `apply_saliency_grafting`, which grafts most of the cells above the mean with
    certainty instead. Where no cell is grafted the image stays as it is, and ``lam`` is 1.

    Example:
        >>> saliency = torch.ones(2, 8, 8)
        >>> saliency[:, :2, :2] = 100.0  # one cell of 4 x 4, the only candidate
        >>> draws = BernoulliGraftingDraws(
        ...     torch.tensor([1, 0]), torch.full((2, 4, 4), 0.5), torch.tensor([0.4, 0.6])
        ... )
        >>> mixed = apply_bernoulli_grafting(
        ...     torch.ones(2, 3, 8, 8), torch.arange(2), draws, saliency_BHW=saliency, num_classes=2
        ... )
        >>> mixed.mask.mean((1, 2, 3)).tolist(), bool(mixed.lam[0] == 1), bool(mixed.lam[1] < 0.1)
        ([0.0, 0.0625], True, True)
    """
    check_images(images_BCHW, draws.partner)
    saliency_BHW = required_saliency(saliency_BHW, images_BCHW)
    size, grid = (images_BCHW.shape[2], images_BCHW.shape[3]), draws.uniform.shape[1]
    own_BN = _of_unit_norm(unit_sum(pool_cells(saliency_BHW, grid)).flatten(1), norm)
    partner_BN = own_BN.index_select(0, draws.partner)
    # Rounding may put all cells of a flat map below their mean.
    least_B1 = partner_BN.mean(1, keepdim=True) * (threshold * (1 - _ROUNDING))
    is_kept_BN = draws.uniform.flatten(1) < draws.rate.unsqueeze(1)
    cells_BN = ((partner_BN >= least_B1) & is_kept_BN).to(torch.float32)
    mask_B1HW = enlarge_cells(cells_BN.view_as(draws.uniform), size)
    lam_B = _importance_ratio(own_BN, partner_BN, cells_BN, norm)
    mixed_BCHW = paste(images_BCHW, take(images_BCHW, draws.partner), mask_B1HW)
    return pair_batch(mixed_BCHW, targets, draws.partner, lam_B, mask_B1HW, num_classes)


def _normalized(maps_BN: Tensor, normalization: Normalization) -> Tensor:
    if normalization == "max":
        return maps_BN / maps_BN.amax(1, keepdim=True)
    mean_B1 = maps_BN.mean(1, keepdim=True)
    if normalization == "mean":
        return maps_BN / mean_B1
    deviation_B1 = (maps_BN - mean_B1).square().mean(1, keepdim=True).sqrt()
    # A flat map has no deviation: all cells are then at the mean.
    return (maps_BN - mean_B1) / deviation_B1.where(deviation_B1 > 0, 1.0)


def _of_unit_norm(maps_BN: Tensor, norm: int) -> Tensor:
    length_B1: Tensor = torch.linalg.vector_norm(maps_BN, norm, 1, keepdim=True)
    return maps_BN / length_B1


def _importance_ratio(own_BN: Tensor, partner_BN: Tensor, cells_BN: Tensor, norm: int) -> Tensor:
    """Return ``lam`` for maps of unit norm, (B,)."""
    own_B = torch.linalg.vector_norm(own_BN * (1 - cells_BN), norm, 1)
    partner_B = torch.linalg.vector_norm(partner_BN * cells_BN, norm, 1)
    total_B = own_B + partner_B
    # Both are 0 where each image shows only cells without saliency; the area decides there.
    return torch.where(total_B > 0, own_B / total_B, 1 - cells_BN.mean(1))
