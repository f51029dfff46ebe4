"""Classification, corruptions and occlusion, cut into units that run one at a time."""

import dataclasses
import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from automix.errors import ConfigError
from automix.evaluation.classifier import group_accuracy, report_classifier
from automix.evaluation.corruptions.published import verify_published
from automix.evaluation.corruptions.registry import SEVERITIES, Corruption
from automix.evaluation.corruptions.report import (
    CorruptionErrors,
    CorruptionSource,
    own_corruption_errors,
    published_corruption_errors,
    report_corruptions,
)
from automix.evaluation.inference import EvaluationImages, ImageBatch
from automix.evaluation.occlusion import (
    FRACTIONS,
    Occluder,
    occlude_objects,
    occlude_patches,
    occlude_salient_patches,
    occlusion_curve,
)
from automix.experiments.evaluation_config import EvaluateConfig, EvaluationTask
from automix.experiments.evaluation_subject import (
    Json,
    Part,
    Subject,
    Unit,
    as_json,
    boxed_images,
    finite_logits,
    one_unit,
    share_of,
)
from automix.saliency.spectral import spectral_residual

_PATCHES_PER_SIDE = 14
_PUBLISHED_IMAGES = 10_000


def classification_part(subject: Subject, config: EvaluateConfig) -> Part:
    """Return accuracy, probabilities, classes and groups.

    Raises:
        ConfigError: there is no split to fit the temperature on.
    """
    classifier, images = subject.classifier, subject.images
    split = classifier.data.seen.selection
    if not len(split):
        raise ConfigError(
            "tasks: expected a run with a selection split for 'classification', which fits the "
            "temperature there, got one without"
        )
    validation = dataclasses.replace(
        EvaluationImages.whole(split.images, split.labels),
        batch_size=config.batch_size,
        device=classifier.device,
    )

    def run() -> Json:
        logits_NK = finite_logits(classifier, images)
        report = report_classifier(
            logits_NK,
            images.labels,
            validation_logits=finite_logits(classifier, validation),
            validation_labels=validation.labels,
        )
        content = as_json(report)
        content["top1_interval"] = share_of(report.top1 * len(images), len(images))
        content["class_names"] = list(classifier.data.class_names)
        if subject.groups is not None:
            names = subject.groups.names
            groups_N = torch.tensor(subject.groups.numbers)[images.indices]
            found = group_accuracy(logits_NK, images.labels, groups=groups_N, num_groups=len(names))
            content["groups"] = as_json(found) | {"names": list(names)}
        return content

    return one_unit(EvaluationTask.CLASSIFICATION, len(images) + len(validation), run)


def corruptions_part(subject: Subject, config: EvaluateConfig) -> Part:
    """Return the errors under every corruption, one unit for each."""
    predict, images = subject.classifier.predict, subject.images
    folder = config.corruptions.published

    def run(corruption: Corruption) -> Json:
        if folder is None:
            return as_json(own_corruption_errors(predict, images, corruption, seed=config.seed))
        return as_json(
            published_corruption_errors(predict, folder, corruption, batch_size=config.batch_size)
        )

    def combine(results: Sequence[Json]) -> Json:
        errors = {
            corruption: CorruptionErrors(num_images=row["num_images"], errors=tuple(row["errors"]))
            for corruption, row in zip(Corruption, results, strict=True)
        }
        source = CorruptionSource.OWN if folder is None else CorruptionSource.PUBLISHED
        return as_json(report_corruptions(errors, source)) | {"archive": subject.published}

    num_images = len(images) if folder is None else _PUBLISHED_IMAGES
    units = tuple(
        Unit(
            name=corruption.value,
            passes=len(SEVERITIES) * num_images,
            run=functools.partial(run, corruption),
        )
        for corruption in Corruption
    )
    return Part(
        task=EvaluationTask.CORRUPTIONS,
        units=units,
        combine=combine,
        num_corrupted=len(images) if folder is None else 0,
    )


def patch_occlusion_part(subject: Subject, config: EvaluateConfig) -> Part:
    """Return the accuracy while random patches are hidden."""
    size, fill = patch_size(subject, config), subject.classifier.data.statistics.mean

    def occlude(batch: ImageBatch, fraction: float) -> Tensor:
        return occlude_patches(
            batch.images,
            fraction,
            patch_size=size,
            fill=fill,
            seed=config.seed,
            indices=batch.indices,
        )

    task = EvaluationTask.PATCH_OCCLUSION
    return _occlusion_part(task, subject, subject.images, occlude, {"patch_size": size})


def object_occlusion_part(subject: Subject, config: EvaluateConfig) -> Part:
    """Return the accuracy while the object is hidden, by its box or by saliency."""
    task, fill = EvaluationTask.OBJECT_OCCLUSION, subject.classifier.data.statistics.mean
    if config.object_source == "boxes":
        return _box_occlusion_part(subject, config)
    size = patch_size(subject, config)

    def occlude(batch: ImageBatch, fraction: float) -> Tensor:
        saliency_BHW = spectral_residual(batch.images.float() / 255)
        return occlude_salient_patches(
            batch.images, fraction, patch_size=size, fill=fill, saliency_NHW=saliency_BHW
        )

    facts: Json = {"patch_size": size, "object_from": "saliency (spectral residual)"}
    return _occlusion_part(task, subject, subject.images, occlude, facts)


def patch_size(subject: Subject, config: EvaluateConfig) -> int:
    """Return the side of a patch in pixels."""
    if config.occlusion.patch_size is not None:
        return config.occlusion.patch_size
    return max(1, round(min(subject.images.images.shape[-2:]) / _PATCHES_PER_SIDE))


def published_archive(config: EvaluateConfig) -> str | None:
    """Return the name of the archive of published images, once its files are checked.

    Raises:
        DataError: a file is missing or is not the published one.
    """
    folder = config.corruptions.published
    if folder is None or EvaluationTask.CORRUPTIONS not in config.chosen_tasks:
        return None
    return verify_published(folder)


def _box_occlusion_part(subject: Subject, config: EvaluateConfig) -> Part:
    fill = subject.classifier.data.statistics.mean
    images, boxes = boxed_images(subject)
    sizes = [(own[:, 2:] - own[:, :2]).prod(axis=1) for own in boxes]
    largest = {
        index: torch.from_numpy(own[size.argmax()])
        for index, own, size in zip(images.indices.tolist(), boxes, sizes, strict=True)
    }

    def occlude(batch: ImageBatch, fraction: float) -> Tensor:
        boxes_B4 = torch.stack([largest[index] for index in batch.indices.tolist()])
        return occlude_objects(
            batch.images,
            fraction,
            boxes=boxes_B4,
            fill=fill,
            seed=config.seed,
            indices=batch.indices,
        )

    facts: Json = {"object_from": "boxes (the largest of each image)"}
    return _occlusion_part(EvaluationTask.OBJECT_OCCLUSION, subject, images, occlude, facts)


def _occlusion_part(
    task: EvaluationTask,
    subject: Subject,
    images: EvaluationImages,
    occlude: Occluder,
    facts: Json,
) -> Part:
    def run() -> Json:
        curve = as_json(occlusion_curve(subject.classifier.predict, occlude, images))
        return curve | {"fill": list(subject.classifier.data.statistics.mean)} | facts

    return one_unit(task, len(FRACTIONS) * len(images), run)
