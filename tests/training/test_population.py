"""Classifiers trained as one population: what each would have learned alone, up to rounding."""

import logging
from dataclasses import asdict
from typing import Literal

import pytest
import torch
from torch import nn

from automix.configuration.operators import OperatorOptions, RMixOptions
from automix.configuration.task import ModelConfig, TaskConfig
from automix.configuration.trainer import TrainerConfig
from automix.data.splits import SearchData
from automix.models.build import build_model
from automix.operator_info import Operator
from automix.schedule import Decision
from automix.training.population import Population
from automix.training.trainer import ClassifierTrainer, build_trainer
from tests.training.conftest import TASK

PLANS = (
    (Decision(operator=Operator.NONE), 4),
    (Decision(operator=Operator.CUTMIX, probability=0.5), 6),
    (Decision(operator=Operator.SALIENCYMIX), 5),
)


def make(data: SearchData, task: TaskConfig = TASK, *, count: int = 3) -> list[ClassifierTrainer]:
    return [build_trainer(task, data, seed=10 + number) for number in range(count)]


def weights(trainer: ClassifierTrainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()} | {
        f"average {name}": value.clone()
        for name, value in trainer.evaluated_model.state_dict().items()
    }


def test_each_learns_what_it_would_have_learned_alone(search_data: SearchData) -> None:
    alone, joined = make(search_data), make(search_data)
    population = Population(joined)
    assert population.obstacle is None
    for _ in range(2):
        expected = [
            trainer.train(decision, num_steps=steps)
            for trainer, (decision, steps) in zip(alone, PLANS, strict=True)
        ]
        metrics = population.train(PLANS)
        for result, reference in zip(metrics, expected, strict=True):
            assert result.loss == pytest.approx(reference.loss, rel=1e-4)
            assert result.num_images == reference.num_images
            assert result.mixed_fraction == reference.mixed_fraction
            assert result.seconds > 0
    for one, other in zip(joined, alone, strict=True):
        assert one.step == other.step
        for name, value in weights(other).items():
            torch.testing.assert_close(weights(one)[name], value, rtol=1e-3, atol=1e-4)
    temperatures = [0.5, 1.0, 2.0][: len(joined)]
    evaluated = population.evaluate(search_data.reward, temperatures=temperatures)
    for trainer, temperature, result_at in zip(joined, temperatures, evaluated, strict=True):
        separate = trainer.evaluate(search_data.reward, temperature=temperature)
        assert asdict(result_at) == pytest.approx(asdict(separate))


@pytest.mark.parametrize("mode", ["both", "less", "more"])
def test_decoupled_mixup_trains_alone_and_at_once(
    search_data: SearchData, mode: Literal["both", "less", "more"]
) -> None:
    trainer = TASK.trainer.model_copy(update={"loss": "decoupled", "decoupled_mode": mode})
    task = TASK.model_copy(update={"trainer": trainer})
    losses = [
        [
            run.train(decision, num_steps=steps).loss
            for run, (decision, steps) in zip(make(search_data, one), PLANS, strict=True)
        ]
        for one in (TASK, task)
    ]
    at_once = [metrics.loss for metrics in Population(make(search_data, task)).train(PLANS)]
    assert at_once == pytest.approx(losses[1], rel=1e-4)
    # The term is of mixed batches, and not negative.
    assert losses[1][0] == losses[0][0]
    assert losses[1][1] > losses[0][1]


def test_operators_with_options_train_alone_and_at_once(search_data: SearchData) -> None:
    options = OperatorOptions(rmix=RMixOptions(grids=(2, 4), per="batch"))
    task = TASK.model_copy(update={"operators": options})
    plans = [(Decision(operator=Operator.RMIX), steps) for steps in (4, 6, 5)]
    alone, plain = (
        [
            run.train(decision, num_steps=steps).loss
            for run, (decision, steps) in zip(make(search_data, one), plans, strict=True)
        ]
        for one in (task, TASK)
    )
    at_once = [metrics.loss for metrics in Population(make(search_data, task)).train(plans)]
    assert at_once == pytest.approx(alone, rel=1e-4)
    assert alone != plain


