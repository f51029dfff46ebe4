from pathlib import Path

import numpy as np
import pytest
import torch

from automix.operators.rmix import RMixDraws, apply_rmix, draw_rmix
from automix.operators.sampling import enlarge_cells
from tests.operators import references as ref
from tests.operators.cases import (
    NUM_CLASSES,
    Scenario,
    classes,
    random_images,
    random_saliency,
    seeded,
    shape_of,
)
from tests.operators.published import assert_same, assert_same_mask, for_each_image, published_case


def rmix_mask(
    first: ref.Array,
    partner: ref.Array,
    percentiles: tuple[float, float],
    lam: float,
    shape: tuple[int, int],
) -> ref.Array:
    grid = len(first)
    salient = first >= np.quantile(first, percentiles[0])
    other = partner >= np.quantile(partner, percentiles[1])
    cells = np.empty((grid, grid))
    for r in range(grid):
        for c in range(grid):
            both_or_none = salient[r, c] == other[r, c]
            cells[r, c] = 1 - lam if both_or_none else float(other[r, c])
    return ref.enlarged(cells, *shape)


@ref.every_scenario
@ref.every_seed
@pytest.mark.parametrize("grid", [1, 2, 4, 5])
def test_agrees_with_loops(scenario: Scenario, seed: int, grid: int) -> None:
    images, saliency = random_images(scenario, seed), random_saliency(scenario, seed)
    draws = draw_rmix(shape_of(images), strength=1.0, generator=seeded(seed))
    mixed = apply_rmix(
        images,
        classes(scenario),
        draws,
        num_classes=NUM_CLASSES,
        saliency_BHW=saliency,
        grid=grid,
    )
    cells = [ref.pooled(own_map, grid) for own_map in ref.array(saliency)]
    expected = []
    for index, (first, partner) in enumerate(ref.pairs(images, mixed)):
        other = int(mixed.partner[index])
        percentiles = (float(draws.percentile[index]), float(draws.percentile[other]))
        lam = float(draws.lam[index])
        mask = rmix_mask(cells[index], cells[other], percentiles, lam, scenario.size)
        expected.append(ref.by_mask(first, partner, mask))
    ref.assert_agree(mixed, expected)


@pytest.mark.parametrize("grid", [4, 8])
def test_agrees_with_published_code(shared_folder: Path, grid: int) -> None:
    case = published_case(shared_folder, f"rmix_grid{grid}_32x32")
    saliency = enlarge_cells(case["saliency"], (32, 32))[:, 0]
    for index, partner in enumerate(case["perm"]):
        weight = for_each_image(case["w"][index, 0], len(partner))
        mixed = apply_rmix(
            case["x"],
            case["y"],
            RMixDraws(partner, case["q"][index], weight),
            num_classes=10,
            saliency_BHW=saliency,
            grid=grid,
        )
        assert_same(mixed, case, index)
        assert_same_mask(mixed, case["mask"][index], atol=1e-6)
        torch.testing.assert_close(mixed.lam, case["lam"][index], atol=1e-6, rtol=0)
