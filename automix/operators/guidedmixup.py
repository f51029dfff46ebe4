"""GuidedMixup: each pixel is blended by the ratio of the two saliencies.

Shape suffixes: B batch, C channels, H rows, W columns.
"""

from typing import Literal, NamedTuple

from torch import Generator, Tensor

from automix.operators.blend import blend, mask_lam, pair_batch, take
from automix.operators.cells import shares
from automix.operators.checks import check_images, required_saliency
from automix.operators.pairing import greedy_partner
from automix.operators.sampling import draw_partner
from automix.operators.smoothing import gaussian_blur
from automix.operators.types import BatchShape, MixedBatch


class GuidedMixupDraws(NamedTuple):
    """Parameters of `apply_guidedmixup`.

    Attributes:
        partner: (B,) int64; None for the greedy pairing, which depends on the saliency alone.
    """

    partner: Tensor | None


def draw_guidedmixup(
    shape: BatchShape,
    *,
    strength: float,
    generator: Generator,
    pairing: Literal["greedy", "random"] = "greedy",
) -> GuidedMixupDraws:
    """Draw partners, or leave them to the greedy pairing.

    Args:
        shape: shape of the batch.
        strength: no effect; the masks follow from the saliency.
        generator: source of randomness.
        pairing: ``greedy`` as in the paper, see `greedy_partner`; ``random`` as its published
            program does by mistake, and without the cost of the pairing.
    """
    return GuidedMixupDraws(draw_partner(shape.batch, generator) if pairing == "random" else None)


def apply_guidedmixup(
    images_BCHW: Tensor,
    targets: Tensor,
    draws: GuidedMixupDraws,
    *,
    num_classes: int | None = None,
    saliency_BHW: Tensor | None = None,
    previous: MixedBatch | None = None,
) -> MixedBatch:
    """Blend each pixel by the share of its saliency in that of the two images.

    Kang and Kim, https://arxiv.org/abs/2306.16612. The maps are blurred (7 x 7, sigma 3) and
    divided by their sum. Maps that are zero or not finite count as uniform; where neither image
    has saliency, both weigh the same.

    Args:
        images_BCHW: (B, C, H, W) floating point.
        targets: (B,) or (B, K), see `soft_targets`.
        draws: what `draw_guidedmixup` returns.
        num_classes: number of classes, for integer targets.
        saliency_BHW: (B, H, W) floating point, non-negative, any scale.
        previous: not used.
    """
    check_images(images_BCHW, draws.partner)
    saliency_BHW = required_saliency(saliency_BHW, images_BCHW)
    own_BHW = shares(gaussian_blur(saliency_BHW))
    partner_B = greedy_partner(own_BHW) if draws.partner is None else draws.partner
    partner_BHW = own_BHW.index_select(0, partner_B)
    mask_BHW = (partner_BHW / (own_BHW + partner_BHW)).nan_to_num_(0.5)
    mask_B1HW = mask_BHW.unsqueeze(1)
    mixed_BCHW = blend(images_BCHW, take(images_BCHW, partner_B), mask_B1HW)
    lam_B = mask_lam(mask_B1HW)
    return pair_batch(mixed_BCHW, targets, partner_B, lam_B, mask_B1HW, num_classes)
