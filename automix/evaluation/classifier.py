"""The report on a trained classifier: accuracy, probabilities and groups.

Shape suffixes: N images, K classes, G groups.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from automix.evaluation.calibration import (
    accuracy,
    adaptive_ece,
    brier,
    ece,
    fit_temperature,
    nll,
    reliability,
)

_TOP = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityDiagram:
    """Numbers of `ReliabilityBins` on the host: one entry for each bin of confidence."""

    count: tuple[float, ...]
    accuracy: tuple[float, ...]
    confidence: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbabilityScores:
    """Scores of `automix.evaluation.calibration`; ``diagram`` has the bins of ``ece``."""

    nll: float
    brier: float
    ece: float
    adaptive_ece: float
    diagram: ReliabilityDiagram


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupAccuracy:
    """Accuracy of each group of images, such as each class; None for a group without images.

    ``macro`` is the mean and ``standard_deviation`` the (population) spread of the others.
    """

    values: tuple[float | None, ...]
    counts: tuple[int, ...]
    macro: float
    standard_deviation: float
    worst: float
    worst_group: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierReport:
    """Results of a classifier on a split that it never saw."""

    num_images: int  # size of the split
    num_validation_images: int  # images that the temperature was fitted on
    top1: float  # fraction of images whose label has the largest logit, in [0, 1]
    top5: float | None  # the same of the five largest logits; None with at most 5 classes
    temperature: float  # fitted on validation images, for likelihood
    as_trained: ProbabilityScores  # of the probabilities as the network gives them
    rescaled: ProbabilityScores  # after division of the logits by the temperature
    classes: GroupAccuracy  # accuracy of each class


@torch.no_grad()
def report_classifier(
    logits_NK: Tensor,
    labels_N: Tensor,
    *,
    validation_logits: Tensor,
    validation_labels: Tensor,
) -> ClassifierReport:
    """Score predictions, before and after temperature scaling fitted on other images.

    Logits are (N, K) floating, labels (N,) integer class numbers. The validation images are ones
    that the network was neither trained nor is reported on: a temperature fitted on the reported
    images would flatter the result.

    Raises:
        TypeError: labels are soft targets.
        ValueError: shapes do not fit, or there is no image.
    """
    if validation_logits.shape[1:] != logits_NK.shape[1:]:
        raise ValueError(
            f"validation_logits: expected {logits_NK.shape[1]} classes as in logits, "
            f"got shape {tuple(validation_logits.shape)}"
        )
    # Read once; in float64 fractions such as 0.388 stay what they are.
    logits_NK, labels_N = logits_NK.cpu().double(), labels_N.cpu()
    validation_logits, validation_labels = validation_logits.cpu().double(), validation_labels.cpu()
    num_classes = logits_NK.shape[1]
    temperature = fit_temperature(validation_logits, validation_labels)
    return ClassifierReport(
        num_images=len(labels_N),
        num_validation_images=len(validation_labels),
        top1=accuracy(logits_NK, labels_N).item(),
        top5=accuracy(logits_NK, labels_N, k=_TOP).item() if num_classes > _TOP else None,
        temperature=temperature.item(),
        as_trained=score_probabilities(logits_NK, labels_N),
        rescaled=score_probabilities(logits_NK / temperature, labels_N),
        classes=group_accuracy(logits_NK, labels_N, groups=labels_N, num_groups=num_classes),
    )


def score_probabilities(logits_NK: Tensor, labels_N: Tensor) -> ProbabilityScores:
    """Return every score of the predicted probabilities, on the host."""
    bins = reliability(logits_NK, labels_N)
    rows = torch.stack((bins.count, bins.accuracy, bins.confidence)).tolist()
    count, accuracies, confidences = map(tuple, rows)
    return ProbabilityScores(
        nll=nll(logits_NK, labels_N).item(),
        brier=brier(logits_NK, labels_N).item(),
        ece=ece(logits_NK, labels_N).item(),
        adaptive_ece=adaptive_ece(logits_NK, labels_N).item(),
        diagram=ReliabilityDiagram(count=count, accuracy=accuracies, confidence=confidences),
    )


def group_accuracy(
    logits_NK: Tensor, labels_N: Tensor, *, groups: Tensor, num_groups: int
) -> GroupAccuracy:
    """Return the accuracy within each group.

    ``groups`` are (N,) integers in [0, ``num_groups``), one for each image; the labels themselves
    give the accuracy of each class.

    Raises:
        ValueError: the shapes do not fit, or there is no image.
    """
    _check_groups(logits_NK, labels_N, groups)
    is_correct_N = (logits_NK.argmax(dim=1) == labels_N).to(torch.int64)
    # Counts of integers are exact on every device: right and wrong predictions of group g are
    # counted at 2 g + 1 and 2 g.
    counts: list[int] = torch.bincount(groups, minlength=num_groups).tolist()
    correct_G = torch.bincount(2 * groups + is_correct_N, minlength=2 * num_groups)[1::2]
    correct: list[int] = correct_G.tolist()
    values = tuple(
        hits / count if count else None for hits, count in zip(correct, counts, strict=True)
    )
    present = torch.tensor([value for value in values if value is not None], dtype=torch.float64)
    worst = present.min().item()
    return GroupAccuracy(
        values=values,
        counts=tuple(counts),
        macro=present.mean().item(),
        standard_deviation=present.std(correction=0).item(),
        worst=worst,
        worst_group=values.index(worst),
    )


def macro_std(logits_NK: Tensor, labels_N: Tensor, *, groups: Tensor, num_groups: int) -> float:
    """Return MacroStd: how unequal the accuracy is within a class, between its subgroups.

    With a_cg the accuracy on the images of class c in group g, w_cg their fraction of the class,
    and a_c = sum_g w_cg a_cg, it is the mean over classes of sqrt(sum_g w_cg (a_cg - a_c)^2). 0 if
    the groups of each class are equally easy, and at most 1/2.

    Args:
        logits_NK: (N, K) floating point.
        labels_N: (N,) integer classes.
        groups: (N,) integers in [0, ``num_groups``), such as backgrounds or colors.
        num_groups: G.

    Raises:
        ValueError: the shapes do not fit, or there is no image.
    """
    _check_groups(logits_NK, labels_N, groups)
    is_correct_N = (logits_NK.argmax(dim=1) == labels_N).to(torch.int64)
    num_classes = logits_NK.shape[1]
    # Whole numbers: images and hits of class c and group g are counted at c G + g.
    cell_N = labels_N * num_groups + groups
    counts = torch.bincount(cell_N, minlength=num_classes * num_groups).double()
    hits = torch.bincount(cell_N[is_correct_N.bool()], minlength=num_classes * num_groups).double()
    count_KG, hits_KG = counts.view(num_classes, -1), hits.view(num_classes, -1)
    of_class_K1 = count_KG.sum(dim=1, keepdim=True)
    weight_KG = count_KG / of_class_K1.clamp(min=1)
    accuracy_KG = hits_KG / count_KG.clamp(min=1)
    mean_K1 = (weight_KG * accuracy_KG).sum(dim=1, keepdim=True)
    std_K = (weight_KG * (accuracy_KG - mean_K1).square()).sum(dim=1).sqrt()
    return std_K[of_class_K1.squeeze(1) > 0].mean().item()


def _check_groups(logits_NK: Tensor, labels_N: Tensor, groups: Tensor) -> None:
    if not len(labels_N) or groups.shape != labels_N.shape or len(logits_NK) != len(labels_N):
        raise ValueError(
            f"expected one label and one group for each of {len(logits_NK)} images, "
            f"got {tuple(labels_N.shape)} and {tuple(groups.shape)}"
        )
