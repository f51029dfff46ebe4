"""GridMix: a lattice of holes through which the partner is seen."""

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from automix.operators.blend import mask_lam, pair_batch, paste, take
from automix.operators.sampling import (
    Per,
    aligned,
    check_align,
    check_images,
    draw_beta,
    draw_index,
    draw_partner,
    draw_uniform,
)
from automix.operators.types import BatchShape, MixedBatch


class GridMixDraws(NamedTuple):
    """Parameters of `apply_gridmix`; all but the partner are (B,) float32."""

    partner: Tensor  # (B,) int64
    lam: Tensor  # 1 minus the area of a hole as a fraction of its patch
    num_holes: Tensor  # patches along the width of the region, a whole number
    hole_aspect: Tensor  # height of a patch over its width
    cut_area: Tensor  # area of the region as a fraction of the image's, before it is cut to it
    cut_aspect: Tensor  # height of the region over its width
    across: Tensor  # place of the region along the width, in [0, 1)
    down: Tensor  # place of the region along the height, in [0, 1)


def draw_gridmix(
    shape: BatchShape, *, strength: float, generator: Generator, per: Per = "image"
) -> GridMixDraws:
    """Draw partners, holes from Beta(strength, strength), and lattices.

    The ranges are those of OpenMixup's benchmark: 2 to 6 holes, square patches, a region of 1/2
    to all of the image with an aspect of 1/2 to 2. OpenMixup draws one lattice ``per`` batch.
    """
    batch = shape.batch
    return GridMixDraws(
        partner=draw_partner(batch, generator),
        lam=draw_beta(batch, strength, generator, per=per),
        num_holes=draw_index(batch, 5, generator, per=per).to(torch.float32) + 2,
        hole_aspect=torch.ones(batch, device=generator.device),
        cut_area=draw_uniform(batch, generator, low=0.5, high=1.0, per=per),
        cut_aspect=draw_uniform(batch, generator, low=0.5, high=2.0, per=per),
        across=draw_uniform(batch, generator, per=per),
        down=draw_uniform(batch, generator, per=per),
    )


def apply_gridmix(
    images_BCHW: Tensor,
    targets: Tensor,
    draws: GridMixDraws,
    *,
    num_classes: int | None = None,
    clamp_holes: bool = False,
    align: int = 1,
) -> MixedBatch:
    """Show the partner through a lattice of holes inside a region of the image.

    As benchmarked by OpenMixup; the paper, https://doi.org/10.1016/j.patcog.2020.107594, assigns
    the cells of a grid and adds a loss for each patch. OpenMixup's region exceeds the image in
    45 % of the draws, and 28 % wrap to the other side: here it is cut to the image first. It also
    keeps every hole between one pixel and one less than the patch, which ``clamp_holes`` repeats:
    ``lam`` then stays within about 0.23 and 0.98 whatever is drawn. Region and patches are
    rounded to multiples of ``align``, as `automix.operators.sampling.aligned` does it, holes to
    the nearest area.

    Raises:
        ValueError: ``align`` does not divide the sides of the image.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> draws = draw_gridmix(BatchShape(4, 8, 8), strength=1.0, generator=generator)
        >>> mixed = apply_gridmix(torch.ones(4, 3, 8, 8), torch.arange(4), draws, num_classes=4)
        >>> mixed.mask.unique().tolist(), torch.equal(mixed.lam, 1 - mixed.mask.mean((1, 2, 3)))
        ([0.0, 1.0], True)
    """
    check_images(images_BCHW, draws.partner)
    size = (images_BCHW.shape[2], images_BCHW.shape[3])
    check_align(align, size)
    mask_B1HW = _lattice(draws, size, clamp_holes, align)
    mixed_BCHW = paste(images_BCHW, take(images_BCHW, draws.partner), mask_B1HW)
    lam_B = mask_lam(mask_B1HW)
    return pair_batch(mixed_BCHW, targets, draws.partner, lam_B, mask_B1HW, num_classes)


def _lattice(draws: GridMixDraws, size: tuple[int, int], clamp_holes: bool, align: int) -> Tensor:
    """Return the holes: the outer product of two combs, (B, 1, H, W) float32."""
    height, width = size
    # The region: width w and height w * aspect with an area of w^2 * aspect, rounded down to
    # pixels at each step as OpenMixup does, and cut to the image.
    area_B = (draws.cut_area * (height * width)).floor()
    region_width_B = (area_B / draws.cut_aspect).sqrt().floor()
    region_height_B = (region_width_B * draws.cut_aspect).floor().clamp(max=height)
    region_width_B = region_width_B.clamp(max=width)
    # The lattice: patches of the region, each with a hole of area 1 - lam in its first corner.
    patch_width_B = (region_width_B / draws.num_holes).ceil()
    patch_height_B = (patch_width_B * draws.hole_aspect).floor()
    side_B = (1 - draws.lam).sqrt()
    combs = []
    for length, region_B, patch_B, place_B in (
        (height, region_height_B, patch_height_B, draws.down),
        (width, region_width_B, patch_width_B, draws.across),
    ):
        span_B, period_B = region_B, patch_B
        if align > 1:
            span_B, period_B = (aligned(it, align).clamp(min=align) for it in (region_B, patch_B))
        hole_B = _aligned_hole(period_B * side_B, align)
        if clamp_holes:
            hole_B = torch.minimum(hole_B.clamp(min=align), period_B - align)
        start_B = aligned(((length - span_B) * place_B).floor(), align)
        combs.append(_comb(length, torch.stack([start_B, span_B, period_B, hole_B])))
    return combs[0][:, None, :, None] * combs[1][:, None, None, :]


def _aligned_hole(side_B: Tensor, align: int) -> Tensor:
    """Return sides of holes in whole pixels, or as many patches as are nearest by area."""
    if align == 1:
        return side_B.floor()
    # Few patches fit into a period: nearest by length, three of four holes of one would be whole.
    patches_B = side_B / align
    low_B = patches_B.floor()
    middle_B = (low_B.square() + (low_B + 1).square()) / 2
    return (low_B + (patches_B.square() >= middle_B)) * align


def _comb(length: int, comb_4B: Tensor) -> Tensor:
    """Return 1 at the first ``hole`` of every ``patch`` pixels of a region, (B, length)."""
    start_B1, region_B1, patch_B1, hole_B1 = comb_4B.unsqueeze(2).unbind()
    offset_BL = torch.arange(length, device=comb_4B.device) - start_B1
    is_inside_BL = (offset_BL >= 0) & (offset_BL < region_B1)
    return (is_inside_BL & (offset_BL.remainder(patch_B1) < hole_B1)).to(torch.float32)
