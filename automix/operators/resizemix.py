"""ResizeMix: the whole partner, made smaller, is pasted."""

from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

from automix.operators.blend import Interpolation, pair_batch, paste, resize_into_box
from automix.operators.sampling import (
    Per,
    aligned,
    box_lam,
    box_mask,
    centered_box,
    check_align,
    check_images,
    draw_partner,
    draw_uniform,
)
from automix.operators.types import BatchShape, MixedBatch

# Smallest side of the pasted image, as a fraction of the image's; the published value.
_SMALLEST_SIDE = 0.1


class ResizeMixDraws(NamedTuple):
    """Parameters of `apply_resizemix`."""

    partner: Tensor  # (B,) int64
    box: Tensor  # (B, 4) int64, (y0, y1, x0, x1), where the whole partner is shown


def draw_resizemix(
    shape: BatchShape,
    *,
    strength: float,
    generator: Generator,
    per: Per = "image",
    placement: Literal["clipped", "inside"] = "clipped",
    align: int = 1,
) -> ResizeMixDraws:
    """Draw partners, and boxes with sides uniform in [0.1, strength) of the image's.

    OpenMixup draws one box ``per`` batch. The placement ``clipped`` draws the center anywhere and
    cuts the box at the border, so the partner is squeezed (OpenMixup); ``inside`` places the box
    wholly inside. ``align`` is that of `centered_box`.

    Raises:
        ValueError: the strength is not within (0.1, 1], or ``align`` does not divide the image.
    """
    if not _SMALLEST_SIDE < strength <= 1:
        raise ValueError(f"strength: expected above {_SMALLEST_SIDE} and up to 1, got {strength}")
    batch, height, width = shape
    check_align(align, (height, width))
    partner_B = draw_partner(batch, generator)
    side_B = draw_uniform(batch, generator, low=_SMALLEST_SIDE, high=strength, per=per)
    down_B = draw_uniform(batch, generator, per=per)
    across_B = draw_uniform(batch, generator, per=per)
    if placement == "inside":
        bounds = [*_inside(side_B, down_B, height), *_inside(side_B, across_B, width)]
        return ResizeMixDraws(partner_B, aligned(torch.stack(bounds, 1), align))
    row_B, column_B = (down_B * height).to(torch.int64), (across_B * width).to(torch.int64)
    size = (height, width)
    box_B4 = centered_box(side_B, row_B, column_B, size, "clovaai", align=align)
    return ResizeMixDraws(partner_B, box_B4)


def _inside(side_B: Tensor, place_B: Tensor, length: int) -> tuple[Tensor, Tensor]:
    span_B = (side_B * length).to(torch.int64)
    # A span of n pixels has length + 1 - n places.
    start_B = (place_B * (length + 1 - span_B)).to(torch.int64)
    return start_B, start_B + span_B


def apply_resizemix(
    images_BCHW: Tensor,
    targets: Tensor,
    draws: ResizeMixDraws,
    *,
    num_classes: int | None = None,
    interpolation: Interpolation = "nearest",
) -> MixedBatch:
    """Paste the whole partner, resized into a box; ``lam`` is the area outside the box.

    Qin et al. 2020, https://arxiv.org/abs/2012.11101. The mask says where the partner is; its
    pixels are not those of the partner at the same place. ``interpolation`` is that of
    `resize_into_box`; OpenMixup's default is nearest.

    Examples:
        >>> box = torch.tensor([[0, 4, 0, 4]])  # a quarter of 8 x 8 pixels
        >>> draws = ResizeMixDraws(partner=torch.tensor([0]), box=box)
        >>> image = torch.arange(64.0).view(1, 1, 8, 8)
        >>> mixed = apply_resizemix(image, torch.tensor([0]), draws, num_classes=1)
        >>> mixed.lam.tolist(), mixed.images[0, 0, 0].tolist()
        ([0.75], [0.0, 2.0, 4.0, 6.0, 4.0, 5.0, 6.0, 7.0])
    """
    check_images(images_BCHW, draws.partner)
    size = (images_BCHW.shape[2], images_BCHW.shape[3])
    pasted_BCHW = resize_into_box(images_BCHW, draws.partner, draws.box, size, interpolation)
    mask_B1HW = box_mask(draws.box, size)
    mixed_BCHW = paste(images_BCHW, pasted_BCHW, mask_B1HW)
    lam_B = box_lam(draws.box, size)
    return pair_batch(mixed_BCHW, targets, draws.partner, lam_B, mask_B1HW, num_classes)
