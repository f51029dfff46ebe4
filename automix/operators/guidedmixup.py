"""GuidedMixup: each pixel blended by the ratio of two saliencies, partners far apart.

Shape suffixes: N numbers in a map (H * W).
"""

import math
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.nn import functional as F

from automix.operators.blend import blend, mask_lam, pair_batch, take
from automix.operators.host import by_blocks, is_host
from automix.operators.sampling import check_images, draw_partner, required_saliency, unit_sum
from automix.operators.types import BatchShape, MixedBatch


class GuidedMixupDraws(NamedTuple):
    """Parameters of `apply_guidedmixup`."""

    partner: Tensor | None  # (B,) int64; None for the greedy pairing, which needs no draw


def draw_guidedmixup(
    shape: BatchShape,
    *,
    strength: float,
    generator: Generator,
    pairing: Literal["greedy", "random"] = "greedy",
) -> GuidedMixupDraws:
    """Draw partners, or leave them to the greedy pairing; ``strength`` has no effect.

    The pairing is ``greedy`` in the paper, see `greedy_partner`, and ``random`` in its published
    program, by mistake; random pairs save the cost of the pairing.
    """
    return GuidedMixupDraws(draw_partner(shape.batch, generator) if pairing == "random" else None)


def apply_guidedmixup(
    images_BCHW: Tensor,
    targets: Tensor,
    draws: GuidedMixupDraws,
    *,
    saliency_BHW: Tensor | None,
    num_classes: int | None = None,
) -> MixedBatch:
    """Blend each pixel by its saliency: ``mask = s_partner / (s_own + s_partner)``.

    Kang and Kim 2023, https://arxiv.org/abs/2306.16612. ``s`` is a map blurred (7 x 7, sigma 3)
    and divided by its sum; ``lam`` is the mean of ``1 - mask``. Where neither image has saliency,
    both weigh the same.

    Examples:
        >>> images, saliency = torch.ones(2, 3, 8, 8), torch.ones(2, 8, 8)
        >>> draws, targets = GuidedMixupDraws(partner=None), torch.arange(2)
        >>> mixed = apply_guidedmixup(images, targets, draws, saliency_BHW=saliency, num_classes=2)
        >>> mixed.partner.tolist(), mixed.lam.tolist()
        ([1, 0], [0.5, 0.5])
    """
    check_images(images_BCHW, draws.partner)
    saliency_BHW = required_saliency(saliency_BHW, images_BCHW)
    own_BHW = by_blocks(lambda part: unit_sum(gaussian_blur(saliency_BHW[part])), saliency_BHW)
    partner_B = greedy_partner(own_BHW) if draws.partner is None else draws.partner
    mask_BHW = by_blocks(partial(_mask, own_BHW, partner_B), own_BHW)
    mask_B1HW = mask_BHW.unsqueeze(1)
    mixed_BCHW = blend(images_BCHW, take(images_BCHW, partner_B), mask_B1HW)
    lam_B = mask_lam(mask_B1HW)
    return pair_batch(mixed_BCHW, targets, partner_B, lam_B, mask_B1HW, num_classes)


def _mask(own_BHW: Tensor, partner_B: Tensor, part: slice) -> Tensor:
    partner_BHW = own_BHW.index_select(0, partner_B[part])
    return partner_BHW.div_(own_BHW[part] + partner_BHW).nan_to_num_(0.5)


