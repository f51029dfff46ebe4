"""PuzzleMix as an operator: what it adds to its solver and its transport."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from automix.operators.puzzlemix.energy import PuzzleWeights, puzzle_problem
from automix.operators.puzzlemix.operator import PuzzleMixDraws, apply_puzzlemix, draw_puzzlemix
from automix.operators.puzzlemix.solver import solve_puzzle
from automix.operators.puzzlemix.transport import move_patches, transport_plan
from automix.operators.sampling import enlarge_cells, pool_cells, unit_sum
from automix.operators.types import BatchShape, MixedBatch
from tests.operators import references as ref
from tests.operators.cases import (
    NUM_CLASSES,
    Scenario,
    classes,
    constant_images,
    random_images,
    random_saliency,
    seeded,
    shape_of,
)

SCENARIO = Scenario(6)


def puzzlemix_cost(
    mask: ref.Array,
    parents: tuple[ref.Array, ref.Array],
    maps: tuple[ref.Array, ref.Array],
    lam: float,
) -> float:
    """Return the objective of a mask of the own image, by the formulas of the paper.

    Cells of 2 x 2 pixels in a 4 x 4 image, one position along each border.
    """
    smooth, gamma, eta, grid = 1.2 / (16 * 2), 0.5, 0.2, 2
    first, partner = (ref.pooled(saliency, grid) / saliency.mean() / grid**2 for saliency in maps)
    # By image and cell: the pixels next to the lower and right border, and to the others.
    cost = 0.0
    for y in range(grid):
        for x in range(grid):
            z = mask[y, x]
            # What is not shown is lost, and the prior is that of two coin flips.
            cost += z * partner[y, x] + (1 - z) * first[y, x]
            flips = round(2 * z)
            chance = math.comb(2, flips) * lam**flips * (1 - lam) ** (2 - flips)
            cost -= eta / grid**2 * math.log(chance + 1e-8)
            for down, right in ((1, 0), (0, 1)):
                if y + down == grid or x + right == grid:
                    continue
                other = mask[y + down, x + right]
                # Of the mean of a cell, as one position is all of its side.
                near = [cell_mean(image, y, x) * 0.25 for image in parents]
                far = [cell_mean(image, y + down, x + right) * 0.25 for image in parents]
                (d11, d10), (d01, d00) = (
                    [float(abs(one - another).mean()) for another in far] for one in near
                )
                cost += smooth * (z - other) ** 2
                cost += (
                    smooth
                    * gamma
                    * (
                        (z * (d10 + d11) + (1 - z) * (d01 + d00)) / 2
                        + (other * (d01 + d11) + (1 - other) * (d10 + d00)) / 2
                        + (d10 + d01 - d11 - d00) / 2 * (z - other) ** 2
                    )
                )
    return cost


def cell_mean(image: ref.Array, y: int, x: int) -> ref.Array:
    """Return the mean color of a cell of 2 x 2 pixels."""
    return np.asarray(image[:, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean(axis=(1, 2)))


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_loops(seed: int) -> None:
    scenario = Scenario(4, size=(4, 4))
    images, maps = random_images(scenario, seed), random_saliency(scenario)
    draws = some_draws(images, seed)
    mixed = mixed_by(scenario, images, draws, PuzzleWeights(grid=2), transport=False)
    expected = []
    for index, (first, partner) in enumerate(ref.pairs(images, mixed)):
        both = ref.array(maps[index]), ref.array(maps[mixed.partner[index]])
        masks = [np.array(z).reshape(2, 2) for z in itertools.product((0, 0.5, 1), repeat=4)]
        lam = float(draws.lam[index])
        best = min(masks, key=lambda z: puzzlemix_cost(z, (first, partner), both, lam))
        expected.append(ref.by_mask(first, partner, ref.enlarged(1 - best, 4, 4)))
    ref.assert_agree(mixed, expected)


WEIGHTS = [
    PuzzleWeights(grid=grid, num_labels=labels) for grid in (2, 4, 5, 8, 11) for labels in (2, 3)
]
every_grid = pytest.mark.parametrize(
    "weights", WEIGHTS, ids=lambda weights: f"{weights.grid}x{weights.grid}-{weights.num_labels}"
)
with_and_without_transport = pytest.mark.parametrize("transport", [False, True])


def some_draws(images: Tensor, seed: int = 0) -> PuzzleMixDraws:
    """Return draws without fixed points."""
    batch = len(images)
    lam = 0.2 + 0.6 * torch.rand(batch, generator=seeded(seed))
    return PuzzleMixDraws(torch.arange(batch).roll(1), lam)


def mixed_by(
    scenario: Scenario,
    images: Tensor,
    draws: PuzzleMixDraws,
    weights: PuzzleWeights | None = None,
    *,
    transport: bool = True,
    t_size: int | None = 4,
    t_eps: float = 0.8,
) -> MixedBatch:
    return apply_puzzlemix(
        images,
        classes(scenario),
        draws,
        num_classes=NUM_CLASSES,
        saliency_BHW=random_saliency(scenario),
        weights=weights or PuzzleWeights(),
        transport=transport,
        t_size=t_size,
        t_eps=t_eps,
    )


@every_grid
def test_mask_is_the_solution(weights: PuzzleWeights) -> None:
    images, maps = random_images(SCENARIO), random_saliency(SCENARIO)
    draws = some_draws(images)
    mixed = mixed_by(SCENARIO, images, draws, weights, transport=False)
    z = solve_puzzle(puzzle_problem(images, maps, draws.partner, draws.lam, weights))
    assert mixed.mask is not None
    assert torch.equal(mixed.mask, enlarge_cells(1 - z, (32, 32)))
    torch.testing.assert_close(mixed.lam, 1 - mixed.mask.mean((1, 2, 3)), atol=1e-6, rtol=0)
    rebuilt = (1 - mixed.mask) * images + mixed.mask * images[draws.partner]
    torch.testing.assert_close(mixed.images, rebuilt, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("t_size", "side"), [(4, 8), (8, 4), (3, 8), (2, 16), (20, 4), (None, 4)])
def test_patches_of_both_parents_are_moved(t_size: int | None, side: int) -> None:
    images, maps = random_images(SCENARIO), random_saliency(SCENARIO)
    draws = some_draws(images)
    mixed = mixed_by(SCENARIO, images, draws, t_size=t_size, t_eps=0.05)
    assert mixed.mask is not None
    worth = unit_sum(pool_cells(maps, side))
    mask = pool_cells(mixed.mask.squeeze(1), side)
    first = move_patches(images, transport_plan(worth, mask < 1, 0.05))
    partner_plan = transport_plan(worth[draws.partner], mask > 0, 0.05)
    partner = move_patches(images[draws.partner], partner_plan)
    expected = (1 - mixed.mask) * first + mixed.mask * partner
    torch.testing.assert_close(mixed.images, expected, atol=1e-6, rtol=0)
    still = mixed_by(SCENARIO, images, draws, transport=False)
    assert torch.equal(mixed.targets, still.targets)
    assert not torch.equal(mixed.images, still.images)


@every_grid
@with_and_without_transport
@pytest.mark.parametrize("size", [(32, 32), (24, 40), (13, 17)])
def test_labels_follow_the_pixels(
    weights: PuzzleWeights, transport: bool, size: tuple[int, int]
) -> None:
    scenario = Scenario(5, size=size)
    images = constant_images(scenario)
    draws = some_draws(images)
    mixed = mixed_by(scenario, images, draws, weights, transport=transport)
    values = torch.arange(NUM_CLASSES) / 16
    pixel_mean = mixed.images.mean((1, 2, 3))
    torch.testing.assert_close(mixed.targets @ values, pixel_mean, atol=1e-6, rtol=0)


@every_grid
def test_draws_without_a_choice_move_nothing(weights: PuzzleWeights) -> None:
    images = random_images(SCENARIO)
    partner = torch.tensor([1, 0, 2, 3, 5, 4])
    draws = PuzzleMixDraws(partner, torch.tensor([1.0, 0.0, 0.5, 0.3, 1.0, 0.0]))
    mixed = mixed_by(SCENARIO, images, draws, weights)
    assert torch.equal(mixed.images, images[[0, 0, 2, 3, 4, 4]])
    assert torch.equal(mixed.lam, torch.tensor([1.0, 0.0, 1.0, 1.0, 1.0, 0.0]))


def test_lam_follows_the_prior() -> None:
    scenario = Scenario(128, size=(16, 16))
    images = random_images(scenario)
    lam = torch.linspace(0.02, 0.98, 128)
    draws = PuzzleMixDraws(torch.arange(128).roll(1), lam)
    mixed = apply_puzzlemix(
        images, torch.arange(128), draws, num_classes=128, saliency_BHW=random_saliency(scenario)
    )
    assert torch.corrcoef(torch.stack((mixed.lam, lam)))[0, 1] > 0.8


def test_images_of_half_precision_choose_like_those_of_full_precision() -> None:
    images = (random_images(SCENARIO) * 16).round() / 16
    draws = some_draws(images)
    full = mixed_by(SCENARIO, images, draws)
    half = mixed_by(SCENARIO, images.to(torch.bfloat16), draws)
    assert half.images.dtype == torch.bfloat16
    assert full.mask is not None
    assert half.mask is not None
    assert torch.equal(full.mask, half.mask)


@with_and_without_transport
def test_autocast_changes_nothing(transport: bool) -> None:
    images = random_images(SCENARIO)
    draws = some_draws(images)
    expected = mixed_by(SCENARIO, images, draws, transport=transport)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = mixed_by(SCENARIO, images, draws, transport=transport)
    assert torch.equal(mixed.images, expected.images)
    assert torch.equal(mixed.targets, expected.targets)


def test_gradients_pass_through_the_pixels_only() -> None:
    images = random_images(SCENARIO).requires_grad_()
    maps = random_saliency(SCENARIO).requires_grad_()
    draws = some_draws(images)
    mixed = apply_puzzlemix(
        images, classes(SCENARIO), draws, num_classes=NUM_CLASSES, saliency_BHW=maps
    )
    (to_images,) = torch.autograd.grad(mixed.images.sum(), images)
    assert maps.grad is None
    assert not mixed.lam.requires_grad
    # Each output pixel hands out a weight of 1 between two pixels.
    torch.testing.assert_close(to_images.sum(), torch.tensor(float(images.numel())))


def test_draws() -> None:
    draws = draw_puzzlemix(BatchShape(64, 32, 32), strength=1.0, generator=seeded(3), per="batch")
    assert len(set(draws.lam.tolist())) == 1
    draws = draw_puzzlemix(BatchShape(64, 32, 32), strength=1.0, generator=seeded(3))
    assert len(set(draws.lam.tolist())) == 64
    assert torch.equal(draws.partner.sort().values, torch.arange(64))


def test_images_smaller_than_the_grid_are_refused() -> None:
    images = random_images(Scenario(2, size=(3, 8)))
    draws = draw_puzzlemix(shape_of(images), strength=1.0, generator=seeded(0))
    with pytest.raises(ValueError, match="grid: expected 1 to 3 cells along a side"):
        mixed_by(Scenario(2, size=(3, 8)), images, draws)


def test_impossible_patches_are_refused() -> None:
    images = random_images(SCENARIO)
    with pytest.raises(ValueError, match="t_size: expected 1 pixel or more, or None, got 0"):
        mixed_by(SCENARIO, images, some_draws(images), t_size=0)
