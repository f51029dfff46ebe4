from pathlib import Path

import numpy as np
import pytest
import torch

from automix.operator_info import Operator
from automix.operators.mixup_cutmix import CutMixDraws, MixupDraws, apply_cutmix, apply_mixup
from automix.operators.registry import OPERATORS
from automix.operators.sampling import BoxRule, centered_box
from tests.operators import references as ref
from tests.operators.cases import Scenario, draw, random_images, seeded, shape_of
from tests.operators.published import (
    assert_same,
    assert_same_mask,
    for_each_image,
    partner_of,
    published_case,
)


@ref.every_scenario
@ref.every_seed
def test_mixup_agrees_with_loops(scenario: Scenario, seed: int) -> None:
    images, draws, mixed = ref.mixed_by(Operator.MIXUP, scenario, seed)
    expected = []
    for (first, partner), lam in zip(ref.pairs(images, mixed), draws.lam.tolist(), strict=True):
        expected.append(ref.by_mask(first, partner, np.full(scenario.size, 1 - lam)))
    ref.assert_agree(mixed, expected)


@ref.every_scenario
@ref.every_seed
def test_cutmix_agrees_with_loops(scenario: Scenario, seed: int) -> None:
    images, draws, mixed = ref.mixed_by(Operator.CUTMIX, scenario, seed)
    expected = []
    for (first, partner), box in zip(ref.pairs(images, mixed), draws.box, strict=True):
        expected.append(ref.by_mask(first, partner, ref.box_mask(box, *scenario.size)))
    ref.assert_agree(mixed, expected)


@pytest.mark.parametrize(
    "name",
    [
        "mixup_permutation_32x32",
        "mixup_timm_batch_24x40",
        "mixup_timm_elem_32x32",
        "mixup_torchvision_24x40",
    ],
)
def test_mixup_agrees_with_published_code(shared_folder: Path, name: str) -> None:
    case = published_case(shared_folder, name)
    for index, lam in enumerate(case["lam"].float()):
        lam_B = lam if lam.dim() else for_each_image(lam, len(case["x"]))
        draws = MixupDraws(partner_of(case, index), lam_B)
        assert_same(apply_mixup(case["x"], case["y"], draws, num_classes=10), case, index)


@pytest.mark.parametrize(
    "name",
    [
        "cutmix_clovaai_24x40",
        "cutmix_clovaai_32x32",
        "cutmix_timm_batch_24x40",
        "cutmix_timm_elem_24x40",
        "cutmix_timm_elem_32x32",
        "cutmix_torchvision_24x40",
        "cutmix_torchvision_32x32",
    ],
)
def test_cutmix_agrees_with_published_code(shared_folder: Path, name: str) -> None:
    case = published_case(shared_folder, name)
    batch, _, height, width = case["x"].shape
    rule: BoxRule = name.split("_")[1]  # type: ignore[assignment]  # the file is named after it
    for index in range(len(case["box"])):
        lam, row, column, recorded = (
            case[key][index].expand(batch, *case[key].shape[1:])
            if case[key].dim() == (2 if key == "box" else 1)
            else case[key][index]
            for key in ("lam_drawn", "cy", "cx", "box")
        )
        box = centered_box((1 - lam.float()).sqrt(), row, column, (height, width), rule)
        assert torch.equal(box, recorded)
        draws = CutMixDraws(partner_of(case, index), lam.float(), box)
        mixed = apply_cutmix(case["x"], case["y"], draws, num_classes=10)
        assert_same(mixed, case, index)
        assert_same_mask(mixed, case["mask"][index])
        if "target_uncorrected" in case:
            drawn = apply_cutmix(case["x"], case["y"], draws, num_classes=10, label="drawn")
            assert_same(drawn, case, index, "target_uncorrected")


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_cutmix_in_place_is_cutmix(layout: str) -> None:
    images = random_images(Scenario(6, size=(9, 12), layout=layout))
    targets, before = torch.arange(6), images.clone()
    spec = OPERATORS[Operator.CUTMIX]
    draws = spec.draw(shape_of(images), strength=1.0, generator=seeded(3), per="batch")
    expected = spec.apply(images, targets, draws, num_classes=6)
    assert torch.equal(images, before)
    assert not torch.equal(expected.images, before)
    mixed = spec.apply(images, targets, draws, num_classes=6, in_place=True)
    assert mixed.images.data_ptr() == images.data_ptr()
    assert torch.equal(mixed.images, expected.images)
    assert torch.equal(mixed.targets, expected.targets)
    assert mixed.mask is not None
    assert expected.mask is not None
    assert torch.equal(mixed.mask, expected.mask)


def test_cutmix_in_place_with_a_box_for_each_image() -> None:
    images = random_images(Scenario(6))
    draws = draw(Operator.CUTMIX, images)
    spec = OPERATORS[Operator.CUTMIX]
    expected = spec.apply(images.clone(), torch.arange(6), draws, num_classes=6)
    mixed = spec.apply(images, torch.arange(6), draws, num_classes=6, in_place=True)
    assert torch.equal(mixed.images, expected.images)
