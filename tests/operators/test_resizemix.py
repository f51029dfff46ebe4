from pathlib import Path
from typing import Any

import pytest
import torch

from automix.operators.resizemix import ResizeMixDraws, apply_resizemix, draw_resizemix
from automix.operators.sampling import centered_box
from tests.operators.cases import NUM_CLASSES, Scenario, classes, random_images, seeded, shape_of
from tests.operators.published import assert_same, assert_same_mask, for_each_image, published_case
from tests.operators.references import assert_agree, every_scenario, every_seed, pairs, resized


@every_scenario
@every_seed
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("placement", ["clipped", "inside"])
def test_agrees_with_loops(
    scenario: Scenario, seed: int, interpolation: Any, placement: Any
) -> None:
    images = random_images(scenario, seed)
    draws = draw_resizemix(
        shape_of(images), strength=0.8, generator=seeded(seed), placement=placement
    )
    mixed = apply_resizemix(
        images, classes(scenario), draws, num_classes=NUM_CLASSES, interpolation=interpolation
    )
    is_bilinear = interpolation == "bilinear"
    expected = []
    for (first, partner), box in zip(pairs(images, mixed), draws.box, strict=True):
        expected.append(resized(first, partner, box, is_bilinear=is_bilinear))
    assert_agree(mixed, expected)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_agrees_with_published_code(shared_folder: Path, interpolation: str) -> None:
    case = published_case(shared_folder, f"resizemix_{interpolation}_32x32")
    batch = len(case["x"])
    for index, tau in enumerate(case["tau"].float()):
        row, column = (for_each_image(case[key][index], batch) for key in ("cy", "cx"))
        box = centered_box(for_each_image(tau, batch), row, column, (32, 32), "clovaai")
        assert torch.equal(box, for_each_image(case["box"][index], batch))
        mixed = apply_resizemix(
            case["x"],
            case["y"],
            ResizeMixDraws(case["perm"][index], box),
            num_classes=10,
            interpolation="nearest" if interpolation == "nearest" else "bilinear",
        )
        assert_same(mixed, case, index)
        assert_same_mask(mixed, case["mask"][index])
