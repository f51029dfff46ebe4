"""`ScheduledMix` in loops that are not ours."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from automix.integrations import ScheduledMix
from automix.operator_info import Operator
from automix.operators import OPERATORS
from automix.schedule import (
    Decision,
    Schedule,
    constant_schedule,
    equal_mixture,
    even_schedule,
    mix_then_off,
)

NUM_CLASSES = 4
NONE = Decision(operator=Operator.NONE)


def _net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, NUM_CLASSES))


def _batch(size: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(size, 3, 8, 8, generator=generator)
    return images, torch.arange(size) % NUM_CLASSES


def test_a_plain_loop_trains_with_every_operator() -> None:
    operators = [
        name
        for name, spec in OPERATORS.items()
        if not (spec.facts.mixes_features or spec.facts.learns)
    ]
    schedule = even_schedule([Decision(operator=operator) for operator in operators])
    model = _net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    mix = ScheduledMix(schedule, num_classes=NUM_CLASSES, total_steps=len(operators), model=model)
    before = [parameter.clone() for parameter in model.parameters()]
    for _ in operators:
        images, targets = mix(*_batch())
        loss = F.cross_entropy(model(images), targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        assert torch.isfinite(loss)
    assert mix.step == len(operators)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_mixing_in_a_layer_is_refused() -> None:
    schedule = constant_schedule(Decision(operator=Operator.MANIFOLD_MIXUP))
    with pytest.raises(ValueError, match=r"schedule: expected .* got manifold_mixup, which mixes"):
        ScheduledMix(schedule, num_classes=NUM_CLASSES, total_steps=10, model=_net())


def test_setting_the_step_continues_with_the_same_draws() -> None:
    schedule = constant_schedule(Decision(operator=Operator.CUTMIX))
    first = ScheduledMix(schedule, num_classes=NUM_CLASSES, total_steps=10)
    outputs = [first(*_batch()) for _ in range(5)]
    second = ScheduledMix(schedule, num_classes=NUM_CLASSES, total_steps=10)
    second.step = 3
    for expected in outputs[3:]:
        images, targets = second(*_batch())
        assert torch.equal(images, expected[0])
        assert torch.equal(targets, expected[1])


def test_ranks_draw_differently() -> None:
    schedule = constant_schedule(Decision(operator=Operator.MIXUP))
    outputs = [
        ScheduledMix(schedule, num_classes=NUM_CLASSES, total_steps=10, rank=rank)(*_batch())[0]
        for rank in range(2)
    ]
    assert not torch.equal(*outputs)


def test_ranks_draw_the_same_operators_of_a_mixture() -> None:
    mixture = equal_mixture([Decision(operator=Operator.MIXUP), Decision(operator=Operator.CUTMIX)])
    ranks = [
        ScheduledMix(constant_schedule(mixture), num_classes=NUM_CLASSES, total_steps=30, rank=rank)
        for rank in range(2)
    ]
    are_boxes = []
    for _ in range(30):
        first, second = (mix.mixed(*_batch()) for mix in ranks)
        assert not torch.equal(first.lam, second.lam)
        # Of Mixup, the mask is one number for each image.
        masks = [batch.mask for batch in (first, second) if batch.mask is not None]
        are_boxes.append([bool(((mask == 0) | (mask == 1)).all()) for mask in masks])
    assert {tuple(pair) for pair in are_boxes} == {(True, True), (False, False)}


def test_any_decision_of_any_mixture_may_need_a_model() -> None:
    mixture = equal_mixture([Decision(operator=Operator.MIXUP), Decision(operator=Operator.RMIX)])
    with pytest.raises(ValueError, match="expected a model for the saliency of rmix, got none"):
        ScheduledMix(even_schedule([NONE, mixture]), num_classes=NUM_CLASSES, total_steps=4)


def test_it_follows_the_schedule_and_can_be_switched_off() -> None:
    mix = ScheduledMix(
        mix_then_off(Decision(operator=Operator.MIXUP), off_from=0.5),
        num_classes=NUM_CLASSES,
        total_steps=4,
        label_smoothing=0.1,
    )
    images, labels = _batch()
    assert not torch.equal(mix(images, labels)[0], images)
    mix.mixup_enabled = False
    assert torch.equal(mix(images, labels)[0], images)
    mix.mixup_enabled = True
    off, targets = mix(images, labels)
    assert torch.equal(off, images)
    expected = F.one_hot(labels, NUM_CLASSES) * 0.9 + 0.1 / NUM_CLASSES
    torch.testing.assert_close(targets, expected)


def test_the_inputs_stay_as_they_are() -> None:
    mix = ScheduledMix(
        constant_schedule(Decision(operator=Operator.CUTMIX)), num_classes=4, total_steps=1
    )
    images, labels = _batch()
    kept = images.clone(), labels.clone()
    mix(images, labels)
    assert torch.equal(images, kept[0])
    assert torch.equal(labels, kept[1])


def test_it_stands_in_for_timms_mixup() -> None:
    timm_loss = pytest.importorskip("timm.loss", reason="timm is an extra")
    mixup_fn = ScheduledMix(
        Schedule.from_json(
            constant_schedule(Decision(operator=Operator.MIXUP)).to_json(), source="test"
        ),
        num_classes=NUM_CLASSES,
        total_steps=2,
    )
    images, targets = mixup_fn(*_batch())
    loss = timm_loss.SoftTargetCrossEntropy()(_net()(images), targets)
    assert torch.isfinite(loss)
    assert mixup_fn.num_classes == NUM_CLASSES


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"num_classes": 0, "total_steps": 1}, "num_classes: expected a whole"),
        ({"num_classes": 2, "total_steps": 0}, "total_steps: expected a whole"),
        ({"num_classes": 2, "total_steps": 1}, "expected a model for the saliency"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, int], expected: str) -> None:
    schedule = constant_schedule(Decision(operator=Operator.SALIENCYMIX))
    with pytest.raises(ValueError, match=expected):
        ScheduledMix(schedule, **arguments)  # type: ignore[arg-type]
