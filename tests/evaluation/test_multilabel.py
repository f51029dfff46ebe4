"""Scores of several labels against scikit-learn and torchmetrics."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, hamming_loss, log_loss, recall_score
from torch import Tensor
from torchmetrics.functional.classification import (
    multilabel_accuracy,
    multilabel_average_precision,
    multilabel_recall,
)

from automix.evaluation.multilabel import mean_average_precision, worst_class_recall
from automix.training.scores import eval_metrics, evaluation_scores


def predictions(seed: int, *, num_images: int = 60, num_classes: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(num_images, num_classes, generator=generator) < 0.3).float()
    # In each class at least one image has the label.
    labels[torch.arange(num_classes) % num_images, torch.arange(num_classes)] = 1
    noise = torch.randn(num_images, num_classes, generator=generator)
    return 2 * noise + labels - 0.5, labels


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), num_images=st.integers(1, 40), has_ties=st.booleans())
def test_mean_average_precision_agrees(seed: int, num_images: int, *, has_ties: bool) -> None:
    logits, labels = predictions(seed, num_images=num_images, num_classes=3)
    if has_ties:
        logits = logits.round()
    value = mean_average_precision(logits, labels).item()
    expected = average_precision_score(labels.numpy(), logits.numpy(), average="macro")
    assert value == pytest.approx(expected, abs=1e-5)
    of_torchmetrics = multilabel_average_precision(logits.sigmoid(), labels.long(), num_labels=3)
    assert value == pytest.approx(of_torchmetrics.item(), abs=1e-5)


def test_a_class_without_an_image_does_not_count() -> None:
    logits, labels = predictions(3)
    labels[:, 1] = 0
    others = [0, 2, 3, 4]
    value = mean_average_precision(logits, labels)
    torch.testing.assert_close(value, mean_average_precision(logits[:, others], labels[:, others]))
    torch.testing.assert_close(
        worst_class_recall(logits, labels), worst_class_recall(logits[:, others], labels[:, others])
    )


def test_an_evaluation_agrees_with_scikit_learn_and_torchmetrics() -> None:
    logits, labels = predictions(1)
    metrics = eval_metrics(evaluation_scores(logits, labels).tolist(), num_images=60)
    right = (logits > 0).float()
    assert metrics.accuracy == pytest.approx(1 - hamming_loss(labels, right))
    per_label = multilabel_accuracy(logits, labels.long(), num_labels=5, average="micro")
    assert metrics.accuracy == pytest.approx(per_label.item())
    recalls = recall_score(labels, right, average=None)
    assert metrics.worst_class_accuracy == pytest.approx(recalls.min())
    of_torchmetrics = multilabel_recall(logits, labels.long(), num_labels=5, average="none")
    assert metrics.worst_class_accuracy == pytest.approx(of_torchmetrics.min().item())
    losses = [
        log_loss(labels[:, k].numpy(), logits[:, k].sigmoid().numpy().astype(np.float64))
        for k in range(5)
    ]
    assert metrics.nll == pytest.approx(np.mean(losses), abs=1e-6)
    bce = F.binary_cross_entropy_with_logits(logits / metrics.temperature, labels)
    assert metrics.calibrated_nll == pytest.approx(bce.item())
    assert metrics.calibrated_nll <= metrics.nll
    assert metrics.mean_average_precision == pytest.approx(
        average_precision_score(labels, logits, average="macro"), abs=1e-6
    )


def test_classifiers_are_scored_together_as_alone() -> None:
    logits, labels = predictions(2)
    stacked = torch.stack([logits, -logits, 3 * logits.round()])
    alone = torch.stack([evaluation_scores(single, labels) for single in stacked])
    torch.testing.assert_close(evaluation_scores(stacked, labels), alone)
