"""Properties of every registered operator, on every kind of batch."""

import inspect
import random

import numpy as np
import pytest
import torch
from torch import Tensor

from automix.operator_info import OPERATOR_FACTS, Operator
from automix.operators.registry import OPERATORS, mix
from automix.operators.saliency_grafting import SaliencyGraftingDraws, apply_saliency_grafting
from automix.operators.types import MixedBatch
from tests.operators.cases import (
    ALL,
    IDENTITY,
    LABELS_ARE_PIXEL_SHARES,
    NUM_CLASSES,
    REBUILT_BY_MASK,
    SCENARIOS,
    TWO_PARENTS,
    Scenario,
    apply,
    classes,
    constant_images,
    draw,
    previous_batch,
    random_images,
    random_saliency,
    seeded,
    shape_of,
)

ROUNDING = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}
"""Of a blend of numbers up to 1."""

every_operator = pytest.mark.parametrize("operator", ALL)
every_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=str)


def tensors_of(*values: object) -> list[Tensor]:
    """Return all tensors in values and the sequences among them."""
    tensors: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, tuple):
            tensors += tensors_of(*value)
    return tensors


def fields_of(mixed: MixedBatch) -> list[Tensor | None]:
    return [
        mixed.images,
        mixed.targets,
        mixed.partner,
        mixed.lam,
        mixed.mask,
        mixed.own_targets,
        mixed.partner_targets,
    ]


def global_states() -> tuple[bytes, bytes, object]:
    numbers = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    numpy_state = numbers["key"].tobytes() + bytes([numbers["pos"] % 256])
    return torch.get_rng_state().numpy().tobytes(), numpy_state, random.getstate()


def assert_same_bits(first: MixedBatch, second: MixedBatch) -> None:
    for one, other in zip(fields_of(first), fields_of(second), strict=True):
        if one is None or other is None:
            assert one is other
        else:
            assert torch.equal(one, other)


@every_operator
@every_scenario
def test_form_of_the_result(operator: Operator, scenario: Scenario) -> None:
    images = random_images(scenario)
    mixed = apply(operator, scenario, images, draw(operator, images))
    batch = scenario.batch
    assert (mixed.images.shape, mixed.images.dtype) == (images.shape, images.dtype)
    if scenario.layout != "strided":
        memory_format = getattr(torch, f"{scenario.layout}_format", None) or torch.channels_last
        assert mixed.images.is_contiguous(memory_format=memory_format)
    assert (mixed.targets.shape, mixed.targets.dtype) == ((batch, NUM_CLASSES), torch.float32)
    assert (mixed.lam.shape, mixed.lam.dtype) == ((batch,), torch.float32)
    assert (mixed.partner.shape, mixed.partner.dtype) == ((batch,), torch.int64)
    assert mixed.lam.min() >= 0
    assert mixed.lam.max() <= 1
    if mixed.mask is not None:
        assert (mixed.mask.shape, mixed.mask.dtype) == ((batch, 1, *scenario.size), torch.float32)
        assert mixed.mask.min() >= 0
        assert mixed.mask.max() <= 1
    assert mixed.images.isfinite().all()


@every_operator
@every_scenario
def test_rows_of_targets_sum_to_one(operator: Operator, scenario: Scenario) -> None:
    images = random_images(scenario)
    targets = apply(operator, scenario, images, draw(operator, images)).targets
    assert targets.min() >= 0
    assert (targets.sum(1) - 1).abs().max() <= 1e-6


@pytest.mark.parametrize("operator", LABELS_ARE_PIXEL_SHARES)
@every_scenario
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_labels_follow_the_pixels(operator: Operator, scenario: Scenario, seed: int) -> None:
    images = constant_images(scenario)
    mixed = apply(operator, scenario, images, draw(operator, images, seed))
    values = torch.arange(NUM_CLASSES) / 16
    pixel_mean = mixed.images.float().mean((1, 2, 3))
    torch.testing.assert_close(
        mixed.targets @ values, pixel_mean, atol=ROUNDING[scenario.dtype], rtol=0
    )


@every_operator
def test_nothing_is_modified(operator: Operator) -> None:
    scenario = Scenario(5)
    spec = OPERATORS[operator]
    images, targets = random_images(scenario), classes(scenario)
    saliency, previous = random_saliency(scenario), previous_batch(scenario)
    draws = draw(operator, images)
    inputs = tensors_of(images, targets, saliency, draws, previous.images, previous.targets)
    before = [(tensor.clone(), tensor._version) for tensor in inputs]
    mixed = spec.apply(
        images,
        targets,
        draws,
        num_classes=NUM_CLASSES,
        saliency_BHW=saliency,
        previous=previous,
    )
    assert mixed.images.shape == images.shape
    for tensor, (copy, version) in zip(inputs, before, strict=True):
        assert torch.equal(tensor, copy)
        assert tensor._version == version


@every_operator
def test_global_generators_are_neither_read_nor_advanced(operator: Operator) -> None:
    scenario = Scenario(5)
    images, saliency = random_images(scenario), random_saliency(scenario)
    results = []
    for poison in (1, 2):
        torch.manual_seed(poison)
        np.random.seed(poison)  # noqa: NPY002  # the global generator is what is tested
        random.seed(poison)
        before = global_states()
        results.append(
            mix(
                operator,
                images,
                classes(scenario),
                generator=seeded(7),
                num_classes=NUM_CLASSES,
                saliency=saliency,
                previous=previous_batch(scenario),
            )
        )
        assert global_states() == before
    assert_same_bits(*results)


