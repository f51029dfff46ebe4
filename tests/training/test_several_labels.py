"""Images with several labels: rows of targets through every operator, and whole training runs."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from automix.configuration.data import DataConfig
from automix.configuration.task import ModelConfig, TaskConfig
from automix.configuration.trainer import TrainerConfig
from automix.data.load import load_data
from automix.data.splits import Dataset
from automix.errors import ConfigError
from automix.mixing import StepKey, mix_step
from automix.operator_info import OPERATOR_FACTS, Operator
from automix.operators.registry import OPERATORS
from automix.saliency.losses import label_loss
from automix.saliency.sources import build_source
from automix.schedule import Decision
from automix.training.check import check_model
from automix.training.population import Population
from automix.training.trainer import build_trainer
from envs.config import EnvironmentConfig
from envs.mixing_env import MixingEnv
from tests.data.sources.test_label_file import write_images
from tests.equality import assert_same
from tests.training.test_trainer_determinism import snapshot

EVERY_OPERATOR = pytest.mark.parametrize("operator", OPERATORS)


def task_of(file: Path, **fields: object) -> TaskConfig:
    return TaskConfig(
        data=DataConfig.model_validate(
            {
                "source": "folder",
                "path": file.parent / "images",
                "labels": file,
                "cache": file.parent / "cache",
            }
        ),
        model=ModelConfig(width=2),
        trainer=TrainerConfig.model_validate(
            {"epochs": 2, "batch_size": 4, "loss": "binary_cross_entropy"} | fields
        ),
    )


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("several") / "images")


@pytest.fixture(scope="module")
def data(labels: Path) -> Dataset:
    return load_data(task_of(labels).data)


@EVERY_OPERATOR
@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 1000))
def test_operators_mix_rows_of_labels_column_by_column(operator: Operator, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(6, 3, 16, 16, generator=generator)
    rows = (torch.rand(6, 4, generator=generator) < 0.5).float()
    maps = torch.rand(6, 16, 16, generator=generator) + 0.01
    maps = maps / maps.sum(dim=(1, 2), keepdim=True)

    def targets_of(targets: torch.Tensor, num_classes: int) -> torch.Tensor:
        previous = None
        for step in range(2 if OPERATOR_FACTS[operator].needs_previous else 1):
            previous = mix_step(
                Decision(operator=operator),
                images,
                targets,
                key=StepKey(seed=seed, step=step),
                num_classes=num_classes,
                model=torch.nn.Identity(),
                saliency=lambda *_: maps,
                previous=previous,
            )
        assert previous is not None
        return previous.targets

    # With one class for each image, targets are the weights of the images: W of rows.
    weights = targets_of(torch.arange(6), 6)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(6))
    mixed = targets_of(rows, 4)
    torch.testing.assert_close(mixed, weights @ rows, atol=1e-5, rtol=1e-5)
    assert mixed.min() >= 0
    assert mixed.max() <= 1 + 1e-6


@EVERY_OPERATOR
def test_a_run_with_every_operator_is_resumed_bit_for_bit(
    labels: Path, data: Dataset, operator: Operator
) -> None:
    task = task_of(labels)
    decision = Decision(operator=operator, probability=0.75)
    whole, cut = (build_trainer(task, data.seen, seed=1) for _ in range(2))
    metrics = whole.train(decision, num_steps=8)
    cut.train(decision, num_steps=3)
    state = snapshot(cut)
    cut = build_trainer(task, data.seen, seed=9)
    cut.load_state_dict(state)  # type: ignore[arg-type]
    cut.train(decision, num_steps=5)
    assert_same(snapshot(whole), snapshot(cut))
    assert 0 < metrics.loss < 2
    scores = whole.evaluate(data.test)
    assert scores.mean_average_precision is not None
    assert 0 <= scores.worst_class_accuracy <= 1


def test_the_loss_and_the_saliency_are_those_of_each_label(labels: Path, data: Dataset) -> None:
    trainer = build_trainer(task_of(labels), data.seen, seed=0)
    stages = trainer.training_step
    images, rows, key = stages.fetch(seed=0, step=0)
    mixed = stages.mix(Decision(operator=Operator.MIXUP), images, rows, key=key)
    output = stages.forward(mixed)
    assert isinstance(mixed.targets, torch.Tensor)
    expected = F.binary_cross_entropy_with_logits(output.logits, mixed.targets)
    torch.testing.assert_close(stages.loss(output, mixed), expected)
    maps = stages.saliency(trainer.model, images, rows)
    expected_maps = build_source(task_of(labels).saliency, loss=label_loss)(
        trainer.model, images, rows
    )
    assert maps.equal(expected_maps)


def test_several_labels_are_learned(labels: Path, data: Dataset) -> None:
    trainer = build_trainer(task_of(labels, epochs=20), data.seen, seed=0)
    images = data.seen.train.subset(torch.arange(len(data.train)))
    before = trainer.evaluate(images)
    trainer.train(Decision(operator=Operator.NONE), num_steps=trainer.total_steps)
    after = trainer.evaluate(images)
    assert after.nll < before.nll
    assert before.mean_average_precision is not None
    assert after.mean_average_precision is not None
    assert after.mean_average_precision >= before.mean_average_precision


def test_runs_are_trained_one_after_the_other(labels: Path, data: Dataset) -> None:
    trainers = [build_trainer(task_of(labels), data.seen, seed=seed) for seed in range(2)]
    population = Population(trainers)
    assert population.obstacle == "the loss binary_cross_entropy"
    (metrics, _), _ = population.evaluate_both(data.seen.reward, data.seen.reward)
    alone = trainers[0].evaluate(data.seen.reward)
    assert metrics.nll == pytest.approx(alone.nll, rel=1e-5)
    assert metrics.mean_average_precision == alone.mean_average_precision


@pytest.mark.parametrize("potential", ["mean_average_precision", "worst_class_accuracy"])
def test_rewards_of_several_labels(labels: Path, data: Dataset, potential: str) -> None:
    config = EnvironmentConfig.model_validate({"potential": potential, "num_segments": 2})
    env = MixingEnv(task_of(labels), config, data=data.seen)
    env.reset(seed=0)
    start = getattr(env.trainer.evaluate(data.seen.reward), potential)
    _, reward, _, _, info = env.step(env.action_space.sample())
    assert reward == pytest.approx(getattr(info["metrics"], potential) - start, abs=1e-6)


def test_what_does_not_fit_is_one_line(labels: Path, data: Dataset) -> None:
    task = task_of(labels)
    check_model(task, data.seen, operators=list(OPERATORS))
    with pytest.raises(ConfigError, match=r"^task\.trainer\.loss: expected binary_cross_entropy"):
        check_model(task_of(labels, loss="cross_entropy"), data.seen)
    digits = TaskConfig(trainer=task.trainer)
    seen = load_data(digits.data).seen
    with pytest.raises(ConfigError, match=r"^task\.trainer\.loss: expected another loss"):
        check_model(digits, seen)
    config = EnvironmentConfig.model_validate({"potential": "mean_average_precision"})
    with pytest.raises(ConfigError, match=r"^environment\.potential: expected another reward"):
        MixingEnv(TaskConfig(), config, data=seen)
