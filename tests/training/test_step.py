"""A training step is its seven stages in order, and a loop may call them itself."""

import pytest
import torch
import torch.nn.functional as F

from automix.operator_info import Operator
from automix.schedule import Decision
from automix.training.metrics import RunningSums
from automix.training.step import TrainingStep
from automix.training.targets import target_rows
from automix.training.trainer import ClassifierTrainer
from tests.equality import assert_same
from tests.training.conftest import MakeTrainer

STAGES = ("fetch", "mix", "forward", "loss", "backward", "update", "average")
RMIX = Decision(operator=Operator.RMIX, probability=0.5)


def by_stages(trainer: ClassifierTrainer, decision: Decision) -> None:
    """Do one step as a loop of another kind would, with one micro-batch."""
    stages = trainer.training_step
    images, labels, key = stages.fetch(seed=trainer.seed, step=trainer.step)
    batch = stages.mix(decision, images, labels, key=key)
    stages.backward(stages.loss(stages.forward(batch), batch))
    stages.update(trainer.step)
    stages.average(trainer.step)
    trainer.step += 1


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_step_runs_its_stages_in_order(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, accumulation: int
) -> None:
    calls: list[str] = []
    for name in STAGES:
        stage = getattr(TrainingStep, name)

        def noted(
            *args: object, stage: object = stage, name: str = name, **kwargs: object
        ) -> object:
            calls.append(name)
            return stage(*args, **kwargs)  # type: ignore[operator]

        monkeypatch.setattr(TrainingStep, name, noted)
    make_trainer(accumulation=accumulation).train(RMIX, num_steps=1)
    assert calls == [*STAGES[:5] * accumulation, *STAGES[5:]]


@pytest.mark.parametrize("fields", [{}, {"loss": "decoupled"}, {"clean_loss": 0.5}])
def test_stages_called_one_by_one_are_the_step(
    make_trainer: MakeTrainer, fields: dict[str, object]
) -> None:
    whole, composed = make_trainer(**fields), make_trainer(**fields)
    whole.train(RMIX, num_steps=4)
    composed.model.train()
    for _ in range(4):
        by_stages(composed, RMIX)
    assert_same({**whole.state_dict()}, {**composed.state_dict()})


def test_the_loss_on_the_unmixed_images_is_added_to_that_of_mixed_ones(
    make_trainer: MakeTrainer,
) -> None:
    trainer = make_trainer(clean_loss=0.25)
    stages = trainer.training_step
    # Evaluation mode: two passes through the same norms are then two of the same network.
    trainer.model.eval()
    images, labels, key = stages.fetch(seed=0, step=0)
    for operator in (Operator.NONE, Operator.CUTMIX):
        batch = stages.mix(Decision(operator=operator), images, labels, key=key)
        rows = target_rows(batch.targets, 10)
        expected = F.cross_entropy(trainer.model(batch.images), rows)
        if operator is Operator.CUTMIX:
            expected = expected + 0.25 * F.cross_entropy(trainer.model(images), labels)
        torch.testing.assert_close(stages.loss(stages.forward(batch), batch), expected)


def test_sums_that_are_passed_take_in_the_steps_and_nothing_is_returned(
    make_trainer: MakeTrainer,
) -> None:
    trainer, other = make_trainer(), make_trainer()
    sums = RunningSums(trainer.device)
    assert trainer.train(RMIX, num_steps=2, sums=sums) is None
    trainer.train(RMIX, num_steps=1, sums=sums)
    mine, expected = sums.read(), other.train(RMIX, num_steps=3)
    assert (mine.loss, mine.num_images) == (expected.loss, expected.num_images)
