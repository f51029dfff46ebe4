"""The table of operators, and the call that draws and applies."""

from pathlib import Path

import pytest
import torch

from automix.operators import OPERATORS, BatchShape, Operator, mix
from automix.operators.mixup_cutmix import draw_mixup
from automix.operators.saliencymix import apply_saliencymix, draw_saliencymix
from tests.operators.cases import (
    ALL,
    Scenario,
    apply,
    classes,
    draw,
    random_images,
    random_saliency,
    seeded,
)


def test_mix_draws_and_applies() -> None:
    images, targets = random_images(Scenario(4)), torch.arange(4)
    mixed = mix("mixup", images, targets, generator=seeded(3), num_classes=4, strength=0.2)
    draws = draw_mixup(BatchShape(4, 32, 32), strength=0.2, generator=seeded(3))
    expected = OPERATORS[Operator.MIXUP].apply(images, targets, draws, num_classes=4)
    assert torch.equal(mixed.images, expected.images)
    assert torch.equal(mixed.targets, expected.targets)


def test_unknown_operator_is_refused() -> None:
    images = random_images(Scenario(2))
    with pytest.raises(ValueError, match=r"operator: expected one of .*mixup.*, got 'mixing'"):
        mix("mixing", images, torch.arange(2), generator=seeded(0), num_classes=2)


def test_images_without_a_batch_are_refused() -> None:
    with pytest.raises(ValueError, match=r"images: expected shape \(B, C, H, W\), got \(3, 8, 8\)"):
        mix("mixup", torch.ones(3, 8, 8), torch.arange(3), generator=seeded(0), num_classes=3)


def test_draws_of_another_device_are_refused() -> None:
    images = random_images(Scenario(2)).to("meta")
    with pytest.raises(ValueError, match=r"draws: expected tensors on meta, .* got cpu"):
        mix("cutmix", images, torch.arange(2), generator=seeded(0), num_classes=2)


def test_saliencymix_with_one_box_for_the_batch() -> None:
    scenario = Scenario(6)
    images = random_images(scenario)
    draws = draw_saliencymix(BatchShape(6, 32, 32), strength=1.0, generator=seeded(0), per="batch")
    masks = []
    for box in ("per_image", "per_batch"):
        mixed = apply_saliencymix(
            images,
            classes(scenario),
            draws,
            num_classes=6,
            saliency_BHW=random_saliency(scenario),
            box="per_image" if box == "per_image" else "per_batch",
        )
        assert mixed.mask is not None
        masks.append(mixed.mask)
    per_image, per_batch = masks
    assert torch.equal(per_batch, per_image[:1].expand_as(per_batch))
    assert not torch.equal(per_image, per_batch)


@pytest.mark.parametrize("operator", ALL)
def test_every_operator_is_tested_by_name(operator: Operator) -> None:
    function = OPERATORS[operator].function
    name = function.__module__.removeprefix("automix.operators.").replace(".", "_")
    text = (Path(__file__).parent / f"test_{name}.py").read_text(encoding="utf-8")
    if operator is not Operator.NONE:
        assert f"{function.__name__}(" in text or f"Operator.{operator.name}" in text


@pytest.mark.parametrize("operator", ALL)
def test_autocast_changes_nothing(operator: Operator) -> None:
    scenario = Scenario(5, size=(13, 17))
    images = random_images(scenario)
    draws = draw(operator, images)
    expected = apply(operator, scenario, images, draws)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = apply(operator, scenario, images, draws)
    assert torch.equal(mixed.images, expected.images)
    assert torch.equal(mixed.targets, expected.targets)
