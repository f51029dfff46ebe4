"""Errors of a classifier under all corruptions and severities.

Shape suffixes: N images, C channels, H rows, W columns, K classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from torch import Tensor

from automix.evaluation.corruptions.registry import SEVERITIES, Corruption, corrupt, read_published
from automix.evaluation.inference import EvaluationImages, ImageBatch, Predictor, count_correct


class CorruptionSource(StrEnum):
    """Origin of corrupted images; errors from different sources do not compare."""

    OWN = "own implementation"
    PUBLISHED = "published arrays"


@dataclass(frozen=True, slots=True, kw_only=True)
class CorruptionErrors:
    """Fraction of wrong predictions under one corruption."""

    num_images: int  # images at each severity
    errors: tuple[float, ...]  # at severities 1 to 5, in [0, 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class CorruptionReport:
    """Fraction of wrong predictions under every corruption."""

    source: CorruptionSource  # where the corrupted images come from
    num_images: int  # images per corruption and severity
    # For each corruption its errors at severities 1 to 5, in [0, 1].
    errors: Mapping[Corruption, tuple[float, ...]]
    # The plain mean over all corruptions and severities, which the literature calls mCE on CIFAR-C;
    # on ImageNet-C that name means something else: there each corruption is divided by AlexNet's
    # error.
    unnormalized_mean_corruption_error: float


def own_corruption_errors(
    predict: Predictor, images: EvaluationImages, corruption: Corruption, *, seed: int
) -> CorruptionErrors:
    """Corrupt clean images at each severity, a batch at a time, and count wrong predictions."""

    def error(severity: int) -> float:
        def change(batch: ImageBatch) -> Tensor:
            return corrupt(batch.images, corruption, severity, seed=seed, indices=batch.indices)

        return (len(images) - count_correct(predict, images, change=change)) / len(images)

    return CorruptionErrors(num_images=len(images), errors=tuple(map(error, SEVERITIES)))


def published_corruption_errors(
    predict: Predictor, folder: Path, corruption: Corruption, *, batch_size: int
) -> CorruptionErrors:
    """Count wrong predictions on one of the published arrays in ``folder``.

    Raises:
        DataError: a file is missing or does not have the published layout.
    """
    errors = []
    for severity in SEVERITIES:
        images = EvaluationImages.whole(*read_published(folder, corruption, severity))
        images = replace(images, batch_size=batch_size)
        errors.append((len(images) - count_correct(predict, images)) / len(images))
    return CorruptionErrors(num_images=len(images), errors=tuple(errors))


def report_corruptions(
    errors: Mapping[Corruption, CorruptionErrors], source: CorruptionSource
) -> CorruptionReport:
    """Return the report on all corruptions.

    Raises:
        ValueError: a corruption is missing, or they are not of as many images each.
    """
    counts = {result.num_images for result in errors.values()}
    if set(errors) != set(Corruption) or len(counts) != 1:
        raise ValueError(
            f"errors: expected all {len(Corruption)} corruptions of the same number of images, "
            f"got {len(errors)} of {sorted(counts)} images"
        )
    values = [value for result in errors.values() for value in result.errors]
    return CorruptionReport(
        source=source,
        num_images=counts.pop(),
        errors={corruption: errors[corruption].errors for corruption in Corruption},
        unnormalized_mean_corruption_error=sum(values) / len(values),
    )
