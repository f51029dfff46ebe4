"""PuzzleMix: an optimized mask, and salient patches moved to where it shows them.

Shape suffixes: B batch, C channels, H rows, W columns, P grid side, T patches along a side.
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
    shares,
)
from automix.operators.types import BatchShape, MixedBatch

_PUBLISHED_WEIGHTS = PuzzleWeights()


class PuzzleMixDraws(NamedTuple):
    """Parameters of `apply_puzzlemix`.

    Attributes:
        partner: (B,) int64.
        lam: (B,) float32, weight of the own image in the prior over labels. The label weight is
            the mean of the mask, which is near it.
    """

    partner: Tensor
    lam: Tensor


def draw_puzzlemix(
    shape: BatchShape, *, strength: float, generator: Generator, per: Per = "image"
) -> PuzzleMixDraws:
    """Draw partners, and prior weights from Beta(strength, strength).

    Args:
        shape: shape of the batch.
        strength: alpha, positive.
        generator: source of randomness.
        per: a weight for each image, or one for the batch as in the authors' code.
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
    num_classes: int | None = None,
    saliency_BHW: Tensor | None = None,
    previous: MixedBatch | None = None,
    weights: PuzzleWeights = _PUBLISHED_WEIGHTS,
    transport: bool = True,
    t_size: int | None = 4,
    t_eps: float = 0.8,
) -> MixedBatch:
    """Choose for each cell which image it shows, then move salient patches into sight.

    Kim et al., https://arxiv.org/abs/2009.06962. The mask minimizes the objective of
    `puzzle_energy`. Where ``draws.lam`` is 1 or 0, or an image is its own partner, the mask is
    constant and nothing moves.

    Args:
        images_BCHW: (B, C, H, W) floating point, at least as many rows and columns as the grid.
        targets: (B,) or (B, K), see `soft_targets`.
        draws: what `draw_puzzlemix` returns.
        num_classes: number of classes, for integer targets.
        saliency_BHW: (B, H, W) floating point, non-negative, any scale. A map that is zero or not
            finite counts as uniform.
        previous: not used.
        weights: grid, labels and parameters of the objective.
        transport: whether patches move.
        t_size: pixels along a side of a moving patch; None moves whole cells of the mask, and so
            does a size that is not below theirs.
        t_eps: cost of a move across the image, in units of the saliency of an image.
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
        side = _patches_along(size, weights.grid, t_size)
        worth_BTT = shares(pool_cells(saliency_BHW, side))
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
