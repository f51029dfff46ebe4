"""The one blend that all operators share, and the value they return.

Shape suffixes: B batch, C channels, H rows, W columns, K classes.
"""

import torch
from torch import Tensor

from automix.operators.targets import mix_rows, soft_targets
from automix.operators.types import MixedBatch


def is_channels_last(images_BCHW: Tensor) -> bool:
    """Return whether images are channels-last in memory and not also contiguous."""
    return not images_BCHW.is_contiguous() and images_BCHW.is_contiguous(
        memory_format=torch.channels_last
    )


def take(images_BCHW: Tensor, index_N: Tensor) -> Tensor:
    """Return copies of the images at an index, in the memory format of the input.

    ``index_select`` takes half the time of ``images[index]`` but returns channels-last images
    as contiguous ones, so those go through a view.
    """
    if is_channels_last(images_BCHW):
        return images_BCHW.permute(0, 2, 3, 1).index_select(0, index_N).permute(0, 3, 1, 2)
    return images_BCHW.index_select(0, index_N)


def blend(images_BCHW: Tensor, partner_BCHW: Tensor, mask_B1HW: Tensor) -> Tensor:
    """Return ``(1 - mask) * images + mask * partner``, written over the partner images.

    Where the mask is 0 or 1 the pixels are exactly those of one image, if both are finite.
    ``torch.lerp`` with a broadcast mask takes a tenth of the time of ``torch.where`` with a
    boolean one on a CPU, and in place two thirds of the time of a new result.

    Args:
        images_BCHW: (B, C, H, W) first parents.
        partner_BCHW: (B, C, H, W) second parents, a copy that the caller owns: what `take` or
            `resize_into_box` return. Memory format and dtype are those of the images.
        mask_B1HW: (B, 1, H, W) or (B, 1, 1, 1) in [0, 1], weight of the second parent.
    """
    return partner_BCHW.lerp_(images_BCHW, (1 - mask_B1HW).to(images_BCHW.dtype))


def paste(images_BCHW: Tensor, partner_BCHW: Tensor, mask_B1HW: Tensor) -> Tensor:
    """Return what `blend` does, for masks of 0 and 1: the same bits in a pass less.

    Args:
        images_BCHW: as of `blend`.
        partner_BCHW: as of `blend`; written over, unless gradients are recorded.
        mask_B1HW: as of `blend`, but of these values only.
    """
    mask_B1HW = mask_B1HW.to(images_BCHW.dtype)
    if images_BCHW.requires_grad or partner_BCHW.requires_grad:
        return torch.lerp(images_BCHW, partner_BCHW, mask_B1HW)
    return torch.lerp(images_BCHW, partner_BCHW, mask_B1HW, out=partner_BCHW)


def mask_lam(mask_B1HW: Tensor) -> Tensor:
    """Return the share of each image that a mask leaves to it, (B,) float32."""
    return 1 - mask_B1HW.mean((1, 2, 3))


def pair_batch(
    mixed_BCHW: Tensor,
    targets: Tensor,
    partner_B: Tensor,
    lam_B: Tensor,
    mask_B1HW: Tensor,
    num_classes: int | None,
) -> MixedBatch:
    """Return the value of an operator that mixes each image with one other of the batch.

    Args:
        mixed_BCHW: (B, C, H, W) mixed images.
        targets: as the caller gave them, see `soft_targets`.
        partner_B: (B,) int64.
        lam_B: (B,) label weight of the batch's own image.
        mask_B1HW: (B, 1, H, W), or (B, 1, 1, 1) for a constant weight.
        num_classes: number of classes, for integer targets.
    """
    batch, _, height, width = mixed_BCHW.shape
    rows_BK = soft_targets(targets, batch, num_classes)
    return MixedBatch(
        images=mixed_BCHW,
        targets=mix_rows(rows_BK, rows_BK.index_select(0, partner_B), lam_B),
        partner=partner_B,
        lam=lam_B,
        mask=mask_B1HW.expand(batch, 1, height, width),
        own_targets=targets,
        partner_targets=targets.index_select(0, partner_B),
    )
