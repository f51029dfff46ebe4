import math
from pathlib import Path

import pytest
import torch

from automix.operator_info import Operator
from automix.operators.saliencymix import SaliencyMixDraws, apply_saliencymix
from tests.operators import references as ref
from tests.operators.cases import Scenario, random_saliency
from tests.operators.published import assert_same, assert_same_mask, for_each_image, published_case


def clovaai_box(lam: float, row: int, column: int, height: int, width: int) -> tuple[int, ...]:
    half_h, half_w = (int(side * math.sqrt(1 - lam)) // 2 for side in (height, width))
    return (
        max(row - half_h, 0),
        min(row + half_h, height),
        max(column - half_w, 0),
        min(column + half_w, width),
    )


@ref.every_scenario
@ref.every_seed
def test_agrees_with_loops(scenario: Scenario, seed: int) -> None:
    images, draws, mixed = ref.mixed_by(Operator.SALIENCYMIX, scenario, seed)
    saliency = random_saliency(scenario)[mixed.partner]
    expected = []
    for index, (first, partner) in enumerate(ref.pairs(images, mixed)):
        row, column = divmod(int(saliency[index].argmax()), scenario.size[1])
        box = clovaai_box(float(draws.lam[index]), row, column, *scenario.size)
        expected.append(ref.by_mask(first, partner, ref.box_mask(box, *scenario.size)))
    ref.assert_agree(mixed, expected)


@pytest.mark.parametrize("name", ["saliencymix_24x40", "saliencymix_32x32"])
def test_one_box_for_the_batch_agrees_with_published_code(shared_folder: Path, name: str) -> None:
    case = published_case(shared_folder, name)
    batch = len(case["x"])
    unused = torch.zeros(batch, dtype=torch.int64)
    for index, partner in enumerate(case["perm"]):
        saliency = torch.rand(case["x"][:, 0].shape, generator=torch.Generator().manual_seed(index))
        saliency[partner[0]] = case["saliency"][index].float()
        lam = for_each_image(case["lam_drawn"][index].float(), batch)
        mixed = apply_saliencymix(
            case["x"],
            case["y"],
            SaliencyMixDraws(partner, lam, unused, unused),
            num_classes=10,
            saliency_BHW=saliency,
            box="per_batch",
            rule="clovaai",
        )
        assert_same(mixed, case, index)
        assert_same_mask(mixed, case["mask"][index])
