import dataclasses

import pytest
import torch

from automix.operator_info import Operator
from automix.operators.recursivemix import RecursiveMixDraws, apply_recursivemix, draw_recursivemix
from automix.operators.types import BatchShape, MixedBatch
from tests.operators import references as ref
from tests.operators.cases import (
    NUM_CLASSES,
    Scenario,
    classes,
    previous_batch,
    random_images,
    seeded,
    shape_of,
)


def step(scenario: Scenario, seed: int, previous: MixedBatch | None) -> MixedBatch:
    images = random_images(scenario, seed)
    draws = draw_recursivemix(shape_of(images), strength=0.9, generator=seeded(seed))
    return apply_recursivemix(
        images, classes(scenario), draws, num_classes=NUM_CLASSES, previous=previous
    )


def test_the_first_step_is_the_batch_itself() -> None:
    scenario = Scenario(4)
    mixed = step(scenario, 0, None)
    assert torch.equal(mixed.images, random_images(scenario, 0))
    assert torch.equal(mixed.lam, torch.ones(4))
    assert torch.equal(mixed.targets, torch.eye(NUM_CLASSES)[:4])


def test_labels_are_recursive() -> None:
    scenario = Scenario(4)
    first = step(scenario, 0, None)
    second = step(scenario, 1, first)
    third = step(scenario, 2, second)
    lam = third.lam.unsqueeze(1)
    expected = lam * torch.eye(NUM_CLASSES)[:4] + (1 - lam) * second.targets
    torch.testing.assert_close(third.targets, expected)
    assert third.partner_targets is not None
    assert torch.equal(third.partner_targets, second.targets)


@pytest.mark.parametrize(("before", "now"), [(5, 3), (3, 5), (2, 7), (4, 4), (1, 3)])
def test_batches_that_shrink_and_grow(before: int, now: int) -> None:
    previous = step(Scenario(before), 0, None)
    images = torch.zeros(now, 3, 32, 32)
    whole = RecursiveMixDraws(torch.tensor([0, 32, 0, 32]).expand(now, 4))
    mixed = apply_recursivemix(
        images, torch.zeros(now).long(), whole, num_classes=NUM_CLASSES, previous=previous
    )
    for index in range(now):
        assert int(mixed.partner[index]) == index % before
        assert torch.equal(mixed.images[index], previous.images[index % before])
        assert torch.equal(mixed.targets[index], previous.targets[index % before])


def test_previous_batch_of_another_size_and_type() -> None:
    previous = step(Scenario(4, size=(24, 40)), 0, None)
    mixed = step(Scenario(4, dtype=torch.bfloat16, layout="channels_last"), 1, previous)
    assert mixed.images.dtype == torch.bfloat16
    assert mixed.images.is_contiguous(memory_format=torch.channels_last)


def test_another_kind_of_previous_batch_is_refused() -> None:
    previous = step(Scenario(4), 0, None)
    with pytest.raises(ValueError, match="previous: expected 1 channels and 11 classes, got 3"):
        step(Scenario(4, channels=1), 1, previous)
    fewer = dataclasses.replace(previous, targets=previous.targets[:, :5])
    with pytest.raises(ValueError, match="previous: expected 3 channels and 11 classes, got 3 and"):
        step(Scenario(4), 1, fewer)


def test_draws_for_another_batch_are_refused() -> None:
    draws = draw_recursivemix(BatchShape(3, 32, 32), strength=0.5, generator=seeded(0))
    with pytest.raises(ValueError, match="draws: expected parameters for 4 images, got 3"):
        apply_recursivemix(random_images(Scenario(4)), torch.zeros(4).long(), draws, num_classes=2)


@ref.every_scenario
@ref.every_seed
def test_agrees_with_loops(scenario: Scenario, seed: int) -> None:
    images, draws, mixed = ref.mixed_by(Operator.RECURSIVEMIX, scenario, seed)
    shown = ref.array(previous_batch(scenario).images)
    expected = [
        ref.resized(first, before, box, is_bilinear=False)
        for first, before, box in zip(ref.array(images), shown, draws.box, strict=True)
    ]
    ref.assert_agree(mixed, expected)
