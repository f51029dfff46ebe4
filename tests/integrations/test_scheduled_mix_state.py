"""The state of a `ScheduledMix`, and its other form of targets."""

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from automix.integrations import ScheduledMix
from automix.operator_info import Operator
from automix.schedule import Decision, constant_schedule, even_schedule
from automix.training.metrics import interpolated_loss

NUM_CLASSES = 4
RECURSIVE = Decision(operator=Operator.RECURSIVEMIX)


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(6, 3, 8, 8, generator=generator), torch.arange(6) % NUM_CLASSES


def new_mix(*decisions: Decision) -> ScheduledMix:
    return ScheduledMix(even_schedule(decisions), num_classes=NUM_CLASSES, total_steps=8)


def test_a_state_continues_from_every_batch() -> None:
    # RecursiveMix mixes with what it returned before; the step alone would not do.
    decisions = [RECURSIVE, Decision(operator=Operator.MIXUP, probability=0.5)]
    whole = new_mix(*decisions)
    states, outputs = [], []
    for step in range(8):
        states.append(copy.deepcopy(whole.state_dict()))
        outputs.append(whole(*batch(step)))
    for start, state in enumerate(states):
        other = new_mix(*decisions)
        other(*batch(99))
        other.load_state_dict(state)
        for step in range(start, 8):
            for got, expected in zip(other(*batch(step)), outputs[step], strict=True):
                assert torch.equal(got, expected)
    lost = new_mix(*decisions)
    lost.step = 2
    assert not torch.equal(lost(*batch(2))[0], outputs[2][0])


def test_a_state_is_plain(tmp_path: object) -> None:
    mix = new_mix(RECURSIVE)
    mix(*batch(0))
    mix.mixup_enabled = False
    state = mix.state_dict()
    assert state["step"] == 1
    assert state["mixup_enabled"] is False
    assert state["previous"] is not None
    assert all(isinstance(value, Tensor | None) for value in state["previous"].values())
    other = new_mix(RECURSIVE)
    other.load_state_dict(state)
    assert not other.mixup_enabled
    assert torch.equal(other(*batch(1))[0], batch(1)[0])


def test_a_batch_that_is_refused_is_not_counted() -> None:
    mix = new_mix(Decision(operator=Operator.MIXUP))
    images, labels = batch(0)
    with pytest.raises(TypeError, match="expected a floating point tensor"):
        mix((images * 255).to(torch.uint8), labels)
    assert mix.step == 0
    mix.mixup_enabled = False
    with pytest.raises(TypeError, match="expected a floating point tensor"):
        mix((images * 255).to(torch.uint8), labels)


@pytest.mark.parametrize("enabled", [True, False])
def test_two_targets_and_lam_give_the_loss_of_the_soft_target(enabled: bool) -> None:
    first, second = (
        ScheduledMix(
            constant_schedule(Decision(operator=Operator.CUTMIX)),
            num_classes=NUM_CLASSES,
            total_steps=8,
        )
        for _ in range(2)
    )
    first.mixup_enabled = second.mixup_enabled = enabled
    images, targets = first(*batch(0))
    mixed = second.mixed(*batch(0))
    assert torch.equal(mixed.images, images)
    assert torch.equal(mixed.own_targets, batch(0)[1])
    assert mixed.partner_targets is not None
    logits = images.mean((2, 3)) @ torch.randn(
        3, NUM_CLASSES, generator=torch.Generator().manual_seed(3)
    )
    loss = interpolated_loss(
        lambda logits, targets: F.cross_entropy(logits, targets, reduction="none"),
        logits,
        mixed.own_targets,
        mixed.partner_targets,
        mixed.lam,
    )
    torch.testing.assert_close(loss, F.cross_entropy(logits, targets))
