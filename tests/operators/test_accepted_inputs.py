"""Every registered operator accepts the same inputs and refuses the rest alike."""

import pytest
import torch

from automix.operator_info import Operator
from automix.operators.registry import OPERATORS, mix
from tests.operators.cases import (
    ALL,
    NUM_CLASSES,
    Scenario,
    apply,
    classes,
    draw,
    previous_batch,
    random_images,
    random_saliency,
    seeded,
)

every_operator = pytest.mark.parametrize("operator", ALL)


@every_operator
def test_forms_of_targets(operator: Operator) -> None:
    scenario = Scenario(5)
    images = random_images(scenario)
    draws = draw(operator, images)
    integers = classes(scenario)
    expected = apply(operator, scenario, images, draws, integers).targets
    rows = torch.eye(NUM_CLASSES)[integers]
    for targets in (integers.to(torch.int32), rows, rows.long(), rows.bool(), rows.double()):
        assert torch.equal(apply(operator, scenario, images, draws, targets).targets, expected)
    several = (
        torch.rand((5, NUM_CLASSES), generator=torch.Generator().manual_seed(3)) > 0.5
    ).float()
    mixed = apply(operator, scenario, images, draws, several)
    if operator is not Operator.RECURSIVEMIX:
        shares = expected[:, :5]  # of each image: its class is its index
        torch.testing.assert_close(mixed.targets, shares @ several, atol=1e-6, rtol=0)


@every_operator
@pytest.mark.parametrize(
    ("shift", "said"),
    [(NUM_CLASSES, "set num_classes"), (-1, "leave out"), (NUM_CLASSES - 4, "subtract 1")],
)
def test_refused_classes(operator: Operator, shift: int, said: str) -> None:
    scenario = Scenario(5)
    images = random_images(scenario)
    draws = draw(operator, images)
    expected = f"targets: expected classes from 0 to {NUM_CLASSES - 1}, got .*; {said}"
    with pytest.raises(ValueError, match=expected):
        apply(operator, scenario, images, draws, classes(scenario) + shift)


@every_operator
def test_refused_images(operator: Operator) -> None:
    scenario = Scenario(3)
    images = random_images(scenario)
    draws = draw(operator, images)
    with pytest.raises(TypeError, match=r"images: expected a floating point .* got torch\.uint8"):
        apply(operator, scenario, images.to(torch.uint8), draws)
    with pytest.raises(ValueError, match=r"images: expected shape \(B, C, H, W\), got \(3, 32\)"):
        apply(operator, scenario, images[:, 0, 0], draws)


@pytest.mark.parametrize("operator", [name for name in ALL if OPERATORS[name].facts.needs_saliency])
def test_refused_saliency(operator: Operator) -> None:
    scenario = Scenario(3)
    images = random_images(scenario)
    spec, draws = OPERATORS[operator], draw(operator, images)
    for saliency, message in (
        (None, "saliency: expected maps of shape (B, H, W), got None"),
        (torch.rand(3, 32, 31), "saliency: expected shape (3, 32, 32), got (3, 32, 31)"),
        (torch.ones(3, 32, 32).byte(), "expected a floating point tensor, got torch.uint8"),
    ):
        with pytest.raises((TypeError, ValueError)) as refusal:
            spec.apply(
                images, classes(scenario), draws, num_classes=NUM_CLASSES, saliency_BHW=saliency
            )
        assert message in str(refusal.value)


@every_operator
def test_every_strength_level_works(operator: Operator) -> None:
    scenario = Scenario(4)
    images = random_images(scenario)
    facts = OPERATORS[operator].facts.strength
    for strength in (facts.low, *facts.levels, facts.high):
        mixed = mix(
            operator,
            images,
            classes(scenario),
            generator=seeded(0),
            strength=strength,
            num_classes=NUM_CLASSES,
            saliency=random_saliency(scenario),
            previous=previous_batch(scenario),
        )
        assert mixed.images.isfinite().all()
        assert (mixed.targets.sum(1) - 1).abs().max() <= 1e-6
    with pytest.raises(ValueError, match="strength: expected"):
        mix(
            operator,
            images,
            classes(scenario),
            generator=torch.Generator(),
            strength=facts.high + 1,
            num_classes=NUM_CLASSES,
        )
