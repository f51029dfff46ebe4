"""R-Mix: random saliency percentiles of the two images are compared cell by cell.

Shape suffixes: N cells (P * P).
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from automix.operators.blend import blend, mask_lam, pair_batch, take
from automix.operators.sampling import (
    Per,
    check_images,
    draw_beta,
    draw_index,
    draw_partner,
    enlarge_cells,
    pool_cells,
    required_saliency,
    unit_sum,
)
from automix.operators.types import BatchShape, MixedBatch

# The published percentiles: ten from 0 to 0.99.
_NUM_PERCENTILES = 10
_PERCENTILE_STEP = 0.11


class RMixDraws(NamedTuple):
    """Parameters of `apply_rmix`."""

    partner: Tensor  # (B,) int64
    percentile: Tensor  # (B,) float32 in [0, 1]; cells at or above it are salient
    lam: Tensor  # (B,) float32, weight of the own image where both or none are salient


def draw_rmix(
    shape: BatchShape, *, strength: float, generator: Generator, per: Per = "image"
) -> RMixDraws:
    """Draw partners, percentiles, and weights from Beta(strength, strength).

    The authors draw one weight ``per`` batch.
    """
    level_B = draw_index(shape.batch, _NUM_PERCENTILES, generator)
    return RMixDraws(
        partner=draw_partner(shape.batch, generator),
        percentile=level_B * _PERCENTILE_STEP,
        lam=draw_beta(shape.batch, strength, generator, per=per),
    )


def apply_rmix(
    images_BCHW: Tensor,
    targets: Tensor,
    draws: RMixDraws,
    *,
    saliency_BHW: Tensor | None,
    num_classes: int | None = None,
    grid: int = 4,
) -> MixedBatch:
    """Take each cell from the image in which it is salient; blend where both or none are.

    Luu et al. 2022, https://arxiv.org/abs/2212.04875. With A = [S >= percentile of S] for the map
    S of each image, pooled to ``grid`` cells along a side: cells with A_own = A_partner show
    ``lam * own + (1 - lam) * partner``, the others the image with A = 1. The label is the area.
    The authors draw the grid, 2 or 4 at 32 x 32, for each batch. All cells of a flat map are at
    its percentile, hence salient.

    Examples:
        >>> saliency = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> everything = RMixDraws(torch.arange(4).flip(0), torch.zeros(4), torch.full((4,), 0.25))
        >>> images, targets = torch.ones(4, 3, 8, 8), torch.arange(4)
        >>> mixed = apply_rmix(images, targets, everything, saliency_BHW=saliency, num_classes=4)
        >>> mixed.lam.tolist()  # all cells of both images are salient, which is Mixup
        [0.25, 0.25, 0.25, 0.25]
    """
    check_images(images_BCHW, draws.partner)
    saliency_BHW = required_saliency(saliency_BHW, images_BCHW)
    cells_BN = unit_sum(pool_cells(saliency_BHW, grid)).flatten(1)
    most_pairs = 2 * images_BCHW[0].numel()  # twice the memory of the batch
    salient_BN = _salient(cells_BN, draws.percentile, most_pairs)
    partner_BN = salient_BN.index_select(0, draws.partner)
    # The weight of the partner: 1 - lam where they agree, else 1 where it alone is salient.
    weight_BN = torch.where(salient_BN == partner_BN, (1 - draws.lam).unsqueeze(1), partner_BN)
    size = (images_BCHW.shape[2], images_BCHW.shape[3])
    mask_B1HW = enlarge_cells(weight_BN.view(-1, grid, grid), size)
    mixed_BCHW = blend(images_BCHW, take(images_BCHW, draws.partner), mask_B1HW)
    lam_B = mask_lam(mask_B1HW)
    return pair_batch(mixed_BCHW, targets, draws.partner, lam_B, mask_B1HW, num_classes)


def _salient(cells_BN: Tensor, percentile_B: Tensor, most_pairs: int) -> Tensor:
    """Return 1.0 for the cells at or above the percentile of their row, 0.0 for the others.

    At most ``most_pairs`` pairs of cells are compared in an image; for more, rows are sorted.
    """
    num_cells = cells_BN.shape[1]
    # The published code compares with the percentile itself, linear between two order statistics;
    # no value is between the two, so the next order statistic separates the same cells. (It also
    # computes every percentile for every row, B x B values: 7 times the time at B = 1024.)
    rank_B1 = (percentile_B.unsqueeze(1) * (num_cells - 1)).ceil()
    # Comparing into floats is vectorized on a CPU, into booleans it is not.
    salient_BN = torch.empty_like(cells_BN)
    if num_cells**2 > most_pairs:
        smallest_B1 = cells_BN.sort(1).values.gather(1, rank_B1.to(torch.int64))
        return torch.ge(cells_BN, smallest_B1, out=salient_BN)
    # A cell is at the rank or above it if more cells than that are not greater than it. Counting
    # them takes two thirds of the time of sorting 64 cells on a CPU.
    pairs_BNN = cells_BN.new_empty(*cells_BN.shape, num_cells)
    torch.le(cells_BN.unsqueeze(2), cells_BN.unsqueeze(1), out=pairs_BNN)
    return torch.gt(pairs_BNN.sum(1), rank_B1, out=salient_BN)
