import dataclasses
import json

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, confusion_matrix
from torch import Tensor, nn

from automix.evaluation.calibration import ece, nll
from automix.evaluation.classifier import group_accuracy, report_classifier
from automix.saliency.gradient import evaluation_mode


def predictions(seed: int, num_images: int, num_classes: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(num_classes, (num_images,), generator=generator)
    logits = 2 * torch.randn(num_images, num_classes, generator=generator)
    logits[torch.arange(num_images), labels] += 4  # calibrated: signal over noise variance is 1
    return logits, labels


class Network(nn.Module):
    """A network with batch norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(
            nn.BatchNorm2d(3), nn.Flatten(), nn.Dropout(0.5), nn.Linear(48, 4)
        )

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.head(images)
        return result


def test_evaluation_mode_leaves_the_model_as_it_was() -> None:
    model = Network().train()
    model.head[0].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with evaluation_mode(model):
        assert not any(module.training for module in model.modules())
        model(torch.rand(10, 3, 4, 4))
    assert model.training
    assert not model.head[0].training
    assert model.head[2].training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_flags_come_back_when_the_network_fails() -> None:
    model = Network().train()
    with pytest.raises(RuntimeError), evaluation_mode(model):
        model(torch.zeros(2, 3, 9, 9))
    assert all(module.training for module in model.modules())


def test_report_scores_the_test_images_with_the_temperature_of_the_validation_images() -> None:
    logits, labels = predictions(0, 500)
    logits = logits.double()
    held_logits, held_labels = predictions(1, 300)
    report = report_classifier(
        3 * logits, labels, validation_logits=3 * held_logits, validation_labels=held_labels
    )
    assert (report.num_images, report.num_validation_images) == (500, 300)
    assert report.as_trained.nll == pytest.approx(nll(3 * logits, labels).item())
    rescaled = 3 * logits / report.temperature
    assert report.rescaled.nll == pytest.approx(nll(rescaled, labels).item())
    assert report.rescaled.ece == pytest.approx(ece(rescaled, labels).item())
    # The logits were made overconfident threefold.
    assert 2.5 < report.temperature < 3.5
    assert report.rescaled.nll < report.as_trained.nll
    assert report.rescaled.brier < report.as_trained.brier
    assert report.rescaled.adaptive_ece < report.as_trained.adaptive_ece
    assert report.top1 < report.top5 < 1  # type: ignore[operator]
    diagram = report.as_trained.diagram
    assert sum(diagram.count) == 500
    gaps = np.abs(np.subtract(diagram.accuracy, diagram.confidence))
    assert report.as_trained.ece == pytest.approx(np.average(gaps, weights=diagram.count))


def test_report_becomes_json_and_top_five_needs_more_than_five_classes() -> None:
    logits, labels = predictions(0, 50, num_classes=5)
    report = report_classifier(logits, labels, validation_logits=logits, validation_labels=labels)
    assert report.top5 is None
    content = json.loads(json.dumps(dataclasses.asdict(report), allow_nan=False))
    assert content["classes"]["worst"] == report.classes.worst


def test_class_accuracy_agrees_with_scikit_learn() -> None:
    logits, labels = predictions(2, 400)
    result = group_accuracy(logits, labels, groups=labels, num_groups=8)
    table = confusion_matrix(labels, logits.argmax(1))
    expected = table.diagonal() / table.sum(1)
    np.testing.assert_allclose(np.array(result.values, dtype=float), expected)
    assert result.counts == tuple(table.sum(1))
    assert result.macro == pytest.approx(balanced_accuracy_score(labels, logits.argmax(1)))
    assert result.standard_deviation == pytest.approx(expected.std())
    assert (result.worst, result.worst_group) == (expected.min(), expected.argmin())


def test_groups_without_images_are_left_out() -> None:
    logits = torch.tensor([[2.0, 1.0], [2.0, 1.0], [0.0, 1.0]])
    labels, groups = torch.tensor([0, 1, 1]), torch.tensor([3, 1, 3])
    result = group_accuracy(logits, labels, groups=groups, num_groups=5)
    assert result.values == (None, 0.0, None, 1.0, None)
    assert (result.macro, result.standard_deviation, result.worst_group) == (0.5, 0.5, 1)


def test_mismatched_predictions_are_refused() -> None:
    logits, labels = predictions(3, 10)
    with pytest.raises(ValueError, match="expected one label and one group"):
        group_accuracy(logits, labels, groups=labels[:4], num_groups=8)
    with pytest.raises(ValueError, match="validation_logits: expected 8 classes"):
        report_classifier(logits, labels, validation_logits=logits[:, :5], validation_labels=labels)
