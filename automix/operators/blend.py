"""Pixels and labels of a mixed batch, once it is known what comes from where.

Shape suffixes: N source images of a batch of B.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from automix.operators.host import is_host
from automix.operators.types import MixedBatch


def is_channels_last(images_BCHW: Tensor) -> bool:
    """Return whether images are channels-last in memory and not also contiguous."""
    return not images_BCHW.is_contiguous() and images_BCHW.is_contiguous(
        memory_format=torch.channels_last
    )


def take(images_BCHW: Tensor, index_N: Tensor) -> Tensor:
    """Return copies of the images at an index, in the memory format of the input."""
    # index_select takes half the time of images[index] but returns channels-last images as
    # contiguous ones, so those go through a view.
    if is_channels_last(images_BCHW):
        return images_BCHW.permute(0, 2, 3, 1).index_select(0, index_N).permute(0, 3, 1, 2)
    return images_BCHW.index_select(0, index_N)


def blend(images_BCHW: Tensor, partner_BCHW: Tensor, mask_B1HW: Tensor) -> Tensor:
    """Return ``(1 - mask) * images + mask * partner``, written over the partner images.

    Where the mask is 0 or 1 the pixels are exactly those of one image, if both are finite. The
    partner images are a copy that the caller owns, as `take` and `resize_into_box` return them. A
    mask of (B, 1, 1, 1) has one weight for each image.
    """
    # lerp with a broadcast mask takes a tenth of the time of torch.where with a boolean one on a
    # CPU, and in place two thirds of the time of a new result.
    return partner_BCHW.lerp_(images_BCHW, (1 - mask_B1HW).to(images_BCHW.dtype))


def paste(images_BCHW: Tensor, partner_BCHW: Tensor, mask_B1HW: Tensor) -> Tensor:
    """Return what `blend` does, for masks of 0 and 1 only: the same bits in a pass less.

    The partner images are written over, unless gradients are recorded.
    """
    mask_B1HW = mask_B1HW.to(images_BCHW.dtype)
    if images_BCHW.requires_grad or partner_BCHW.requires_grad:
        return torch.lerp(images_BCHW, partner_BCHW, mask_B1HW)
    return torch.lerp(images_BCHW, partner_BCHW, mask_B1HW, out=partner_BCHW)


def mask_lam(mask_B1HW: Tensor) -> Tensor:
    """Return the fraction of each image that a mask leaves to it, (B,) float32."""
    return 1 - mask_B1HW.mean((1, 2, 3))


Interpolation = Literal["nearest", "bilinear"]


def resize_into_box(
    images_NCHW: Tensor,
    index_B: Tensor,
    box_B4: Tensor,
    size: tuple[int, int],
    interpolation: Interpolation = "nearest",
) -> Tensor:
    """Return images whose box shows a whole source image; outside the box they mean nothing.

    ``nearest`` shows source row floor(i H / n) in row i of n; ``bilinear`` samples at
    (i + 1/2) H / n - 1/2, clamped, without antialiasing. The result, (B, C, *size), is a copy in
    the dtype and memory format of the sources, whose size may be another.
    """
    if interpolation == "bilinear":
        return _bilinear(take(images_NCHW, index_B), box_B4, size)
    return _nearest(images_NCHW, index_B, box_B4, size)


def _nearest(images_NCHW: Tensor, index_B: Tensor, box_B4: Tensor, size: tuple[int, int]) -> Tensor:
    batch, (_, channels, height, width) = index_B.shape[0], images_NCHW.shape
    row_BH = _source_index(box_B4[:, 0:1], box_B4[:, 1:2], height, size[0])
    column_BW = _source_index(box_B4[:, 2:3], box_B4[:, 3:4], width, size[1])
    channel_C = torch.arange(channels, device=index_B.device)
    first_B1 = (index_B * (channels * height * width)).unsqueeze(1)
    # One index into all elements, in 32 bits where they suffice and without its columns up to the
    # last sum: on a CPU four fifths of the time of copying the sources and gathering from these.
    kind = torch.int64 if images_NCHW.numel() >= 2**31 else torch.int32
    if is_channels_last(images_NCHW):
        stored, shape = images_NCHW.permute(0, 2, 3, 1), (batch, *size, channels)
        line_BH = (row_BH * (width * channels) + first_B1).to(kind)
        pixel_BHW = line_BH.unsqueeze(2) + (column_BW * channels).to(kind).unsqueeze(1)
        place = pixel_BHW.unsqueeze(3) + channel_C.to(kind)
    else:
        stored, shape = images_NCHW, (batch, channels, *size)
        line_BH = row_BH * width + first_B1
        line_BCH = line_BH.unsqueeze(1) + (channel_C * (height * width)).unsqueeze(1)
        place = line_BCH.to(kind).unsqueeze(3) + column_BW.to(kind).view(batch, 1, 1, -1)
    shown = stored.flatten().index_select(0, place.flatten()).view(shape)
    return shown.permute(0, 3, 1, 2) if is_channels_last(images_NCHW) else shown


def _source_index(low_B1: Tensor, high_B1: Tensor, source: int, length: int) -> Tensor:
    position_L = torch.arange(length, device=low_B1.device)
    # An empty box shows nothing, but must not divide by zero.
    span_B1 = (high_B1 - low_B1).clamp(min=1)
    return ((position_L - low_B1) * source // span_B1).clamp(0, source - 1)


def _bilinear(images_BCHW: Tensor, box_B4: Tensor, size: tuple[int, int]) -> Tensor:
    y_BH = _source_position(box_B4[:, 0:1], box_B4[:, 1:2], size[0])
    x_BW = _source_position(box_B4[:, 2:3], box_B4[:, 3:4], size[1])
    shape = (images_BCHW.shape[0], *size)
    grid_BHW2 = torch.stack([x_BW.unsqueeze(1).expand(shape), y_BH.unsqueeze(2).expand(shape)], 3)
    # In half precision a coordinate would be off by half a pixel in a 1000-pixel image.
    shown_BCHW = F.grid_sample(
        images_BCHW.to(torch.float32), grid_BHW2, padding_mode="border", align_corners=False
    )
    return shown_BCHW.to(images_BCHW.dtype)


def _source_position(low_B1: Tensor, high_B1: Tensor, length: int) -> Tensor:
    """Return positions in the source from -1 to 1, edge to edge."""
    position_L = torch.arange(length, device=low_B1.device) + 0.5
    return (position_L - low_B1) * 2 / (high_B1 - low_B1).clamp(min=1) - 1


def soft_targets(targets: Tensor, batch: int, num_classes: int | None = None) -> Tensor:
    """Return targets as rows, (B, K) float32.

    Args:
        targets: (B,) integer classes, or (B, K) one-hot, soft or multi-label targets of any
            number type. Those that are (B, K) float32 already are returned themselves.
        batch: B, the number of images.
        num_classes: K; needed for integer classes, checked against the columns otherwise.

    Raises:
        TypeError: (B,) targets that are not integers.
        ValueError: any other shape, or integer classes without ``num_classes`` or, on a CPU, out
            of their range.
    """
    shape = tuple(targets.shape)
    if targets.dim() not in (1, 2) or shape[0] != batch:
        columns = "K" if num_classes is None else num_classes
        raise ValueError(
            f"targets: expected shape ({batch},) or ({batch}, {columns}), one entry or row for "
            f"each image, got {shape}"
        )
    if targets.dim() == 1:
        return _one_hot(targets, num_classes)
    if num_classes is not None and shape[1] != num_classes:
        raise ValueError(f"targets: expected {num_classes} columns, got shape {shape}")
    if targets.is_complex():
        raise TypeError(f"targets: expected real numbers, got {targets.dtype}")
    return targets.to(torch.float32)


def _one_hot(targets_B: Tensor, num_classes: int | None) -> Tensor:
    if targets_B.is_floating_point() or targets_B.is_complex() or targets_B.dtype == torch.bool:
        raise TypeError(
            f"targets: expected integer classes for shape (B,), got {targets_B.dtype}; give soft "
            "or multi-label targets the shape (B, K)"
        )
    if num_classes is None:
        raise ValueError("num_classes: expected a number for integer targets, got None")
    classes_B = targets_B.to(torch.int64)
    if is_host(targets_B):
        check_classes(classes_B, num_classes)
    rows_BK = torch.zeros(
        (targets_B.shape[0], num_classes), dtype=torch.float32, device=targets_B.device
    )
    # Not torch.nn.functional.one_hot, which reads the largest class on the host.
    return rows_BK.scatter_(1, classes_B.unsqueeze(1), 1.0)


def check_classes(classes_B: Tensor, num_classes: int) -> None:
    """Refuse classes that are none of 0 to K - 1; reads from the device.

    Raises:
        ValueError: a class is out of range; the text has the likely remedy.
    """
    if len(classes_B) == 0:
        return
    low, high = (int(extreme) for extreme in classes_B.aminmax())
    if low >= 0 and high < num_classes:
        return
    remedy = "set num_classes to their number"
    if low < 0:
        remedy = "leave out images that a loss would ignore before they are mixed"
    elif low > 0 and high == num_classes:
        remedy = "subtract 1 from labels that count from 1"
    raise ValueError(
        f"targets: expected classes from 0 to {num_classes - 1}, got {low} to {high}; {remedy}"
    )


def mix_rows(own_BK: Tensor, partner_BK: Tensor, lam_B: Tensor) -> Tensor:
    """Return ``lam * own + (1 - lam) * partner`` for each row; exact for lam of 0 and 1."""
    return torch.lerp(partner_BK, own_BK, lam_B.unsqueeze(1))


def pair_batch(
    mixed_BCHW: Tensor,
    targets: Tensor,
    partner_B: Tensor,
    lam_B: Tensor,
    mask_B1HW: Tensor,
    num_classes: int | None,
) -> MixedBatch:
    """Return the value of an operator that mixes each image with one other of the batch.

    The label rule of all of these: ``lam * y + (1 - lam) * y[partner]``. The mask may be
    (B, 1, 1, 1) for a constant weight.
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