@every_operator
def test_same_parameters_same_bits(operator: Operator) -> None:
    scenario = Scenario(6)
    images = random_images(scenario)
    draws = draw(operator, images)
    first = apply(operator, scenario, images, draws)
    assert_same_bits(first, apply(operator, scenario, images, draws))
    for one, other in zip(tensors_of(draws), tensors_of(draw(operator, images)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("operator", sorted(set(ALL) - {Operator.NONE, Operator.GUIDEDMIXUP}))
def test_other_seed_other_batch(operator: Operator) -> None:
    scenario = Scenario(6)
    images = random_images(scenario)
    first, second = (
        apply(operator, scenario, images, draw(operator, images, seed)) for seed in (0, 1)
    )
    assert not torch.equal(first.images, second.images)


@pytest.mark.parametrize("operator", sorted(IDENTITY))
@every_scenario
def test_lam_of_one_gives_the_images_back(operator: Operator, scenario: Scenario) -> None:
    images = random_images(scenario)
    mixed = apply(operator, scenario, images, IDENTITY[operator](shape_of(images)))
    assert torch.equal(mixed.lam, torch.ones(scenario.batch))
    assert torch.equal(mixed.images, images)
    assert torch.equal(mixed.targets.argmax(1), classes(scenario))
    assert torch.equal(mixed.targets.amax(1), torch.ones(scenario.batch))


@every_scenario
def test_grafting_nothing_gives_the_images_back(scenario: Scenario) -> None:
    images = random_images(scenario)
    batch = scenario.batch
    mixed = apply_saliency_grafting(
        images,
        classes(scenario),
        SaliencyGraftingDraws(
            torch.arange(batch).flip(0), torch.ones((batch, 4, 4)), torch.ones(batch)
        ),
        num_classes=NUM_CLASSES,
        saliency_BHW=random_saliency(scenario),
        keep_both=False,
    )
    assert torch.equal(mixed.lam, torch.ones(batch))
    assert torch.equal(mixed.images, images)


@pytest.mark.parametrize("operator", REBUILT_BY_MASK)
def test_mask_and_partner_rebuild_the_images(operator: Operator) -> None:
    scenario = Scenario(5, size=(24, 40))
    images = random_images(scenario)
    mixed = apply(operator, scenario, images, draw(operator, images))
    assert mixed.mask is not None
    rebuilt = (1 - mixed.mask) * images + mixed.mask * images[mixed.partner]
    torch.testing.assert_close(mixed.images, rebuilt, atol=1e-6, rtol=0)


@pytest.mark.parametrize("operator", TWO_PARENTS)
def test_two_parents_and_lam_say_the_same_as_soft_targets(operator: Operator) -> None:
    scenario = Scenario(5)
    images = random_images(scenario)
    mixed = apply(operator, scenario, images, draw(operator, images))
    assert mixed.partner_targets is not None
    rows = [
        targets if targets.dim() == 2 else torch.eye(NUM_CLASSES)[targets]
        for targets in (mixed.own_targets, mixed.partner_targets)
    ]
    lam = mixed.lam.unsqueeze(1)
    torch.testing.assert_close(
        mixed.targets, lam * rows[0] + (1 - lam) * rows[1], atol=1e-6, rtol=0
    )


@every_operator
def test_gradients_reach_the_images(operator: Operator) -> None:
    scenario = Scenario(3)
    images = random_images(scenario).requires_grad_()
    mixed = apply(operator, scenario, images, draw(operator, images))
    (gradient,) = torch.autograd.grad(mixed.images.sum(), images)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


@every_operator
def test_an_operator_takes_what_the_facts_say(operator: Operator) -> None:
    spec, facts = OPERATORS[operator], OPERATOR_FACTS[operator]
    assert spec.facts is facts
    inputs = set(inspect.signature(spec.function).parameters) & {"saliency_BHW", "previous"}
    assert ("saliency_BHW" in inputs) == facts.needs_saliency
    assert ("previous" in inputs) == facts.needs_previous


@every_operator
@every_scenario
@pytest.mark.parametrize("seed", [0, 1])
def test_images_with_a_lam_of_one_are_given_back(
    operator: Operator, scenario: Scenario, seed: int
) -> None:
    """Whatever was drawn, of the pairs with themselves and of the strengths that mix least."""
    spec, images = OPERATORS[operator], random_images(scenario, seed)
    draws = spec.draw(shape_of(images), strength=spec.facts.strength.low, generator=seeded(seed))
    mixed = apply(operator, scenario, images, draws)
    for image, result, lam in zip(images, mixed.images, mixed.lam, strict=True):
        assert lam < 1 or torch.equal(image, result)


@pytest.mark.parametrize("operator", sorted(set(ALL) - {Operator.RESIZEMIX, Operator.RECURSIVEMIX}))
def test_a_batch_of_one_is_given_back(operator: Operator) -> None:
    images = random_images(Scenario(1))
    mixed = apply(operator, Scenario(1), images, draw(operator, images))
    assert torch.equal(mixed.images, images)
    assert torch.equal(mixed.targets, torch.eye(NUM_CLASSES)[:1])
