"""RecursiveMix: the mixed batch of the step before, made smaller, is pasted."""

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from automix.operators.blend import (
    Interpolation,
    is_channels_last,
    mix_rows,
    paste,
    resize_into_box,
    soft_targets,
)
from automix.operators.sampling import (
    Per,
    box_lam,
    box_mask,
    centered_box,
    check_images,
    draw_index,
    draw_uniform,
)
from automix.operators.types import BatchShape, MixedBatch


class RecursiveMixDraws(NamedTuple):
    """Parameters of `apply_recursivemix`."""

    box: Tensor  # (B, 4) int64, (y0, y1, x0, x1), where the previous batch is shown


def draw_recursivemix(
    shape: BatchShape,
    *,
    strength: float,
    generator: Generator,
    per: Per = "image",
    align: int = 1,
) -> RecursiveMixDraws:
    """Draw boxes with areas uniform in [0, strength) and centers uniform over the pixels.

    The strength is the largest area, as a fraction of the image's, before it is cut at the
    border. The authors draw one box ``per`` batch. ``align`` is that of `centered_box`.

    Raises:
        ValueError: the strength is not within (0, 1].
    """
    if not 0 < strength <= 1:
        raise ValueError(f"strength: expected above 0 and up to 1, got {strength}")
    batch, height, width = shape
    area_B = draw_uniform(batch, generator, high=strength, per=per)
    row_B = draw_index(batch, height, generator, per=per)
    column_B = draw_index(batch, width, generator, per=per)
    size = (height, width)
    box_B4 = centered_box(area_B.sqrt(), row_B, column_B, size, "clovaai", align=align)
    return RecursiveMixDraws(box_B4)


def apply_recursivemix(
    images_BCHW: Tensor,
    targets: Tensor,
    draws: RecursiveMixDraws,
    *,
    num_classes: int | None = None,
    previous: MixedBatch | None = None,
    interpolation: Interpolation = "nearest",
) -> MixedBatch:
    """Paste the mixed image that had the same place in the batch before.

    Yang et al. 2022, https://arxiv.org/abs/2203.06844. With a the area of the box, the targets are
    recursive: ``y~(t) = (1 - a) y(t) + a y~(t - 1)``. What is carried from step to step is the
    value this returns, of which the images and targets are read; it belongs in a checkpoint.
    Without a previous batch, at the first step, the images stay as they are. A smaller batch uses
    the first of the previous images, a larger one begins again with the first.

    The returned ``partner`` counts in the previous batch, so there is no mask for this one, and
    ``partner_targets`` are the soft targets of the previous batch.

    Raises:
        ValueError: the previous batch has other channels or classes.

    Examples:
        >>> quarter = RecursiveMixDraws(torch.tensor([[0, 4, 0, 4]]))
        >>> image = torch.ones(1, 3, 8, 8)
        >>> mixed = apply_recursivemix(image, torch.tensor([0]), quarter, num_classes=3)
        >>> for target in (1, 2):
        ...     mixed = apply_recursivemix(
        ...         image, torch.tensor([target]), quarter, num_classes=3, previous=mixed
        ...     )
        >>> mixed.targets.tolist()
        [[0.0625, 0.1875, 0.75]]
    """
    check_images(images_BCHW, draws.box)
    batch, _, height, width = images_BCHW.shape
    own_BK = soft_targets(targets, batch, num_classes)
    slot_B = torch.arange(batch, device=images_BCHW.device)
    # At the first step each image is its own partner, as in the operator none.
    if previous is None:
        mixed_BCHW, previous_BK = images_BCHW, own_BK
        lam_B = torch.ones(batch, device=images_BCHW.device)
    else:
        _check_previous(previous, images_BCHW, own_BK)
        # Batches need not be of one size: the last of an epoch is often smaller.
        slot_B = slot_B % previous.images.shape[0]
        previous_BK = previous.targets.index_select(0, slot_B)
        pasted_BCHW = resize_into_box(
            previous.images, slot_B, draws.box, (height, width), interpolation
        ).to(images_BCHW.dtype)
        if is_channels_last(images_BCHW):  # as `paste` needs it, whatever the batch before was
            pasted_BCHW = pasted_BCHW.contiguous(memory_format=torch.channels_last)
        mixed_BCHW = paste(images_BCHW, pasted_BCHW, box_mask(draws.box, (height, width)))
        lam_B = box_lam(draws.box, (height, width))
    return MixedBatch(
        images=mixed_BCHW,
        targets=mix_rows(own_BK, previous_BK, lam_B),
        partner=slot_B,
        lam=lam_B,
        mask=None,
        own_targets=targets,
        partner_targets=previous_BK,
    )


def _check_previous(previous: MixedBatch, images_BCHW: Tensor, own_BK: Tensor) -> None:
    channels, classes = previous.images.shape[1], previous.targets.shape[1]
    if (channels, classes) != (images_BCHW.shape[1], own_BK.shape[1]):
        raise ValueError(
            f"previous: expected {images_BCHW.shape[1]} channels and {own_BK.shape[1]} classes, "
            f"got {channels} and {classes}"
        )
