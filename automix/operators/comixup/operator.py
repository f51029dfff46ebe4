"""Co-Mixup: the cells of a whole group of images are chosen jointly.

Shape suffixes: G groups, M images in a group (J as outputs, K as inputs; K is classes in targets).
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from automix.operators.blend import is_channels_last, soft_targets
from automix.operators.comixup.energy import CoMixupWeights, comixup_problem
from automix.operators.comixup.solver import MostInputs, solve_comixup
from automix.operators.sampling import (
    check_images,
    draw_gamma,
    draw_uniform,
    enlarge_cells,
    required_saliency,
)
from automix.operators.types import BatchShape, MixedBatch

_PUBLISHED_WEIGHTS = CoMixupWeights()


class CoMixupDraws(NamedTuple):
    """Parameters of `apply_comixup`."""

    prior: Tensor  # (B,) float32, positive; Dirichlet weights within a group, up to a factor
    order: Tensor  # (B,) float32 in [0, 1), order in which outputs get an input to share


def draw_comixup(shape: BatchShape, *, strength: float, generator: Generator) -> CoMixupDraws:
    """Draw the Dirichlet(strength, .., strength) prior over images, and an order.

    An image with a large prior is shown more. The published strength is 2.
    """
    return CoMixupDraws(
        prior=draw_gamma(shape.batch, strength, generator),
        order=draw_uniform(shape.batch, generator),
    )


def apply_comixup(
    images_BCHW: Tensor,
    targets: Tensor,
    draws: CoMixupDraws,
    *,
    saliency_BHW: Tensor | None,
    num_classes: int | None = None,
    weights: CoMixupWeights = _PUBLISHED_WEIGHTS,
    group: int = 20,
    most_inputs: MostInputs = "few",
) -> MixedBatch:
    """Choose for each cell of each output which image of its group it shows.

    Kim et al. 2021, https://arxiv.org/abs/2102.03065. The masks minimize the objective of
    `automix.operators.comixup.energy`; check one with `comixup_problem` and `comixup_objective`.
    The batch is divided into as few groups of at most ``group`` images as possible, of equal size
    or one image less, so that no image is left alone; the authors take 20 and what remains. The
    label weight of an image is its fraction of the pixels.

    An output shows up to 3 images, the published solver 2 to 4, of which its own is one as often
    as any other. A lower objective means more images and another augmentation: with ``most_inputs``
    None they are 6 to 11, and the own image has a third of the cells.

    ``partner`` in the result is the image that an output shows most of apart from its own, or its
    own if there is none; ``mask`` and ``partner_targets`` are None.

    Args:
        images_BCHW: (B, C, H, W) floating point, at least as many rows and columns as the grid.
        targets: (B,) or (B, K), see `soft_targets`.
        draws: what `draw_comixup` returns.
        saliency_BHW: (B, H, W) floating point, non-negative, any scale.
        num_classes: K, for integer targets.
        weights: grid and parameters of the objective.
        group: most images that are mixed with each other, 1 or more.
        most_inputs: how many images an output may show, see `solve_comixup`.

    Examples:
        Pixels that hold the class of their image show that labels follow the pixels.

        >>> generator = torch.Generator().manual_seed(0)
        >>> images = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 3, 8, 8)
        >>> saliency = torch.rand(5, 8, 8, generator=generator) ** 4
        >>> draws = draw_comixup(BatchShape(5, 8, 8), strength=2.0, generator=generator)
        >>> targets = torch.arange(5)
        >>> mixed = apply_comixup(images, targets, draws, saliency_BHW=saliency, num_classes=5)
        >>> torch.allclose(mixed.targets @ torch.arange(5.0), mixed.images.mean((1, 2, 3)))
        True
    """
    check_images(images_BCHW, draws.prior)
    # Choices have no gradient; the pixels that are shown keep theirs.
    saliency_BHW = required_saliency(saliency_BHW, images_BCHW).detach()
    batch, _, height, width = images_BCHW.shape
    rows_BK = soft_targets(targets, batch, num_classes)
    # 1. Pose the problem of each group; 2. solve it: two inputs for each cell; 3. show half of
    # each; 4. weigh labels by the pixels that were shown, whatever the solver aimed at.
    groups = _divide(batch, group, images_BCHW.device)
    problem = comixup_problem(
        saliency_BHW[groups.member], draws.prior[groups.member], groups.size, weights
    )
    order_GM = draws.order[groups.member]
    inputs_GJPP2 = solve_comixup(problem, order_GM, most_inputs=most_inputs)
    # From the place in a group, whose members follow each other, to the number in the batch.
    image_GJPP2 = inputs_GJPP2 + groups.member[:, 0].view(-1, 1, 1, 1, 1)
    image_BPP2 = image_GJPP2.flatten(0, 1).index_select(0, groups.place)
    first, second = (enlarge_cells(image, (height, width)) for image in image_BPP2.unbind(3))
    area_GJK = _pixel_fractions(inputs_GJPP2, (height, width))
    target_GJK = area_GJK @ rows_BK[groups.member].to(area_GJK.dtype)
    return MixedBatch(
        images=torch.lerp(_show(images_BCHW, first), _show(images_BCHW, second), 0.5),
        targets=target_GJK.flatten(0, 1).index_select(0, groups.place).to(torch.float32),
        partner=_most_shown(area_GJK, groups),
        lam=area_GJK.diagonal(dim1=1, dim2=2).flatten()[groups.place].to(torch.float32),
        mask=None,
        own_targets=targets,
        partner_targets=None,
    )


class _Groups(NamedTuple):
    """A batch in groups that follow each other."""

    member: Tensor  # (G, M) image at each place; the padding at the end repeats some image
    size: Tensor  # (G,) images of each group
    place: Tensor  # (B,) place of each image in the flattened groups


def _divide(batch: int, most: int, device: torch.device) -> _Groups:
    if most < 1:
        raise ValueError(f"group: expected 1 or more, got {most}")
    # The length of a range makes the batch size a constant for torch.compile. As a symbol it would
    # be in the shape of every tensor of the solver: 15 minutes of compilation and more, not 1.5.
    num_groups = len(range(0, batch, most))
    members = -(-batch // num_groups)
    edge = torch.arange(num_groups + 1, device=device) * batch // num_groups
    start_G = edge[:-1]
    image_B = torch.arange(batch, device=device)
    group_B = ((image_B + 1) * num_groups - 1) // batch
    member_GM = start_G.unsqueeze(1) + torch.arange(members, device=device)
    return _Groups(
        member=member_GM.clamp_max(batch - 1),
        size=edge[1:] - start_G,
        place=group_B * members + image_B - start_G.index_select(0, group_B),
    )


def _show(images_BCHW: Tensor, image_B1HW: Tensor) -> Tensor:
    """Return for each pixel that of the image with this number, in the input's memory format."""
    if is_channels_last(images_BCHW):
        shown_BHWC = _pick(images_BCHW.permute(0, 2, 3, 1), image_B1HW.permute(0, 2, 3, 1))
        return shown_BHWC.permute(0, 3, 1, 2)
    return _pick(images_BCHW, image_B1HW)


