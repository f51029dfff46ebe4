import math
from pathlib import Path

import numpy as np

from automix.operator_info import Operator
from automix.operators.gridmix import GridMixDraws, apply_gridmix
from tests.operators import references as ref
from tests.operators.cases import Scenario
from tests.operators.published import assert_same, assert_same_mask, for_each_image, published_case


def gridmix_mask(draws: dict[str, float], height: int, width: int) -> ref.Array:
    area = int(height * width * draws["cut_area"])
    region_w = int(math.sqrt(area / draws["cut_aspect"]))
    region_h = min(int(region_w * draws["cut_aspect"]), height)
    region_w = min(region_w, width)
    patch_w = math.ceil(region_w / draws["num_holes"])
    patch_h = int(patch_w * draws["hole_aspect"])
    side = math.sqrt(1 - draws["lam"])
    hole_w, hole_h = int(patch_w * side), int(patch_h * side)
    x0 = int((width - region_w) * draws["across"])
    y0 = int((height - region_h) * draws["down"])
    mask = np.zeros((height, width))
    for y in range(y0, y0 + region_h):
        for x in range(x0, x0 + region_w):
            if (y - y0) % patch_h < hole_h and (x - x0) % patch_w < hole_w:
                mask[y, x] = 1
    return mask


@ref.every_scenario
@ref.every_seed
def test_agrees_with_loops(scenario: Scenario, seed: int) -> None:
    images, draws, mixed = ref.mixed_by(Operator.GRIDMIX, scenario, seed)
    expected = []
    for index, (first, partner) in enumerate(ref.pairs(images, mixed)):
        numbers = {name: float(values[index]) for name, values in draws._asdict().items()}
        mask = gridmix_mask(numbers, *scenario.size)
        expected.append(ref.by_mask(first, partner, mask))
    ref.assert_agree(mixed, expected)


def test_agrees_with_published_code(shared_folder: Path) -> None:
    case = published_case(shared_folder, "gridmix_32x32")
    keys = ("lam_drawn", "n_holes", "hole_aspect", "cut_area", "cut_aspect", "ux", "uy")
    for index, partner in enumerate(case["perm"]):
        numbers = (for_each_image(case[key][index].float(), len(partner)) for key in keys)
        draws = GridMixDraws(partner, *numbers)
        mixed = apply_gridmix(case["x"], case["y"], draws, num_classes=10, clamp_holes=True)
        assert_same(mixed, case, index)
        assert_same_mask(mixed, case["mask"][index])
