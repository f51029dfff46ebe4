"""SaliencyMix: a box of the partner around its most salient pixel."""

from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

from automix.operators.blend import pair_batch, paste, take
from automix.operators.sampling import (
    BoxRule,
    Per,
    box_lam,
    box_mask,
    centered_box,
    check_images,
    draw_beta,
    draw_index,
    draw_partner,
    required_saliency,
)
from automix.operators.types import BatchShape, MixedBatch


class SaliencyMixDraws(NamedTuple):
    """Parameters of `apply_saliencymix`."""

    partner: Tensor  # (B,) int64
    lam: Tensor  # (B,) float32, 1 minus the area of the box before it is cut at the border
    row: Tensor  # (B,) int64, center row where the saliency of the partner is flat
    column: Tensor  # (B,) int64, center column there


def draw_saliencymix(
    shape: BatchShape, *, strength: float, generator: Generator, per: Per = "image"
) -> SaliencyMixDraws:
    """Draw partners, areas 1 - Beta(strength, strength), and centers to fall back on."""
    batch = shape.batch
    return SaliencyMixDraws(
        partner=draw_partner(batch, generator),
        lam=draw_beta(batch, strength, generator, per=per),
        row=draw_index(batch, shape.height, generator, per=per),
        column=draw_index(batch, shape.width, generator, per=per),
    )


def apply_saliencymix(
    images_BCHW: Tensor,
    targets: Tensor,
    draws: SaliencyMixDraws,
    *,
    saliency_BHW: Tensor | None,
    num_classes: int | None = None,
    box: Literal["per_image", "per_batch"] = "per_image",
    rule: BoxRule = "clovaai",
    align: int = 1,
) -> MixedBatch:
    """Paste a box of the partner around the peak of the partner's saliency.

    Uddin et al. 2021, https://arxiv.org/abs/2006.01791. The paper describes a box for each image;
    the published code uses the box of image ``partner[0]`` for the whole batch, and users who
    repaired that report lower accuracy (their issue 2), hence the option ``box``. ``rule`` and
    ``align`` are those of `centered_box`.

    Of several peaks the first in row-major order is taken. In a flat map every pixel is a peak:
    there, and in maps that are not finite, the drawn center is used, which is CutMix.

    Examples:
        >>> saliency = torch.zeros(2, 8, 8)
        >>> saliency[:, 2, 5] = 1.0
        >>> zero = torch.zeros(2, dtype=torch.int64)
        >>> draws = SaliencyMixDraws(zero, torch.tensor([0.75, 0.75]), zero, zero)
        >>> images, targets = torch.ones(2, 3, 8, 8), torch.arange(2)
        >>> mixed = apply_saliencymix(images, targets, draws, saliency_BHW=saliency, num_classes=2)
        >>> mixed.mask[0, 0].nonzero()[[0, -1]].tolist(), mixed.lam.tolist()
        ([[0, 3], [3, 6]], [0.75, 0.75])
    """
    check_images(images_BCHW, draws.partner)
    saliency_BHW = required_saliency(saliency_BHW, images_BCHW)
    height, width = saliency_BHW.shape[1:]
    row_B, column_B = _peak(saliency_BHW, draws)
    side_B, size = (1 - draws.lam).sqrt(), (height, width)
    box_B4 = centered_box(side_B, row_B, column_B, size, rule, align=align)
    if box == "per_batch":
        box_B4 = box_B4[:1].expand_as(box_B4)
    mask_B1HW = box_mask(box_B4, (height, width))
    mixed_BCHW = paste(images_BCHW, take(images_BCHW, draws.partner), mask_B1HW)
    lam_B = box_lam(box_B4, (height, width))
    return pair_batch(mixed_BCHW, targets, draws.partner, lam_B, mask_B1HW, num_classes)


def _peak(saliency_BHW: Tensor, draws: SaliencyMixDraws) -> tuple[Tensor, Tensor]:
    """Return row and column of each partner's peak, or the drawn center."""
    width = saliency_BHW.shape[2]
    # The first row with the peak, then the first column in that row: a quarter of the time of
    # argmax over all pixels on a CPU. NaN counts as the highest.
    row_max_BH = saliency_BHW.amax(2)
    highest_B1, row_B1 = row_max_BH.max(1, keepdim=True)
    peak_row_B1W = saliency_BHW.gather(1, row_B1.unsqueeze(2).expand(-1, -1, width))
    column_B1 = peak_row_B1W.argmax(2)
    lowest_B1 = saliency_BHW.amin((1, 2)).unsqueeze(1)
    has_peak_B1 = (highest_B1 > lowest_B1) & (highest_B1 < torch.inf)
    # Peaks were found for each image; the box shows the partner, so its peak is the one to take.
    peak_B3 = torch.cat([row_B1, column_B1, has_peak_B1], 1).index_select(0, draws.partner)
    row_B, column_B, has_peak_B = peak_B3.unbind(1)
    is_peak_B = has_peak_B > 0
    return row_B.where(is_peak_B, draws.row), column_B.where(is_peak_B, draws.column)
