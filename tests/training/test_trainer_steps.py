"""Training steps: batches, mixing, clipping, and where a training run ends."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from automix.configuration.trainer import TrainerConfig
from automix.data.batches import BatchKey
from automix.data.splits import SearchData
from automix.errors import ConfigError
from automix.operator_info import Operator
from automix.schedule import Decision
from automix.training.metrics import smooth_labels, soft_cross_entropy
from automix.training.trainer import ClassifierTrainer
from tests.training.conftest import TOTAL_STEPS, MakeTrainer

NONE = Decision(operator=Operator.NONE)


def weights(trainer: ClassifierTrainer) -> Tensor:
    return torch.cat([value.detach().flatten().clone() for value in trainer.model.parameters()])


def test_steps_per_epoch_drop_the_incomplete_batch(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    assert (trainer.batch_size, trainer.steps_per_epoch) == (8, 3)
    assert trainer.total_steps == TOTAL_STEPS
    metrics = trainer.train(NONE, num_steps=TOTAL_STEPS)
    assert metrics.num_images == TOTAL_STEPS * 8
    assert trainer.progress == 1


def test_a_split_smaller_than_a_batch_is_one_batch(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(batch_size=1000, epochs=2)
    assert (trainer.batch_size, trainer.total_steps) == (30, 2)
    assert trainer.train(NONE, num_steps=2).num_images == 60


def test_a_training_run_does_not_go_past_its_end(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    trainer.train(NONE, num_steps=10)
    with pytest.raises(ValueError, match="expected at most 2 more steps, got 3"):
        trainer.train(NONE, num_steps=3)
    assert trainer.step == 10


def test_mixed_batches_are_counted(make_trainer: MakeTrainer) -> None:
    decision = Decision(operator=Operator.MIXUP, probability=0.3)
    trainer = make_trainer(epochs=100)
    fractions = [trainer.train(decision, num_steps=1).mixed_fraction for _ in range(300)]
    assert set(fractions) == {0.0, 1.0}
    # Three standard deviations of a binomial fraction.
    assert abs(sum(fractions) / 300 - 0.3) < 3 * math.sqrt(0.3 * 0.7 / 300)


@pytest.mark.parametrize(("probability", "fraction"), [(0.0, 0.0), (1.0, 1.0)])
def test_certain_fractions_are_exact(
    make_trainer: MakeTrainer, probability: float, fraction: float
) -> None:
    decision = Decision(operator=Operator.CUTMIX, probability=probability)
    assert make_trainer().train(decision, num_steps=TOTAL_STEPS).mixed_fraction == fraction


def test_loss_and_accuracy_are_means_over_the_images_fed(make_trainer: MakeTrainer) -> None:
    whole, stepped = make_trainer(), make_trainer()
    total = whole.train(NONE, num_steps=6)
    steps = [stepped.train(NONE, num_steps=1) for _ in range(6)]
    assert total.loss == pytest.approx(sum(step.loss for step in steps) / 6, rel=1e-12)
    accuracies = [step.clean_accuracy or 0.0 for step in steps]
    assert total.clean_accuracy == pytest.approx(sum(accuracies) / 6, rel=1e-12)


def test_the_first_loss_is_the_cross_entropy_of_the_first_batch(
    make_trainer: MakeTrainer, search_data: SearchData
) -> None:
    trainer, twin = make_trainer(), make_trainer()
    images, labels, _ = twin.training_step.batches.batch(BatchKey(seed=0, step=0))
    with torch.no_grad():
        logits = twin.model(images)
    metrics = trainer.train(NONE, num_steps=1)
    assert metrics.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-6)
    assert metrics.clean_accuracy == (logits.argmax(1) == labels).float().mean().item()
    assert metrics.num_images == 8


def test_clipping_bounds_the_step(make_trainer: MakeTrainer) -> None:
    fields = {"weight_decay": 0.0, "momentum": 0.0, "learning_rate_schedule": "constant"}
    trainer = make_trainer(max_grad_norm=1e-3, learning_rate=2.0, **fields)
    before = weights(trainer)
    trainer.train(NONE, num_steps=1)
    # The gradient is scaled to exactly its largest norm; the step is learning rate times that.
    assert (weights(trainer) - before).norm().item() == pytest.approx(2e-3, rel=1e-2)


def test_a_loose_clip_changes_nothing(make_trainer: MakeTrainer) -> None:
    loose, none = make_trainer(max_grad_norm=1e9), make_trainer()
    for trainer in (loose, none):
        trainer.train(NONE, num_steps=3)
    assert torch.equal(weights(loose), weights(none))


def test_a_diverged_training_says_so_and_does_not_raise(
    make_trainer: MakeTrainer, search_data: SearchData
) -> None:
    trainer = make_trainer(learning_rate=1e30)
    assert not math.isfinite(trainer.train(NONE, num_steps=TOTAL_STEPS).loss)
    metrics = trainer.evaluate(search_data.reward)
    assert math.isnan(metrics.nll)
    assert math.isnan(metrics.calibrated_nll)


def test_a_diverged_trainer_recovers_by_reset(make_trainer: MakeTrainer) -> None:
    diverged, fresh = make_trainer(learning_rate=1e30), make_trainer(learning_rate=1e30)
    diverged.train(NONE, num_steps=TOTAL_STEPS)
    diverged.reset(0)
    assert torch.equal(weights(diverged), weights(fresh))


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_evaluated_weights_are_the_average_if_there_is_one(
    make_trainer: MakeTrainer, search_data: SearchData, ema_decay: float
) -> None:
    trainer = make_trainer(ema_decay=ema_decay)
    trainer.train(NONE, num_steps=6)
    assert (trainer.evaluated_model is trainer.model) == (ema_decay == 0)
    model = trainer.evaluated_model.eval()
    images = search_data.reward.images
    with torch.no_grad():
        expected = model(trainer._preparer.evaluation(images))
    assert torch.equal(trainer.logits(search_data.reward), expected)
    metrics = dataclasses.asdict(trainer.evaluate(search_data.reward))
    labels = search_data.reward.labels
    assert metrics["nll"] == pytest.approx(F.cross_entropy(expected, labels).item(), rel=1e-6)
    scaled = F.cross_entropy(expected / metrics["temperature"], labels).item()
    assert metrics["calibrated_nll"] == pytest.approx(scaled, rel=1e-5)
    assert metrics["calibrated_nll"] <= metrics["nll"]
    assert metrics["num_images"] == len(labels)
    at_two = trainer.evaluate(search_data.reward, temperature=2.0)
    assert at_two.calibrated_nll == pytest.approx(F.cross_entropy(expected / 2, labels).item())
    assert (at_two.nll, at_two.temperature) == (metrics["nll"], 2.0)


def test_soft_cross_entropy_of_hard_targets_is_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 4, generator=generator)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    targets = F.one_hot(labels, 4).float()
    torch.testing.assert_close(soft_cross_entropy(logits, targets), F.cross_entropy(logits, labels))
    torch.testing.assert_close(
        soft_cross_entropy(logits, smooth_labels(targets, 0.3)),
        F.cross_entropy(logits, labels, label_smoothing=0.3),
    )
    assert smooth_labels(targets, 0.0) is targets


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("learning_rate", 0),
        ("momentum", 1),
        ("ema_decay", 1),
        ("warmup", 1),
        ("weight_decay", -1),
        ("label_smoothing", 1),
        ("max_grad_norm", 0),
        ("learning_rate_schedule", "triangle"),
        ("milestones", [0.5]),
        ("milestone_factor", 0.1),
        ("betas", [0.9, 0.99]),
        ("accumulation", 3),
        ("precision", "fp8"),
        ("compile", 2),
        ("epoch", 3),
    ],
)
def test_impossible_configurations_are_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"here: {field}: expected .*, got "):
        TrainerConfig.from_mapping({field: value}, source="here")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimizer": "adamw", "momentum": 0.9}, "momentum: expected nothing for the optimizer"),
        ({"betas": [0.9, 0.99]}, "betas: expected nothing for the optimizer 'sgd', got"),
        ({"optimizer": "adamw", "betas": [0.9, 1.0]}, "betas"),
        ({"learning_rate_schedule": "constant", "warmup": 0.2}, "warmup: expected nothing for"),
        (
            {"learning_rate_schedule": "multi_step"},
            r"milestones: expected fractions such as \[0\.5, 0\.75\], got none",
        ),
        (
            {"learning_rate_schedule": "multi_step", "milestones": [0.5, 0.4]},
            "milestones: expected increasing fractions after the warmup, got",
        ),
        (
            {"learning_rate_schedule": "multi_step", "milestones": [0.5], "warmup": 0.5},
            "milestones: expected increasing fractions after the warmup, got",
        ),
        ({"milestones": [0.5]}, "milestones: expected nothing for the schedule 'one_cycle', got"),
        (
            {"learning_rate_schedule": "cosine", "milestone_factor": 0.5},
            "milestone_factor: expected nothing for the schedule 'cosine', got 0.5",
        ),
        (
            {"batch_size": 50, "accumulation": 4},
            "accumulation: expected a divisor of batch_size 50",
        ),
    ],
)
def test_options_without_effect_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^here: {message}"):
        TrainerConfig.from_mapping(fields, source="here")


def test_every_configuration_can_be_written_and_read_again() -> None:
    for fields in (
        {},
        {"optimizer": "adamw", "betas": [0.8, 0.9]},
        {"learning_rate_schedule": "multi_step", "milestones": [0.25, 0.5]},
        {"learning_rate_schedule": "constant"},
    ):
        config = TrainerConfig.from_mapping(fields, source="here")
        assert TrainerConfig.from_mapping(config.model_dump(mode="json"), source="x") == config


def test_accuracies_are_counted_apart(make_trainer: MakeTrainer) -> None:
    decision = Decision(operator=Operator.MIXUP, probability=0.5)
    whole, stepped = make_trainer(), make_trainer()
    total = whole.train(decision, num_steps=TOTAL_STEPS)
    steps = [stepped.train(decision, num_steps=1) for _ in range(TOTAL_STEPS)]
    clean = [step.clean_accuracy for step in steps if step.clean_accuracy is not None]
    mixed = [step.mixed_accuracy for step in steps if step.mixed_accuracy is not None]
    assert len(clean) + len(mixed) == TOTAL_STEPS
    assert total.clean_accuracy == pytest.approx(sum(clean) / len(clean))
    assert total.mixed_accuracy == pytest.approx(sum(mixed) / len(mixed))
    assert total.mixed_fraction == len(mixed) / TOTAL_STEPS
    for step in steps:
        assert (step.clean_accuracy is None) == (step.mixed_fraction == 1)
        assert (step.mixed_accuracy is None) == (step.mixed_fraction == 0)
    assert total.images_per_second == TOTAL_STEPS * 8 / total.seconds
