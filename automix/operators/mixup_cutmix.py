"""None, Mixup and CutMix: what is mixed does not depend on the images.

Shape suffixes: B batch, C channels, H rows, W columns.
"""

from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

from automix.operators.blend import blend, pair_batch, paste, take
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
)
from automix.operators.types import BatchShape, MixedBatch


class NoneDraws(NamedTuple):
    """Parameters of `apply_none`: the batch itself as partner, (B,) int64."""

    partner: Tensor


class MixupDraws(NamedTuple):
    """Parameters of `apply_mixup`.

    Attributes:
        partner: (B,) int64.
        lam: (B,) float32 in [0, 1].
    """

    partner: Tensor
    lam: Tensor


class CutMixDraws(NamedTuple):
    """Parameters of `apply_cutmix`.

    Attributes:
        partner: (B,) int64.
        lam: (B,) float32, the drawn share that the own image keeps, before the box is cut at
            the border.
        box: (B, 4) int64, (y0, y1, x0, x1).
    """

    partner: Tensor
    lam: Tensor
    box: Tensor


def draw_none(shape: BatchShape, *, strength: float, generator: Generator) -> NoneDraws:
    """Draw nothing: each image is its own partner."""
    return NoneDraws(torch.arange(shape.batch, device=generator.device))


def apply_none(
    images_BCHW: Tensor,
    targets: Tensor,
    draws: NoneDraws,
    *,
    num_classes: int | None = None,
    saliency_BHW: Tensor | None = None,
    previous: MixedBatch | None = None,
) -> MixedBatch:
    """Return the batch as it is, with soft targets; the images are those passed in, not a copy."""
    check_images(images_BCHW, draws.partner)
    batch = images_BCHW.shape[0]
    one = torch.ones(1, device=images_BCHW.device)
    lam_B = one.expand(batch)
    mask_B111 = (1 - one).expand(batch, 1, 1, 1)
    return pair_batch(images_BCHW, targets, draws.partner, lam_B, mask_B111, num_classes)


def draw_mixup(
    shape: BatchShape, *, strength: float, generator: Generator, per: Per = "image"
) -> MixupDraws:
    """Draw partners and ``lam`` from Beta(strength, strength).

    Args:
        shape: shape of the batch.
        strength: alpha, positive.
        generator: source of randomness.
        per: ``lam`` for each image, or one for the batch as in the authors' code.
    """
    partner_B = draw_partner(shape.batch, generator)
    return MixupDraws(partner_B, draw_beta(shape.batch, strength, generator, per=per))


def apply_mixup(
    images_BCHW: Tensor,
    targets: Tensor,
    draws: MixupDraws,
    *,
    num_classes: int | None = None,
    saliency_BHW: Tensor | None = None,
    previous: MixedBatch | None = None,
) -> MixedBatch:
    """Blend whole images: ``lam * x + (1 - lam) * x[partner]``.

    Zhang et al., https://arxiv.org/abs/1710.09412.

    Args:
        images_BCHW: (B, C, H, W) floating point.
        targets: (B,) or (B, K), see `soft_targets`.
        draws: what `draw_mixup` returns.
        num_classes: number of classes, for integer targets.
        saliency_BHW: not used.
        previous: not used.
    """
    check_images(images_BCHW, draws.partner)
    mask_B111 = 1 - draws.lam.view(-1, 1, 1, 1)
    mixed_BCHW = blend(images_BCHW, take(images_BCHW, draws.partner), mask_B111)
    return pair_batch(mixed_BCHW, targets, draws.partner, draws.lam, mask_B111, num_classes)


def draw_cutmix(
    shape: BatchShape,
    *,
    strength: float,
    generator: Generator,
    per: Per = "image",
    rule: BoxRule = "timm",
) -> CutMixDraws:
    """Draw partners and boxes: area 1 - Beta(strength, strength), center uniform over the pixels.

    Args:
        shape: shape of the batch.
        strength: alpha, positive.
        generator: source of randomness.
        per: a box for each image, or one for the batch as in the authors' code.
        rule: how an odd side is laid around the center, see `centered_box`.
    """
    batch, *size = shape
    partner_B = draw_partner(batch, generator)
    lam_B = draw_beta(batch, strength, generator, per=per)
    row_B, column_B = (draw_index(batch, length, generator, per=per) for length in size)
    box_B4 = centered_box((1 - lam_B).sqrt(), row_B, column_B, (shape.height, shape.width), rule)
    return CutMixDraws(partner_B, lam_B, box_B4)


def apply_cutmix(
    images_BCHW: Tensor,
    targets: Tensor,
    draws: CutMixDraws,
    *,
    num_classes: int | None = None,
    saliency_BHW: Tensor | None = None,
    previous: MixedBatch | None = None,
    label: Literal["area", "drawn"] = "area",
) -> MixedBatch:
    """Paste a box of the partner.

    Yun et al., https://arxiv.org/abs/1905.04899.

    Args:
        images_BCHW: (B, C, H, W) floating point.
        targets: (B,) or (B, K), see `soft_targets`.
        draws: what `draw_cutmix` returns.
        num_classes: number of classes, for integer targets.
        saliency_BHW: not used.
        previous: not used.
        label: ``area`` takes ``lam`` from the box as it was cut at the border; ``drawn`` leaves
            it as drawn (timm without ``correct_lam``), so that labels and pixels disagree.
    """
    check_images(images_BCHW, draws.partner)
    height, width = images_BCHW.shape[2:]
    mask_B1HW = box_mask(draws.box, (height, width))
    lam_B = box_lam(draws.box, (height, width)) if label == "area" else draws.lam
    mixed_BCHW = paste(images_BCHW, take(images_BCHW, draws.partner), mask_B1HW)
    return pair_batch(mixed_BCHW, targets, draws.partner, lam_B, mask_B1HW, num_classes)
