"""The loss of auxiliary heads: of the mixed targets, weighted, and a part of the gradient."""

import pytest
import torch

from automix.configuration.task import ModelConfig, TaskConfig
from automix.mixture import Decision
from automix.operator_info import Operator
from automix.training.metrics import soft_cross_entropy
from automix.training.targets import cross_entropy
from automix.training.trainer import build_trainer, load_search_data
from tests.training.conftest import TASK


def with_auxiliary(kind: str, weight: float | None) -> TaskConfig:
    trainer = TASK.trainer.model_copy(update={"auxiliary_weight": weight, "ema_decay": 0.0})
    model = ModelConfig(factory=f"tests.models.users_networks:{kind}")
    return TASK.model_copy(update={"trainer": trainer, "model": model})


@pytest.mark.parametrize("kind", ["inception", "tuples", "mappings", "dataclasses"])
@pytest.mark.parametrize("weight", [None, 0.0, 2.0])
def test_the_loss_is_the_weighted_sum(kind: str, weight: float | None) -> None:
    task = with_auxiliary(kind, weight)
    trainer = build_trainer(task, load_search_data(TASK.data), seed=3)
    stages = trainer.training_step
    trainer.model.train()
    images, labels, key = stages.fetch(seed=3, step=0)
    batch = stages.mix(Decision(operator=Operator.CUTMIX), images, labels, key=key)
    output = stages.forward(batch)
    (auxiliary,) = output.auxiliary
    expected = cross_entropy(output.logits, batch.targets) + (
        0.4 if weight is None else weight
    ) * cross_entropy(auxiliary, batch.targets)
    loss = stages.loss(output, batch)
    torch.testing.assert_close(loss, expected)
    stages.backward(loss)
    gradient = trainer.model.get_parameter("aux.weight").grad
    assert gradient is not None
    assert bool(gradient.any()) == (weight != 0)


def test_evaluation_reads_the_logits_alone() -> None:
    data = load_search_data(TASK.data)
    trainers = [
        build_trainer(with_auxiliary(kind, None), data, seed=3) for kind in ("tiny", "tuples")
    ]
    plain, tuples = (trainer.logits(data.reward) for trainer in trainers)
    torch.testing.assert_close(plain, tuples)
    assert soft_cross_entropy(plain, torch.full_like(plain, 0.1)).isfinite()
