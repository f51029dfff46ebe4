"""Manifold Mixup in training runs: by plain loops, alone and at once, with its layers by option."""

from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from automix.configuration.operators import ManifoldMixupOptions, OperatorOptions
from automix.configuration.task import TaskConfig
from automix.data.splits import SearchData
from automix.errors import ConfigError
from automix.mixture import Mixture
from automix.operator_info import Operator
from automix.schedule import Decision
from automix.training.check import check_model
from automix.training.population import Population
from automix.training.step import MicroBatch
from automix.training.targets import LabelPairs
from automix.training.trainer import ClassifierTrainer, build_trainer
from tests.training.conftest import TASK

DECISION = Decision(operator=Operator.MANIFOLD_MIXUP)
LAYERS = ("input", "stage1", "stage2", "stage3", "pool", "head")


def task_with(*layers: str) -> TaskConfig:
    options = OperatorOptions(manifold_mixup=ManifoldMixupOptions(layers=layers))
    return TASK.model_copy(update={"operators": options})


def batch_of(trainer: ClassifierTrainer, step: int) -> tuple[Tensor, MicroBatch]:
    """Return the images of a step before they are mixed, and what is trained on."""
    stages = trainer.training_step
    images, labels, key = stages.fetch(seed=trainer.seed, step=step)
    return images, stages.mix(Mixture.of(DECISION), images, labels, key=key)


def slow_loss(model: nn.Module, images: Tensor, batch: MicroBatch, layer: str) -> float:
    """Return the loss with the values of the layer blended one by one."""
    assert isinstance(batch.targets, LabelPairs)
    own_classes, partner_classes, lams = batch.targets
    # The pairs are known by their classes, and in the tiny task some have the same: by the draws.
    assert batch.blend is not None
    partner = batch.blend.draws.partner
    values = images
    for name, part in model.named_children():
        values = part(values)
        if name == layer:
            mixed = values.clone().flatten(1)
            for index, row in enumerate(values.flatten(1).tolist()):
                other = values.flatten(1)[partner[index]].tolist()
                lam = float(lams[index])
                for place, (first, second) in enumerate(zip(row, other, strict=True)):
                    mixed[index, place] = lam * first + (1 - lam) * second
            values = mixed.view_as(values)
    logs = values.log_softmax(1)
    losses = [
        -float(lam) * float(logs[index, a]) - (1 - float(lam)) * float(logs[index, b])
        for index, (a, b, lam) in enumerate(zip(own_classes, partner_classes, lams, strict=True))
    ]
    return sum(losses) / len(losses)


@pytest.mark.parametrize("layer", LAYERS[1:])
@torch.no_grad()
def test_hidden_layers_agree_with_loops(search_data: SearchData, layer: str) -> None:
    trainer = build_trainer(task_with(layer), search_data, seed=3)
    trainer.model.train()
    images, batch = batch_of(trainer, 0)
    assert torch.equal(batch.images, images)
    loss = trainer.training_step.loss(trainer.training_step.forward(batch), batch)
    assert float(loss) == pytest.approx(slow_loss(trainer.model, images, batch, layer), rel=1e-5)


def test_at_the_input_it_is_mixup(search_data: SearchData) -> None:
    at_input, mixup = (build_trainer(task_with("input"), search_data, seed=3) for _ in range(2))
    losses = [at_input.train(DECISION, num_steps=1).loss for _ in range(4)]
    other = Decision(operator=Operator.MIXUP, strength=DECISION.strength)
    assert losses == [mixup.train(other, num_steps=1).loss for _ in range(4)]


def test_every_layer_is_drawn_as_often(search_data: SearchData) -> None:
    trainer = build_trainer(TASK, search_data, seed=0)
    batches = (batch_of(trainer, step)[1] for step in range(120))
    counts = Counter(batch.blend.layer if batch.blend else "input" for batch in batches)
    assert counts.keys() == {"input", "stage1", "stage2"}
    # 40 expected, with a standard deviation of 5.
    assert min(counts.values()) >= 25


@pytest.mark.parametrize("channels_last", [False, True])
def test_runs_at_once_blend_as_they_do_alone(search_data: SearchData, channels_last: bool) -> None:
    config = TASK.trainer.model_copy(update={"channels_last": channels_last})
    task = task_with(*LAYERS).model_copy(update={"trainer": config})
    alone, joined = (
        [build_trainer(task, search_data, seed=seed) for seed in range(3)] for _ in range(2)
    )
    plans = [(DECISION, 6), (Decision(operator=Operator.NONE), 6), (DECISION, 4)]
    expected = [
        trainer.train(decision, num_steps=steps).loss
        for trainer, (decision, steps) in zip(alone, plans, strict=True)
    ]
    population = Population(joined)
    assert population.obstacle is None
    assert [metrics.loss for metrics in population.train(plans)] == pytest.approx(
        expected, rel=1e-4
    )
    # The hooks are gone, also those of the networks that share containers with the stack.
    assert not any(part._forward_hooks for run in joined for part in run.model.modules())


def test_layers_are_checked_before_a_run(search_data: SearchData) -> None:
    check_model(TASK, search_data, operators=[Operator.MANIFOLD_MIXUP])
    where = r"^task\.operators\.manifold_mixup\.layers: expected input or layers as stage1"
    with pytest.raises(ConfigError, match=where + ".* got 'stage9'$"):
        check_model(task_with("stage9"), search_data, operators=[Operator.MANIFOLD_MIXUP])
    check_model(task_with("stage9"), search_data, operators=[Operator.MIXUP])


def test_gradients_are_not_checkpointed_with_it(search_data: SearchData) -> None:
    trainer = TASK.trainer.model_copy(update={"gradient_checkpointing": True})
    task = TASK.model_copy(update={"trainer": trainer})
    with pytest.raises(ConfigError, match=r"^task\.trainer\.gradient_checkpointing: "):
        check_model(task, search_data, operators=[Operator.MANIFOLD_MIXUP])
