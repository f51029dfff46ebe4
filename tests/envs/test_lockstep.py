"""Classifiers trained in lock-step: what each would have learned alone, up to the last bits."""

import logging
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from automix.configuration.task import ModelConfig, TaskConfig, TrainerConfig
from automix.data.splits import SearchData
from automix.models.build import build_model
from automix.operator_info import Operator
from automix.schedule import Decision
from automix.training.lockstep import LockstepTrainers
from automix.training.trainer import ClassifierTrainer, build_trainer
from envs.smoke import SMOKE_ENVIRONMENT, SMOKE_TASK
from envs.vector import LockstepVecEnv, make_vec_env

PLANS = (
    (Decision(operator=Operator.NONE), 4),
    (Decision(operator=Operator.CUTMIX, probability=0.5), 6),
    (Decision(operator=Operator.SALIENCYMIX), 5),
)


def make(
    data: SearchData, task: TaskConfig = SMOKE_TASK, *, count: int = 3
) -> list[ClassifierTrainer]:
    return [build_trainer(task, data, seed=10 + number) for number in range(count)]


def together(trainers: Sequence[ClassifierTrainer], data: SearchData) -> LockstepTrainers:
    return LockstepTrainers(trainers, image_shape=data.image_shape)


def weights(trainer: ClassifierTrainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()} | {
        f"average {name}": value.clone()
        for name, value in trainer.evaluated_model.state_dict().items()
    }


def test_each_learns_what_it_would_have_learned_alone(smoke_data: SearchData) -> None:
    alone, joined = make(smoke_data), make(smoke_data)
    lockstep = together(joined, smoke_data)
    assert lockstep.obstacle is None
    for _ in range(2):
        expected = [
            trainer.train(decision, num_steps=steps)
            for trainer, (decision, steps) in zip(alone, PLANS, strict=True)
        ]
        metrics = lockstep.train(PLANS)
        for result, reference in zip(metrics, expected, strict=True):
            assert result.loss == pytest.approx(reference.loss, rel=1e-4)
            assert result.num_images == reference.num_images
            assert result.mixed_fraction == reference.mixed_fraction
            assert result.seconds > 0
    for one, other in zip(joined, alone, strict=True):
        assert one.step == other.step
        for name, value in weights(other).items():
            torch.testing.assert_close(weights(one)[name], value, rtol=1e-3, atol=1e-4)


def test_a_change_to_one_leaves_the_others_alone(smoke_data: SearchData) -> None:
    outcomes = []
    for operator in (Operator.NONE, Operator.MIXUP):
        trainers = make(smoke_data)
        together(trainers, smoke_data).train([(Decision(operator=operator), 4), *PLANS[1:]])
        outcomes.append([weights(trainer) for trainer in trainers])
    for first, second in zip(outcomes[0][1:], outcomes[1][1:], strict=True):
        for name, value in first.items():
            torch.testing.assert_close(second[name], value, rtol=0, atol=0)
    name = next(iter(outcomes[0][0]))
    assert (outcomes[0][0][name] != outcomes[1][0][name]).any()


def test_a_saved_state_resumes_alone(smoke_data: SearchData) -> None:
    joined, other = make(smoke_data), make(smoke_data, count=1)[0]
    together(joined, smoke_data).train(PLANS)
    other.load_state_dict(joined[1].state_dict())
    first = other.train(PLANS[0][0], num_steps=2)
    second = joined[1].train(PLANS[0][0], num_steps=2)
    assert first.loss == second.loss


