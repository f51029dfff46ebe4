"""None, Mixup and CutMix: where pixels come from does not depend on the images."""

from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

from automix.operators.blend import blend, pair_batch, paste, take
from automix.operators.host import is_host
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
    """Parameters of `apply_none`."""

    partner: Tensor  # (B,) int64, each image itself


def draw_none(shape: BatchShape, *, strength: float, generator: Generator) -> NoneDraws:
    """Draw nothing: each image is its own partner."""
    return NoneDraws(torch.arange(shape.batch, device=generator.device))


def apply_none(
    images_BCHW: Tensor, targets: Tensor, draws: NoneDraws, *, num_classes: int | None = None
) -> MixedBatch:
    """Return the batch as it is, with soft targets; the images are those passed in, not a copy."""
    check_images(images_BCHW, draws.partner)
    batch = images_BCHW.shape[0]
    one = torch.ones(1, device=images_BCHW.device)
    lam_B = one.expand(batch)
    mask_B111 = (1 - one).expand(batch, 1, 1, 1)
    return pair_batch(images_BCHW, targets, draws.partner, lam_B, mask_B111, num_classes)


class MixupDraws(NamedTuple):
    """Parameters of `apply_mixup`."""

    partner: Tensor  # (B,) int64
    lam: Tensor  # (B,) float32 in [0, 1]


def draw_mixup(
    shape: BatchShape, *, strength: float, generator: Generator, per: Per = "image"
) -> MixupDraws:
    """Draw partners, and ``lam`` from Beta(strength, strength).

    The authors draw one ``lam`` ``per`` batch.
    """
    partner_B = draw_partner(shape.batch, generator)
    return MixupDraws(partner_B, draw_beta(shape.batch, strength, generator, per=per))


def apply_mixup(
    images_BCHW: Tensor, targets: Tensor, draws: MixupDraws, *, num_classes: int | None = None
) -> MixedBatch:
    """Blend whole images: ``lam * x + (1 - lam) * x[partner]``, and labels by the same weights.

    Zhang et al. 2018, https://arxiv.org/abs/1710.09412.

    Examples:
        >>> draws = MixupDraws(partner=torch.tensor([1, 0]), lam=torch.tensor([0.75, 0.5]))
        >>> mixed = apply_mixup(torch.ones(2, 3, 8, 8), torch.tensor([0, 1]), draws, num_classes=2)
        >>> mixed.targets.tolist()
        [[0.75, 0.25], [0.5, 0.5]]
    """
    check_images(images_BCHW, draws.partner)
    # A mask of one value for each image, which broadcasts over its pixels.
    mask_B111 = 1 - draws.lam.view(-1, 1, 1, 1)
    mixed_BCHW = blend(images_BCHW, take(images_BCHW, draws.partner), mask_B111)
    return pair_batch(mixed_BCHW, targets, draws.partner, draws.lam, mask_B111, num_classes)


class CutMixDraws(NamedTuple):
    """Parameters of `apply_cutmix`."""

    partner: Tensor  # (B,) int64
    lam: Tensor  # (B,) float32, what the own image keeps before the box is cut at the border
    box: Tensor  # (B, 4) int64, (y0, y1, x0, x1)


def draw_cutmix(
    shape: BatchShape,
    *,
    strength: float,
    generator: Generator,
    per: Per = "image",
    rule: BoxRule = "timm",
    align: int = 1,
) -> CutMixDraws:
    """Draw partners and boxes: area 1 - Beta(strength, strength), center uniform over the pixels.

    The authors draw one box ``per`` batch. ``rule`` and ``align`` are those of `centered_box`.
    """
    batch, *size = shape
    partner_B = draw_partner(batch, generator)
    lam_B = draw_beta(batch, strength, generator, per=per)
    row_B, column_B = (draw_index(batch, length, generator, per=per) for length in size)
    # Both sides are the same fraction of the image's, so an area of 1 - lam needs its root.
    image_size = (shape.height, shape.width)
    box_B4 = centered_box((1 - lam_B).sqrt(), row_B, column_B, image_size, rule, align=align)
    return CutMixDraws(partner_B, lam_B, box_B4)


def apply_cutmix(
    images_BCHW: Tensor,
    targets: Tensor,
    draws: CutMixDraws,
    *,
    num_classes: int | None = None,
    label: Literal["area", "drawn"] = "area",
    in_place: bool = False,
) -> MixedBatch:
    """Paste a box of the partner: ``lam`` is the fraction of the image that is left.

    Yun et al. 2019, https://arxiv.org/abs/1905.04899. With the label ``area``, ``lam`` is that of
    the box as it was cut at the border; with ``drawn`` it stays as drawn (timm without
    ``correct_lam``), so that labels and pixels disagree. ``in_place`` allows that the images, if no
    gradient is wanted of them, are written over and returned: with one box for all images, on a
    CPU, only its pixels are then copied. Elsewhere that would not be faster, and they stay.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> draws = draw_cutmix(BatchShape(4, 8, 8), strength=1.0, generator=generator)
        >>> mixed = apply_cutmix(torch.ones(4, 3, 8, 8), torch.arange(4), draws, num_classes=4)
        >>> torch.equal(mixed.lam, 1 - mixed.mask.mean((1, 2, 3)))
        True
    """
    check_images(images_BCHW, draws.partner)
    height, width = images_BCHW.shape[2:]
    lam_B = box_lam(draws.box, (height, width)) if label == "area" else draws.lam
    if in_place and is_host(images_BCHW) and bool((draws.box == draws.box[:1]).all()):
        mask_B1HW = box_mask(draws.box[:1], (height, width))
        mixed_BCHW = _paste_box(images_BCHW, draws.partner, draws.box[0].tolist())
    else:
        mask_B1HW = box_mask(draws.box, (height, width))
        mixed_BCHW = paste(images_BCHW, take(images_BCHW, draws.partner), mask_B1HW)
    return pair_batch(mixed_BCHW, targets, draws.partner, lam_B, mask_B1HW, num_classes)


def _paste_box(images_BCHW: Tensor, partner_B: Tensor, box: list[int]) -> Tensor:
    """Write the same box of each partner into the images, and return them."""
    y0, y1, x0, x1 = box
    inside = images_BCHW[:, :, y0:y1, x0:x1]
    inside.copy_(inside.index_select(0, partner_B))
    return images_BCHW
