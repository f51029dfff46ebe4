"""Evaluation of a finished training run on its test images, with intervals over the images."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from automix.configuration.task import TaskConfig
from automix.data.splits import Dataset
from automix.evaluation.calibration import TEMPERATURE_FROM
from automix.evaluation.statistics import Interval, proportion_interval
from automix.experiments.common.mixed_picture import keep_picture
from automix.experiments.common.verdicts import verdict_values
from automix.saliency.gradient import evaluation_mode
from automix.schedule import Schedule
from automix.training.metrics import EvalMetrics
from automix.training.scores import eval_metrics, evaluation_scores
from automix.training.trainer import ClassifierTrainer

_CONFIDENCE = 0.95
_NORMAL_QUANTILE = 1.96


def final_scores(trainer: ClassifierTrainer, data: Dataset) -> dict[str, Any]:
    """Return metrics on ``test`` and ``selection``, and ``test_intervals`` of 95%, as plain values.

    The ``verdict`` is that there is none.

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
        "verdict": _verdict(),
        "test": dataclasses.asdict(test),
        "test_intervals": _intervals(test, logits, labels),
        "selection": dataclasses.asdict(selection) if selection else None,
    }


def final_picture(
    trainer: ClassifierTrainer,
    data: Dataset,
    schedule: Schedule,
    folder: Path,
    task: TaskConfig,
) -> dict[str, Any] | None:
    """Keep a picture of what the schedule does to training images, with the saliency of training.

    For after the classifier was saved: a saliency pass may go through batch statistics.
    """
    with evaluation_mode(trainer.model):
        return keep_picture(
            folder,
            schedule,
            data.seen,
            seed=trainer.seed,
            source=task.saliency.source,
            saliency_of=trainer.saliency_of,
        )


def _verdict() -> dict[str, Any]:
    # Of one training run, which was compared with nothing.
    values = verdict_values(against=None, difference=None, num_seeds=1, split="test")
    sentence = (
        "one training run with one seed says nothing about whether its schedule pays: automix "
        "compare --schedules none FILE does"
    )
    return values | {"sentence": sentence}


def summarize(result: Mapping[str, Any]) -> str:
    """Return the scores of a replay on its test images in one line, and its verdict."""
    test = result["test"]
    parts = [f"accuracy {test['accuracy']:.4f}"]
    # Fitted on the test images themselves, the number would not be the one of that name.
    if result["selection"] is not None:
        parts.append(f"calibrated NLL {test['calibrated_nll']:.4f} nats ({TEMPERATURE_FROM})")
    parts.append(f"NLL {test['nll']:.4f} nats on {test['num_images']} images")
    lines = [f"test: {', '.join(parts)}"]
    if "verdict" in result:
        lines.append(f"verdict: {result['verdict']['sentence']}")
    return "\n".join(lines)


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
    if labels_M.ndim == 2:
        bce = torch.nn.functional.binary_cross_entropy_with_logits
        return bce(logits_MK.double(), labels_M.double(), reduction="none").mean(dim=1)
    return torch.nn.functional.cross_entropy(logits_MK.double(), labels_M, reduction="none")


def _mean_interval(losses_M: Tensor) -> Interval:
    deviation, mean = (float(it) for it in torch.std_mean(losses_M))
    width = _NORMAL_QUANTILE * deviation / math.sqrt(len(losses_M))
    return Interval(estimate=mean, low=mean - width, high=mean + width, confidence=_CONFIDENCE)