def test_a_change_to_one_leaves_the_others_alone(search_data: SearchData) -> None:
    outcomes = []
    for operator in (Operator.NONE, Operator.MIXUP):
        trainers = make(search_data)
        Population(trainers).train([(Decision(operator=operator), 4), *PLANS[1:]])
        outcomes.append([weights(trainer) for trainer in trainers])
    for first, second in zip(outcomes[0][1:], outcomes[1][1:], strict=True):
        for name, value in first.items():
            torch.testing.assert_close(second[name], value, rtol=0, atol=0)
    name = next(iter(outcomes[0][0]))
    assert (outcomes[0][0][name] != outcomes[1][0][name]).any()


def test_a_saved_state_resumes_alone(search_data: SearchData) -> None:
    joined, other = make(search_data), make(search_data, count=1)[0]
    Population(joined).train(PLANS)
    other.load_state_dict(joined[1].state_dict())
    first = other.train(PLANS[0][0], num_steps=2)
    second = joined[1].train(PLANS[0][0], num_steps=2)
    assert first.loss == second.loss


class Noisy(nn.Module):
    """A network with a module that is not known to keep channels apart."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.inner(images))  # type: ignore[no-any-return]


def test_networks_without_a_stacked_form_are_trained_one_after_the_other(
    search_data: SearchData, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "automix.training.trainer.build_model",
        lambda *args, **options: Noisy(build_model(*args, **options)),
    )
    monkeypatch.setattr("automix.training.trainer.reinitialize_", lambda *_, **__: None)
    alone, joined = make(search_data), make(search_data)
    with caplog.at_level(logging.WARNING):
        population = Population(joined)
    assert population.obstacle == "a network with a Noisy, which has no stacked form"
    assert len(caplog.records) == 1
    assert "trained one after the other" in caplog.text
    results = population.train(PLANS)
    for trainer, metrics, (decision, steps) in zip(alone, results, PLANS, strict=True):
        assert trainer.train(decision, num_steps=steps).loss == metrics.loss


@pytest.mark.parametrize(
    "fields",
    [
        {"accumulation": 2},
        {"compile": True},
        {"precision": "fp16"},
        {"clean_loss": 0.5},
        {"head_learning_rate": 0.1},
        {"layer_decay": 0.7},
        {"freeze_body": 0.2},
        {"freeze_batch_norm": True},
        {"class_weights": "balanced"},
        {"logit_adjustment": 1.0},
    ],
)
def test_what_a_population_does_not_do_is_said(
    search_data: SearchData, fields: dict[str, object]
) -> None:
    trainer = TrainerConfig.model_validate(TASK.trainer.model_dump() | fields)
    task = TASK.model_copy(update={"trainer": trainer})
    population = Population(make(search_data, task, count=2))
    assert population.obstacle is not None
    assert next(iter(fields)) in population.obstacle


def test_half_precision_trains_at_once(search_data: SearchData) -> None:
    trainer = TASK.trainer.model_copy(update={"precision": "bf16"})
    task = TASK.model_copy(update={"trainer": trainer})
    alone, joined = make(search_data, task), make(search_data, task)
    population = Population(joined)
    assert population.obstacle is None
    for trainer_alone, metrics, (decision, steps) in zip(
        alone, population.train(PLANS), PLANS, strict=True
    ):
        expected = trainer_alone.train(decision, num_steps=steps)
        assert metrics.loss == pytest.approx(expected.loss, rel=0.02)


def test_a_residual_network_trains_at_once(search_data: SearchData) -> None:
    task = TASK.model_copy(update={"model": ModelConfig(name="preact_resnet18", width=2)})
    alone, joined = make(search_data, task, count=2), make(search_data, task, count=2)
    population = Population(joined)
    assert population.obstacle is None
    results = population.train(PLANS[:2])
    for trainer, metrics, (decision, steps) in zip(alone, results, PLANS[:2], strict=True):
        expected = trainer.train(decision, num_steps=steps)
        assert metrics.loss == pytest.approx(expected.loss, rel=1e-3)