class Noisy(nn.Module):
    """Draws random numbers, which `torch.vmap` refuses."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.inner(images))  # type: ignore[no-any-return]


def test_networks_that_vmap_does_not_take_are_trained_one_after_the_other(
    smoke_data: SearchData, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "automix.training.trainer.build_model",
        lambda *args, **options: Noisy(build_model(*args, **options)),
    )
    monkeypatch.setattr("automix.training.trainer.reinitialize_", lambda *_, **__: None)
    alone, joined = make(smoke_data), make(smoke_data)
    with caplog.at_level(logging.WARNING):
        lockstep = together(joined, smoke_data)
    assert lockstep.obstacle is not None
    assert "a network that vmap does not take: " in lockstep.obstacle
    assert len(caplog.records) == 1
    assert "trained one after the other" in caplog.text
    results = lockstep.train(PLANS)
    for trainer, metrics, (decision, steps) in zip(alone, results, PLANS, strict=True):
        assert trainer.train(decision, num_steps=steps).loss == metrics.loss


@pytest.mark.parametrize("fields", [{"accumulation": 2}, {"compile": True}, {"precision": "fp16"}])
def test_what_lockstep_does_not_do_is_said(
    smoke_data: SearchData, fields: dict[str, object]
) -> None:
    trainer = TrainerConfig.model_validate(SMOKE_TASK.trainer.model_dump() | fields)
    task = SMOKE_TASK.model_copy(update={"trainer": trainer})
    lockstep = together(make(smoke_data, task, count=2), smoke_data)
    assert lockstep.obstacle is not None
    assert next(iter(fields)) in lockstep.obstacle


def test_half_precision_trains_at_once(smoke_data: SearchData) -> None:
    trainer = SMOKE_TASK.trainer.model_copy(update={"precision": "bf16"})
    task = SMOKE_TASK.model_copy(update={"trainer": trainer})
    alone, joined = make(smoke_data, task), make(smoke_data, task)
    lockstep = together(joined, smoke_data)
    assert lockstep.obstacle is None
    for trainer_alone, metrics, (decision, steps) in zip(
        alone, lockstep.train(PLANS), PLANS, strict=True
    ):
        expected = trainer_alone.train(decision, num_steps=steps)
        assert metrics.loss == pytest.approx(expected.loss, rel=0.02)


def test_a_residual_network_trains_at_once(smoke_data: SearchData) -> None:
    task = SMOKE_TASK.model_copy(update={"model": ModelConfig(name="preact_resnet18", width=2)})
    alone, joined = make(smoke_data, task, count=2), make(smoke_data, task, count=2)
    lockstep = together(joined, smoke_data)
    assert lockstep.obstacle is None
    results = lockstep.train(PLANS[:2])
    for trainer, metrics, (decision, steps) in zip(alone, results, PLANS[:2], strict=True):
        expected = trainer.train(decision, num_steps=steps)
        assert metrics.loss == pytest.approx(expected.loss, rel=1e-3)


def test_environments_in_lockstep_behave_as_in_this_process() -> None:
    logs = []
    for kind in ("in_process", "lockstep"):
        env = make_vec_env(SMOKE_TASK, SMOKE_ENVIRONMENT, num_envs=2, kind=kind, seed=3)
        assert isinstance(env, LockstepVecEnv) == (kind == "lockstep")
        log = [env.reset()]
        for step in range(5):
            observations, rewards, dones, infos = env.step(np.array([[step % 3, 1, 0], [2, 0, 1]]))
            log += [observations, rewards, dones]
            log += [
                info["terminal_observation"] for info in infos if "terminal_observation" in info
            ]
            assert all("TimeLimit.truncated" in info for info in infos)
        assert [info["training_seed"] for info in env.reset_infos] == [
            e.trainer.seed
            for e in env.envs  # type: ignore[attr-defined]
        ]
        logs.append(log)
    assert len(logs[0]) == len(logs[1])
    for one_by_one, at_once in zip(*logs, strict=True):
        np.testing.assert_allclose(one_by_one, at_once, rtol=2e-3, atol=2e-3)


def test_lockstep_repeats_and_resumes_bit_for_bit() -> None:
    action = np.array([[1, 1, 1], [2, 0, 1]])

    def new(seed: int) -> LockstepVecEnv:
        env = make_vec_env(SMOKE_TASK, SMOKE_ENVIRONMENT, num_envs=2, kind="lockstep", seed=seed)
        assert isinstance(env, LockstepVecEnv)
        env.reset()
        return env

    env, other = new(1), new(2)
    env.step(action)
    states = env.env_method("get_state")
    expected = [env.step(action)[:3] for _ in range(3)]
    for index, state in enumerate(states):
        other.env_method("set_state", state, indices=index)
    results = [other.step(action)[:3] for _ in range(3)]
    for result, reference in zip(results, expected, strict=True):
        for first, second in zip(result, reference, strict=True):
            np.testing.assert_array_equal(first, second)
