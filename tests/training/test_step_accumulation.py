"""Micro-batches: together they are the batch, each is mixed for itself, each has its own past."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from automix.errors import CheckpointError
from automix.operator_info import Operator
from automix.schedule import Decision
from automix.training.trainer import ClassifierTrainer, TrainerState
from tests.equality import assert_same
from tests.training.conftest import MakeTrainer
from tests.training.plain_network import plain_trainer

NONE = Decision(operator=Operator.NONE)


def weights(trainer: ClassifierTrainer) -> Tensor:
    return torch.cat([value.detach().flatten() for value in trainer.model.parameters()])


@settings(max_examples=12)
@given(
    accumulation=st.sampled_from([2, 4, 8]),
    max_grad_norm=st.sampled_from([None, 0.5]),
    label_smoothing=st.sampled_from([0.0, 0.1]),
    optimizer=st.sampled_from(["sgd", "adamw"]),
)
def test_a_divided_batch_trains_as_the_whole(
    accumulation: int, max_grad_norm: float | None, label_smoothing: float, optimizer: str
) -> None:
    fields: dict[str, Any] = {
        "crop_padding": 0,
        "max_grad_norm": max_grad_norm,
        "label_smoothing": label_smoothing,
        "optimizer": optimizer,
        "learning_rate": 0.05 if optimizer == "sgd" else 0.005,
    }
    whole, divided = plain_trainer(**fields), plain_trainer(accumulation=accumulation, **fields)
    for _ in range(4):
        expected, metrics = whole.train(NONE, num_steps=1), divided.train(NONE, num_steps=1)
        assert metrics.loss == pytest.approx(expected.loss, rel=1e-5)
        assert metrics.clean_accuracy == pytest.approx(expected.clean_accuracy)
        assert metrics.num_images == expected.num_images == 8
    # Adam divides by the root of the squared gradient, and so enlarges rounding where it is tiny.
    tolerance = 1e-5 if optimizer == "sgd" else 1e-3
    torch.testing.assert_close(weights(divided), weights(whole), rtol=1e-3, atol=tolerance)


def test_each_micro_batch_is_mixed_or_not_for_itself(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(accumulation=4, epochs=20)
    decision = Decision(operator=Operator.MIXUP, probability=0.5)
    fractions = [trainer.train(decision, num_steps=1).mixed_fraction for _ in range(60)]
    assert set(fractions) == {0.0, 0.25, 0.5, 0.75, 1.0}


def test_each_micro_batch_has_its_own_past(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(accumulation=2)
    decision = Decision(operator=Operator.RECURSIVEMIX)
    trainer.train(decision, num_steps=1)
    first, second = (micro_batch["previous"] for micro_batch in trainer.state_dict()["shares"])
    assert first is not None
    assert second is not None
    trainer.train(decision, num_steps=1)
    for micro_batch, before in zip(trainer.state_dict()["shares"], (first, second), strict=True):
        assert micro_batch["previous"] is not None
        # Its partners are the soft targets of the micro-batch of the same number.
        partners = micro_batch["previous"]["partner_targets"]
        slots = micro_batch["previous"]["partner"]
        assert partners is not None
        assert slots is not None
        assert before["targets"] is not None
        assert torch.equal(partners, before["targets"][slots])


@pytest.mark.parametrize("operator", [Operator.RECURSIVEMIX, Operator.RMIX, Operator.CUTMIX])
def test_states_resume_from_every_step(make_trainer: MakeTrainer, operator: Operator) -> None:
    decision = Decision(operator=operator, probability=0.75)
    fields = {"accumulation": 2, "saliency": {"refresh_every": 3}}
    whole, other = make_trainer(1, **fields), make_trainer(2, **fields)
    states: list[TrainerState] = []
    for _ in range(8):
        trainer = make_trainer(1, **fields)
        trainer.train(decision, num_steps=len(states))
        states.append(trainer.state_dict())
    whole.train(decision, num_steps=8)
    for state in states:
        other.load_state_dict(state)
        other.train(decision, num_steps=8 - other.step)
        assert_same({**whole.state_dict()}, {**other.state_dict()})


def test_a_state_of_another_accumulation_is_refused(make_trainer: MakeTrainer) -> None:
    state, trainer = make_trainer(accumulation=4).state_dict(), make_trainer(1, accumulation=2)
    before = weights(trainer)
    with pytest.raises(CheckpointError, match="expected a training run with accumulation 2, got 4"):
        trainer.load_state_dict(state)
    assert torch.equal(weights(trainer), before)


def test_gradients_of_a_step_that_failed_are_forgotten(make_trainer: MakeTrainer) -> None:
    failed, fresh = make_trainer(1, accumulation=2), make_trainer(2, accumulation=2)
    calls: list[int] = []

    def fail_second(*_: object) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise MemoryError

    handle = failed.model.register_forward_hook(fail_second)
    with pytest.raises(MemoryError):
        failed.train(NONE, num_steps=1)
    handle.remove()
    failed.reset(2)
    for trainer in (failed, fresh):
        trainer.train(NONE, num_steps=2)
    assert_same({**failed.state_dict()}, {**fresh.state_dict()})
