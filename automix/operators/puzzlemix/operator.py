"""PuzzleMix: an optimized mask, and salient patches moved to where it shows them.

Shape suffixes: T patches along a side, N patches (T * T).
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from automix.operators.blend import blend, mask_lam, pair_batch, take
from automix.operators.puzzlemix.energy import PuzzleWeights, puzzle_problem
from automix.operators.puzzlemix.solver import solve_puzzle
from automix.operators.puzzlemix.transport import move_patches, transport_plan
from automix.operators.sampling import (
    Per,
    check_images,
    draw_beta,
    draw_partner,
    enlarge_cells,
    pool_cells,
    required_saliency,
    unit_sum,
)
from automix.operators.types import BatchShape, MixedBatch

_PUBLISHED_WEIGHTS = PuzzleWeights()


class PuzzleMixDraws(NamedTuple):
    """Parameters of `apply_puzzlemix`."""

    partner: Tensor  # (B,) int64
    lam: Tensor  # (B,) float32, weight of the own image in the prior; labels are the mean mask


def draw_puzzlemix(
    shape: BatchShape, *, strength: float, generator: Generator, per: Per = "image"
) -> PuzzleMixDraws:
    """Draw partners, and prior weights from Beta(strength, strength).

    The authors draw one weight ``per`` batch.
    """
    return PuzzleMixDraws(
        partner=draw_partner(shape.batch, generator),
        lam=draw_beta(shape.batch, strength, generator, per=per),
    )


def apply_puzzlemix(
    images_BCHW: Tensor,
    targets: Tensor,
    draws: PuzzleMixDraws,
    *,
    saliency_BHW: Tensor | None,
    num_classes: int | None = None,
    weights: PuzzleWeights = _PUBLISHED_WEIGHTS,
    transport: bool = True,
    t_size: int | None = 4,
    t_eps: float = 0.8,
) -> MixedBatch:
    """Choose for each cell which image it shows, then move salient patches into sight.

    Kim et al. 2020, https://arxiv.org/abs/2009.06962: with z the mask that minimizes the objective
    of `automix.operators.puzzlemix.energy` and T, T' the moves, ``z T(x) + (1 - z) T'(x[partner])``
    and ``lam = mean(z)``. Where ``draws.lam`` is 1 or 0, or an image is its own partner, the mask
    is constant and nothing moves.

    Args:
        images_BCHW: (B, C, H, W) floating point, at least as many rows and columns as the grid.
        targets: (B,) or (B, K), see `soft_targets`.
        draws: what `draw_puzzlemix` returns.
        saliency_BHW: (B, H, W) floating point, non-negative, any scale.
        num_classes: K, for integer targets.
        weights: grid, labels and parameters of the objective.
        transport: whether patches move.
        t_size: pixels along a side of a moving patch; None moves whole cells of the mask, and so
            does a size that is not below theirs.
        t_eps: cost of a move across the image, in units of the saliency of an image.

    Examples:
        The left half of the first image is salient, the right half of the second.

        >>> saliency = torch.zeros(2, 8, 8)
        >>> saliency[0, :, :4] = saliency[1, :, 4:] = 1.0
        >>> draws = PuzzleMixDraws(partner=torch.tensor([1, 0]), lam=torch.tensor([0.5, 0.5]))
        >>> images, targets = torch.ones(2, 3, 8, 8), torch.arange(2)
        >>> mixed = apply_puzzlemix(images, targets, draws, saliency_BHW=saliency, num_classes=2)
        >>> mixed.mask[0, 0, 0].tolist(), mixed.lam.tolist()
        ([0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0], [0.5, 0.5])
    """
    check_images(images_BCHW, draws.partner)
    # Choices have no gradient; the pixels that are shown keep theirs.
    saliency_BHW = required_saliency(saliency_BHW, images_BCHW).detach()
    fixed_BCHW = images_BCHW.detach()
    problem = puzzle_problem(fixed_BCHW, saliency_BHW, draws.partner, draws.lam, weights)
    own_BPP = _with_constant_masks(solve_puzzle(problem), draws)
    partner_BCHW = take(images_BCHW, draws.partner)
    size = (images_BCHW.shape[2], images_BCHW.shape[3])
    mask_B1HW = enlarge_cells(1 - own_BPP, size)
    first_BCHW = images_BCHW
    if transport:
        # The moving patches are at least as fine as the cells. Both images are planned at once: a
        # patch of the own image is seen where z > 0, one of the partner where z < 1.
        side = _patches_along(size, weights.grid, t_size)
        worth_BTT = unit_sum(pool_cells(saliency_BHW, side))
        seen_BTT = enlarge_cells(own_BPP, (side, side)).squeeze(1)
        plan_BN = transport_plan(
            torch.cat((worth_BTT, worth_BTT.index_select(0, draws.partner))),
            torch.cat((seen_BTT > 0, seen_BTT < 1)),
            t_eps,
        )
        own_plan_BN, partner_plan_BN = plan_BN.chunk(2)
        first_BCHW = move_patches(images_BCHW, own_plan_BN)
        partner_BCHW = move_patches(partner_BCHW, partner_plan_BN)
    mixed_BCHW = blend(first_BCHW, partner_BCHW, mask_B1HW)
    lam_B = mask_lam(mask_B1HW)
    return pair_batch(mixed_BCHW, targets, draws.partner, lam_B, mask_B1HW, num_classes)


def _with_constant_masks(own_BPP: Tensor, draws: PuzzleMixDraws) -> Tensor:
    """Return the masks with those replaced that the draws leave no choice for."""
    image_B = torch.arange(draws.partner.shape[0], device=draws.partner.device)
    is_own_B = (draws.lam >= 1) | (draws.partner == image_B)
    own_BPP = own_BPP * (draws.lam > 0).view(-1, 1, 1)
    return own_BPP.masked_fill(is_own_B.view(-1, 1, 1), 1.0)


def _patches_along(size: tuple[int, int], grid: int, t_size: int | None) -> int:
    """Return T: whole patches of ``t_size`` pixels in each cell of the mask."""
    if t_size is None:
        return grid
    if t_size < 1:
        raise ValueError(f"t_size: expected 1 pixel or more, or None, got {t_size}")
    return grid * max(1, min(size) // grid // t_size)