def gaussian_blur(maps_BHW: Tensor, *, size: int = 7, sigma: float = 3.0) -> Tensor:
    """Return maps blurred by a Gaussian, the border mirrored without repeating the edge.

    ``size``, odd, is the width of the kernel in pixels, and ``sigma`` its deviation.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size: expected an odd positive number, got {size}")
    if not sigma > 0:
        raise ValueError(f"sigma: expected a positive number, got {sigma}")
    height, width = maps_BHW.shape[1:]
    # A side of fewer than size // 2 + 1 pixels has nothing to mirror beyond: the kernel is cut.
    rows, columns = (min(size // 2, length - 1) for length in (height, width))
    padded = F.pad(maps_BHW, (columns, columns, rows, rows), mode="reflect")
    # A sum of shifted maps along rows, then along columns: for 224 x 224 maps a twentieth of the
    # time of a convolution with one channel on a CPU (1.5 against 39 ms for 16 maps), and never
    # computed in a lower precision by autocast or TF32.
    return _blur_along(_blur_along(padded, 1, rows, sigma), 2, columns, sigma)


def _blur_along(padded: Tensor, dimension: int, radius: int, sigma: float) -> Tensor:
    weights = [math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(radius + 1)]
    total = 2 * sum(weights) - weights[0]
    length = padded.shape[dimension] - 2 * radius
    blurred = padded.narrow(dimension, radius, length) * (weights[0] / total)
    for offset in range(1, radius + 1):
        for start in (radius - offset, radius + offset):
            blurred.add_(padded.narrow(dimension, start, length), alpha=weights[offset] / total)
    return blurred


def greedy_partner(maps_BHW: Tensor) -> Tensor:
    """Return partners whose maps are far apart, (B,) int64: a permutation in one cycle.

    The two maps with the largest L2 distance begin the cycle, the farthest image not used yet
    follows each, and the last gets the first. (The published program asks for this pairing under
    a wrong name and gets a random one.) One image keeps itself.

    The distances take B x B numbers, not B x B maps. The chain is sequential by definition:
    B - 2 steps that depend on one another: on a device three small kernels each and nothing read by
    the host. On a CPU it takes 18 to 57 microseconds per image from B = 128 to 1,024 maps of
    32 x 32, nearly all for the distances.
    """
    partner_B: Tensor = torch.ops.automix.greedy_cycle(maps_BHW.detach().flatten(1))
    return partner_B


# Below every distance, so that what is used is never the farthest.
_USED = -1.0


def greedy_cycle(maps_BN: Tensor) -> Tensor:
    """Return what `greedy_partner` does, of flattened maps."""
    batch = maps_BN.shape[0]
    if batch < 3:
        return torch.arange(batch - 1, -1, -1, device=maps_BN.device)
    distance_BB = torch.cdist(maps_BN, maps_BN)
    # Both halves hold the same pairs, but not to the last bit.
    is_upper_BB = torch.ones_like(distance_BB, dtype=torch.bool).triu(1)
    farthest = distance_BB.where(is_upper_BB, _USED).argmax()
    cycle_B = torch.empty(batch, dtype=torch.int64, device=maps_BN.device)
    cycle_B[0], cycle_B[1] = farthest // batch, farthest % batch
    distance_BB.index_fill_(1, cycle_B[:2], _USED)
    if is_host(distance_BB):
        _chain_on_host(distance_BB.numpy(), cycle_B.numpy())
    else:
        for position in range(1, batch - 1):
            row_1B = distance_BB.index_select(0, cycle_B[position : position + 1])
            following = cycle_B[position + 1 : position + 2]
            torch.argmax(row_1B, 1, out=following)
            distance_BB.index_fill_(1, following, _USED)
    # From the order of the cycle to the successor of each image.
    return torch.empty_like(cycle_B).scatter_(0, cycle_B, cycle_B.roll(-1))


def _chain_on_host(distance_BB: NDArray[np.float32], cycle_B: NDArray[np.int64]) -> None:
    """Write the cycle from its third image on: a tenth of the time of steps of three kernels."""
    # Added to a row, not written into the columns of all rows, which miss the cache each time.
    used_B = np.zeros_like(distance_BB[0])
    image = cycle_B[1]
    for position in range(2, len(cycle_B)):
        image = (distance_BB[image] + used_B).argmax()
        used_B[image] = -np.inf
        cycle_B[position] = image


def _cycle_shape(maps_BN: Tensor) -> Tensor:
    """Return the form of the result, for tracing."""
    return maps_BN.new_empty(maps_BN.shape[0], dtype=torch.int64)


# One operation to the compiler, which would unroll the chain and recompile for each batch size.
# Not `torch.library.custom_op`, whose first call imports 900 modules and takes seconds.
_LIBRARY = torch.library.Library("automix", "DEF")  # type: ignore[no-untyped-call]
_LIBRARY.define("greedy_cycle(Tensor maps) -> Tensor")  # type: ignore[no-untyped-call]
_LIBRARY.impl(  # type: ignore[no-untyped-call]
    "greedy_cycle", greedy_cycle, "CompositeExplicitAutograd"
)
torch.library.register_fake("automix::greedy_cycle", _cycle_shape, lib=_LIBRARY)
