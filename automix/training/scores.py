"""Scores of an evaluation, from logits and labels to the metrics of a split.

Shape suffixes: N classifiers, M images, K classes, S scores.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from automix.data.splits import Split
from automix.evaluation.calibration import accuracy, fit_temperature, nll, worst_class_accuracy
from automix.evaluation.multilabel import (
    as_decisions,
    mean_average_precision,
    worst_class_recall,
)
from automix.training.metrics import CleanMetrics, EvalMetrics

_NAMES = (
    "nll",
    "calibrated_nll",
    "accuracy",
    "temperature",
    "worst_class_accuracy",
    "mean_average_precision",
)


def evaluation_scores(
    logits_MK: Tensor, labels: Tensor, *, temperature: Tensor | None = None
) -> Tensor:
    """Return the scores of `EvalMetrics` in its order, (S,) on the device.

    Of (N, M, K) logits, those of N classifiers on the same images, (N, S). Labels are (M,) classes
    or (M, K) rows of several labels, which have a mean average precision besides. The temperature,
    a scalar or (N,), is fitted on these images unless it is given.
    """
    others: tuple[Tensor, ...] = ()
    if labels.ndim == 2:
        worst = worst_class_recall(logits_MK, labels)
        others = (mean_average_precision(logits_MK, labels),)
        logits_MK, labels = as_decisions(logits_MK, labels)
    else:
        worst = worst_class_accuracy(logits_MK, labels)
    # Mixing makes a network underconfident, which plain NLL punishes and one number repairs.
    # Fitted to these M images themselves, it makes their NLL too small by about 1 / (2 M) nats.
    if temperature is None:
        temperature = fit_temperature(logits_MK, labels)
    calibrated_nll = nll(logits_MK / temperature[..., None, None], labels)
    correct = accuracy(logits_MK, labels)
    scores = (nll(logits_MK, labels), calibrated_nll, correct, temperature, worst, *others)
    return torch.stack(scores, dim=-1)


def eval_metrics(scores: Sequence[float], *, num_images: int) -> EvalMetrics:
    """Return `evaluation_scores` that were read from the device, by name."""
    # Images with one label have no mean average precision.
    return EvalMetrics(**dict(zip(_NAMES, scores, strict=False)), num_images=num_images)


def both_metrics(
    logits_NMK: Tensor, splits: Sequence[Split]
) -> list[tuple[EvalMetrics, CleanMetrics | None]]:
    """Return the metrics of N classifiers on a split, and on training images if there are any.

    ``logits_NMK`` are those on the images of all ``splits``, one after the other.
    """
    counts = [len(split) for split in splits]
    first, *others = torch.split(logits_NMK, counts, dim=1)
    labels = [split.labels.to(logits_NMK.device) for split in splits]
    scores = [evaluation_scores(first, labels[0])]
    # Nothing reads a temperature of training images, whose fit is a quarter of an evaluation.
    for logits, labels_M in zip(others, labels[1:], strict=True):
        has_rows = labels_M.ndim == 2
        pair = as_decisions(logits, labels_M) if has_rows else (logits, labels_M)
        scores.append(torch.stack((nll(*pair), accuracy(*pair)), dim=-1))
    num_scores = scores[0].shape[-1]
    return [
        (
            eval_metrics(row[:num_scores], num_images=counts[0]),
            CleanMetrics(nll=row[-2], accuracy=row[-1]) if others else None,
        )
        for row in torch.cat(scores, dim=-1).tolist()
    ]