def _pick(images: Tensor, number: Tensor) -> Tensor:
    """Return each element from the image with its number, in a contiguous tensor."""
    # One index into all pixels, in 32 bits where they suffice: on a CPU less than half the time of
    # gather along the batch, whose inner loop jumps from image to image.
    size = images[0].numel()
    is_large = images.numel() >= 2**31
    element = torch.arange(
        size, device=images.device, dtype=torch.int64 if is_large else torch.int32
    )
    index = number.to(element.dtype) * size + element.view(images.shape[1:])
    return images.flatten().index_select(0, index.flatten()).view(images.shape)


def _pixel_fractions(inputs_GJPP2: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the fraction of the pixels of each output that each input has, (G, J, K) float64."""
    # In float64, because neither autocast nor the settings for matrix products in float32 change
    # the products with the targets then.
    groups, members, grid = inputs_GJPP2.shape[:3]
    rows_P, columns_P = (_pixels_of_cells(length, grid, inputs_GJPP2.device) for length in size)
    area_PP1 = (rows_P.unsqueeze(1) * columns_P).unsqueeze(2)
    # Whole numbers: sums of the same bits in any order. A cell counts once for each of its two.
    pixels_GJK = torch.zeros((groups, members, members), dtype=torch.int64, device=area_PP1.device)
    area = area_PP1.expand_as(inputs_GJPP2).flatten(2)
    pixels_GJK = pixels_GJK.scatter_add(2, inputs_GJPP2.flatten(2), area)
    return pixels_GJK.to(torch.float64) / (2 * size[0] * size[1])


def _pixels_of_cells(length: int, grid: int, device: torch.device) -> Tensor:
    """Return the number of pixels of each cell along an axis, (P,)."""
    first = -(-torch.arange(grid + 1, device=device) * length // grid)
    return first[1:] - first[:-1]


def _most_shown(area_GJK: Tensor, groups: _Groups) -> Tensor:
    # The own image is chosen only where no other is shown.
    own_JK = torch.eye(area_GJK.shape[1], dtype=torch.bool, device=area_GJK.device)
    input_GJ = area_GJK.masked_fill(own_JK, 1e-9).argmax(2)
    image_GJ = groups.member.gather(1, input_GJ)
    return image_GJ.flatten().index_select(0, groups.place)
