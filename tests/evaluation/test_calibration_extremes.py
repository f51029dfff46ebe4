"""Predictions at the edge: one class, ties, huge logits, everything right, one image."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from automix.evaluation.calibration import (
    accuracy,
    adaptive_ece,
    brier,
    ece,
    fit_temperature,
    nll,
    reliability,
)
from automix.evaluation.classifier import report_classifier


def random_logits(num_images: int, num_classes: int, scale: float = 1.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(num_images, num_classes, generator=generator)


def slow_ece(logits: Tensor, labels: Tensor, num_bins: int = 15) -> float:
    """One image and one bin at a time; the first of equal classes is the prediction."""
    total = 0.0
    probabilities = logits.double().softmax(1).tolist()
    tops = [max(row) for row in probabilities]
    truth = labels.tolist()
    hits = [row.index(max(row)) == label for row, label in zip(probabilities, truth, strict=True)]
    for number in range(num_bins):
        low, high = number / num_bins, (number + 1) / num_bins
        members = [i for i, top in enumerate(tops) if low < top <= high + 1e-12 * (high == 1)]
        if members:
            gap = sum(hits[i] for i in members) - sum(tops[i] for i in members)
            total += abs(gap)
    return total / len(tops)


@pytest.mark.parametrize("num_classes", [1, 2, 3, 4, 5])
def test_few_classes(num_classes: int) -> None:
    logits, labels = random_logits(40, num_classes), torch.arange(40) % num_classes
    report = report_classifier(logits, labels, validation_logits=logits, validation_labels=labels)
    assert report.top5 is None
    assert report.as_trained.ece == pytest.approx(slow_ece(logits, labels), abs=1e-9)
    json.dumps(dataclasses.asdict(report), allow_nan=False)
    if num_classes == 1:
        scores = report.as_trained
        assert (report.top1, report.temperature, scores.nll, scores.brier) == (1, 1, 0, 0)
        assert (scores.ece, scores.adaptive_ece) == (0, 0)
    else:
        expected = multiclass_calibration_error(logits, labels, num_classes=num_classes, n_bins=15)
        assert report.as_trained.ece == pytest.approx(expected.item(), abs=1e-6)


def test_one_image() -> None:
    logits, labels = torch.tensor([[0.3, 0.1, -0.2]]), torch.tensor([1])
    confidence = logits.softmax(1).max().item()
    assert ece(logits, labels).item() == pytest.approx(confidence)
    assert adaptive_ece(logits, labels).item() == pytest.approx(confidence)
    report = report_classifier(logits, labels, validation_logits=logits, validation_labels=labels)
    assert (report.top1, report.classes.counts) == (0, (0, 1, 0))
    assert (report.classes.worst_group, report.classes.standard_deviation) == (1, 0)


@pytest.mark.parametrize("scale", [1e3, 1e6, 1e30])
def test_huge_logits_are_certain_and_scores_stay_finite(scale: float) -> None:
    logits, labels = random_logits(200, 6, scale), torch.arange(200) % 6
    fraction_wrong = 1 - accuracy(logits, labels).item()
    assert ece(logits, labels).item() == pytest.approx(fraction_wrong, abs=2e-3)
    assert brier(logits, labels).item() == pytest.approx(2 * fraction_wrong, abs=5e-3)
    assert math.isfinite(nll(logits, labels).item())
    assert 0.01 * 0.999 <= fit_temperature(logits, labels).item() <= 100 * 1.001
    assert reliability(logits, labels).count.sum() == 200


def test_everything_right_and_everything_wrong() -> None:
    labels = torch.arange(30) % 3
    sure = 50.0 * F.one_hot(labels, 3)
    assert ece(sure, labels).item() == pytest.approx(0, abs=1e-6)
    assert accuracy(sure, labels).item() == 1
    wrong = (labels + 1) % 3
    assert ece(sure, wrong).item() == pytest.approx(1)
    assert brier(sure, wrong).item() == pytest.approx(2)
    assert fit_temperature(sure, wrong).item() == pytest.approx(100, rel=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_confidences_on_the_edges_of_bins(dtype: torch.dtype) -> None:
    # Confidences 1/3, 2/5, 1/2, 3/5, 1: all but 1/2 are edges of 15 bins, but for rounding.
    rows = [
        [1 / 3] * 3,
        [0.4, 0.3, 0.3],
        [0.5, 0.25, 0.25],
        [0.6, 0.2, 0.2],
        [1 - 2e-9, 1e-9, 1e-9],
    ]
    logits = torch.tensor(rows, dtype=dtype).log().repeat(4, 1)
    labels = torch.arange(20) % 3
    bins = reliability(logits, labels)
    assert bins.count.sum() == 20
    gaps = (bins.accuracy - bins.confidence).abs() * bins.count
    assert ece(logits, labels).item() == pytest.approx(gaps.sum().item() / 20, abs=1e-6)


def test_ties_go_to_the_lower_class_as_in_argmax() -> None:
    labels = torch.arange(12) % 4
    flat = torch.zeros(12, 4)
    for k in (1, 2, 3, 4):
        assert accuracy(flat, labels, k=k).item() == pytest.approx(k / 4)
    coarse = random_logits(500, 7).mul(2).round()
    labels = torch.arange(500) % 7
    assert accuracy(coarse, labels).item() == pytest.approx(
        (coarse.argmax(1) == labels).float().mean().item()
    )
    for k in (2, 5):
        # Of equal logits the lower class is first in a stable sort.
        best = coarse.sort(dim=1, descending=True, stable=True).indices[:, :k]
        expected = (best == labels[:, None]).any(1).float().mean().item()
        assert accuracy(coarse, labels, k=k).item() == pytest.approx(expected)


def test_logits_that_are_not_numbers_are_never_right() -> None:
    labels = torch.tensor([0, 1, 2])
    logits = torch.tensor([[torch.nan] * 3, [0.0, torch.nan, 0.0], [torch.nan, 0.0, 5.0]])
    assert accuracy(logits, labels).item() == 0
    assert accuracy(logits, labels, k=2).item() == pytest.approx(1 / 3)


def test_scores_do_not_depend_on_the_order_or_the_names_of_classes() -> None:
    logits, labels = random_logits(300, 9, 3, seed=4), torch.arange(300) % 9
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    renamed = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    back = renamed.argsort()
    for metric in (nll, brier, ece, adaptive_ece, fit_temperature):
        expected = metric(logits, labels)
        torch.testing.assert_close(metric(logits[order], labels[order]), expected)
        torch.testing.assert_close(metric(logits[:, renamed], back[labels]), expected)


def test_adaptive_bins_hold_equal_numbers_where_confidences_differ() -> None:
    logits, labels = random_logits(97, 5, seed=6), torch.arange(97) % 5
    confidence = logits.double().softmax(1).max(1).values.numpy()
    hits = (logits.argmax(1) == labels).numpy()
    rank = confidence.argsort().argsort()
    bins = rank * 15 // 97
    assert np.ptp(np.bincount(bins)) <= 1
    gaps = [abs((hits[bins == b] - confidence[bins == b]).sum()) for b in range(15)]
    assert adaptive_ece(logits, labels).item() == pytest.approx(sum(gaps) / 97, abs=1e-6)
