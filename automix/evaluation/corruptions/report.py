"""Errors of a classifier under all corruptions and severities.

Shape suffixes: N images, C channels, H rows, W columns, K classes.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import torch
from torch import Tensor

from automix.evaluation.calibration import accuracy
from automix.evaluation.corruptions.published import read_published
from automix.evaluation.corruptions.registry import SEVERITIES, Corruption, corrupt

Predictor = Callable[[Tensor], Tensor]
"""Returns (N, K) logits of (N, C, H, W) uint8 images."""

_Cell = tuple[Corruption, Tensor, Tensor]


class CorruptionSource(StrEnum):
    """Where corrupted images come from; errors from different sources do not compare."""

    OWN = "own implementation"
    PUBLISHED = "published arrays"


@dataclass(frozen=True, slots=True, kw_only=True)
class CorruptionReport:
    """Share of wrong predictions under corruption.

    Attributes:
        source: where the corrupted images come from.
        num_images: images per corruption and severity.
        errors: for each corruption its errors at severities 1 to 5, in [0, 1].
        mean_error: the plain mean over all corruptions and severities, which is what the
            literature calls mCE on CIFAR-C (on ImageNet-C it divides by AlexNet's errors).
    """

    source: CorruptionSource
    num_images: int
    errors: Mapping[Corruption, tuple[float, ...]]
    mean_error: float


def report_own_corruptions(
    predict: Predictor, images_NCHW: Tensor, labels_N: Tensor, *, seed: int
) -> CorruptionReport:
    """Corrupt the images in all 75 ways and count wrong predictions.

    Args:
        predict: the classifier, with its preparation of stored images.
        images_NCHW: clean test images, uint8, any size and device.
        labels_N: (N,) integer class numbers.
        seed: names the draws of the corruptions.

    Raises:
        ValueError: there is no image, or shapes do not fit.
    """
    cells = (
        (corruption, corrupt(images_NCHW, corruption, severity, seed=seed), labels_N)
        for corruption in Corruption
        for severity in SEVERITIES
    )
    return _report(predict, cells, CorruptionSource.OWN)


def report_published_corruptions(predict: Predictor, folder: Path) -> CorruptionReport:
    """Count wrong predictions on the published arrays in ``folder``.

    Raises:
        DataError: a file is missing or does not have the published layout.
    """
    cells = (
        (corruption, *read_published(folder, corruption, severity))
        for corruption in Corruption
        for severity in SEVERITIES
    )
    return _report(predict, cells, CorruptionSource.PUBLISHED)


@torch.no_grad()
def _report(
    predict: Predictor, cells: Iterator[_Cell], source: CorruptionSource
) -> CorruptionReport:
    errors: dict[Corruption, list[float]] = {corruption: [] for corruption in Corruption}
    num_images = 0
    for corruption, images_NCHW, labels_N in cells:
        hits = accuracy(predict(images_NCHW).cpu().double(), labels_N.cpu())
        errors[corruption].append(1 - hits.item())
        num_images = len(labels_N)
    values = [value for row in errors.values() for value in row]
    return CorruptionReport(
        source=source,
        num_images=num_images,
        errors={name: tuple(row) for name, row in errors.items()},
        mean_error=sum(values) / len(values),
    )
