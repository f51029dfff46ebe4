"""Evaluation of a finished training run on its test images, with intervals over the images."""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from automix.data.splits import Dataset
from automix.evaluation.statistics import Interval, proportion_interval
from automix.training.metrics import EvalMetrics
from automix.training.trainer import ClassifierTrainer, eval_metrics, evaluation_scores

_CONFIDENCE = 0.95
_NORMAL_QUANTILE = 1.96


def final_scores(trainer: ClassifierTrainer, data: Dataset) -> dict[str, Any]:
    """Return metrics on ``test`` and ``selection``, and ``test_intervals`` of 95%, as plain values.

    The intervals cover the choice of the test images, not the seed of the training run: Wilson's
    for the accuracy, the normal one for the mean of a loss at the fitted temperature. A single test
    image has none, and without selection images there are no scores on them.

    All processes evaluate, each a part of the images.
    """
    # The test images choose nothing, not even a temperature, unless there are no others to fit it.
    selection = trainer.evaluate(data.seen.selection) if len(data.seen.selection) else None
    logits, labels = trainer.logits(data.test), data.test.labels.to(trainer.device)
    fitted = None if selection is None else logits.new_tensor(selection.temperature)
    scores = evaluation_scores(logits, labels, temperature=fitted)
    test = eval_metrics(scores.tolist(), num_images=len(data.test))
    return {
        "test": dataclasses.asdict(test),
        "test_intervals": _intervals(test, logits, labels),
        "selection": dataclasses.asdict(selection) if selection else None,
    }


def _intervals(test: EvalMetrics, logits: Tensor, labels: Tensor) -> dict[str, Any] | None:
    if test.num_images < 2 or not math.isfinite(test.nll):
        return None
    intervals = {
        "nll": _mean_interval(_losses(logits, labels)),
        "calibrated_nll": _mean_interval(_losses(logits / test.temperature, labels)),
        "accuracy": proportion_interval(test.accuracy, test.num_images, confidence=_CONFIDENCE),
    }
    return {name: dataclasses.asdict(interval) for name, interval in intervals.items()}


def _losses(logits_MK: Tensor, labels_M: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(logits_MK.double(), labels_M, reduction="none")


def _mean_interval(losses_M: Tensor) -> Interval:
    deviation, mean = (float(it) for it in torch.std_mean(losses_M))
    width = _NORMAL_QUANTILE * deviation / math.sqrt(len(losses_M))
    return Interval(estimate=mean, low=mean - width, high=mean + width, confidence=_CONFIDENCE)
