"""Tasks of an evaluation: calibration, corruptions, occlusion, attacks, localization."""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from automix.configuration.base import did_you_mean
from automix.data.sources.annotations import Floats
from automix.errors import ConfigError, DivergedError
from automix.evaluation.attacks import (
    PgdSettings,
    check_autoattack,
    count_survivors,
    survivors_of_autoattack,
)
from automix.evaluation.classifier import group_accuracy, macro_std, report_classifier
from automix.evaluation.corruptions.registry import SEVERITIES, Corruption, verify_published
from automix.evaluation.corruptions.report import (
    CorruptionErrors,
    CorruptionSource,
    own_corruption_errors,
    published_corruption_errors,
    report_corruptions,
)
from automix.evaluation.inference import EvaluationImages, ImageBatch
from automix.evaluation.localization import (
    IOU_LEVELS,
    NUM_THRESHOLDS,
    best_overlaps,
    class_activation_maps,
    last_feature_layer,
    localization_accuracy,
    max_box_accuracy,
)
from automix.evaluation.occlusion import (
    FRACTIONS,
    Occluder,
    occlude_objects,
    occlude_patches,
    occlude_salient_patches,
    occlusion_curve,
)
from automix.evaluation.statistics import proportion_interval
from automix.experiments.common.saved_classifier import SavedClassifier
from automix.experiments.evaluate.config import EvaluateConfig, EvaluationTask
from automix.experiments.evaluate.plan import (
    GRADIENT_PASSES,
    EvaluationInput,
    Json,
    TaskPlan,
    WorkUnit,
    as_json,
    many_units,
    one_unit,
    random_subset,
)
from automix.saliency.sources import spectral_residual

# A patch is 1/14 of the shorter side, as 16 of 224 pixels.
_PATCHES_PER_SIDE = 14
# Images of CIFAR-10-C and CIFAR-100-C per corruption and severity.
_PUBLISHED_IMAGES = 10_000
# 100 steps of APGD, then 9 x 100 of its targeted version and of FAB, 5,000 queries of Square.
_AUTOATTACK_PASSES = 13_000


def plan_classification(source: EvaluationInput, config: EvaluateConfig) -> TaskPlan:
    """Return accuracy, probabilities, classes and groups.

    Raises:
        ConfigError: there is no split to fit the temperature on.
    """
    classifier, images = source.classifier, source.images
    validation = source.validation_images(
        EvaluationTask.CLASSIFICATION, batch_size=config.batch_size
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
        content["top1_interval"] = interval_of_count(report.top1 * len(images), len(images))
        content["class_names"] = list(classifier.data.class_names)
        if source.groups is not None:
            names = source.groups.names
            # Groups are read for the whole split, of which these images may be a subset.
            groups_N = torch.tensor(source.groups.numbers)[images.indices]
            accuracies = group_accuracy(
                logits_NK, images.labels, groups=groups_N, num_groups=len(names)
            )
            spread = macro_std(logits_NK, images.labels, groups=groups_N, num_groups=len(names))
            content["groups"] = as_json(accuracies) | {"names": list(names), "macro_std": spread}
        return content

    return one_unit(EvaluationTask.CLASSIFICATION, len(images) + len(validation), run)


def plan_corruptions(source: EvaluationInput, config: EvaluateConfig) -> TaskPlan:
    """Return the errors under every corruption, one unit for each."""
    predict, images = source.classifier.predict, source.images
    folder = config.corruptions.published

    # 15 corruptions at 5 severities, as in CIFAR-C (arXiv:1903.12261).
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
        origin = CorruptionSource.OWN if folder is None else CorruptionSource.PUBLISHED
        return as_json(report_corruptions(errors, origin)) | {"archive": source.published}

    num_images = len(images) if folder is None else _PUBLISHED_IMAGES
    units = tuple(
        WorkUnit(
            name=corruption.value,
            passes=len(SEVERITIES) * num_images,
            run=functools.partial(run, corruption),
        )
        for corruption in Corruption
    )
    return TaskPlan(
        task=EvaluationTask.CORRUPTIONS,
        units=units,
        combine=combine,
        num_corrupted=len(images) if folder is None else 0,
    )


def plan_patch_occlusion(source: EvaluationInput, config: EvaluateConfig) -> TaskPlan:
    """Return the accuracy while random patches are hidden."""
    # The mean color: a patch of it is zero once images are normalized.
    size, fill = patch_size(source, config), source.classifier.data.statistics.mean

    def occlude(batch: ImageBatch, fraction: float) -> Tensor:
        return occlude_patches(
            batch.images,
            fraction,
            patch_size=size,
            fill=fill,
            seed=config.seed,
            indices=batch.indices,
        )

    facts: Json = {"patch_size": size}
    return _plan_occlusion(EvaluationTask.PATCH_OCCLUSION, source, source.images, occlude, facts)


def plan_object_occlusion(source: EvaluationInput, config: EvaluateConfig) -> TaskPlan:
    """Return the accuracy while the object is hidden, by its box or by saliency."""
    if config.object_source == "boxes":
        return _plan_box_occlusion(source, config)
    size, fill = patch_size(source, config), source.classifier.data.statistics.mean

    def occlude(batch: ImageBatch, fraction: float) -> Tensor:
        # A map without a network: what is hidden must not depend on who is evaluated.
        saliency_BHW = spectral_residual(batch.images.float() / 255)
        return occlude_salient_patches(
            batch.images, fraction, patch_size=size, fill=fill, saliency_NHW=saliency_BHW
        )

    facts: Json = {"patch_size": size, "object_from": "saliency (spectral residual)"}
    return _plan_occlusion(EvaluationTask.OBJECT_OCCLUSION, source, source.images, occlude, facts)


def patch_size(source: EvaluationInput, config: EvaluateConfig) -> int:
    """Return the side of a patch in pixels."""
    if config.occlusion.patch_size is not None:
        return config.occlusion.patch_size
    return max(1, round(min(source.images.images.shape[-2:]) / _PATCHES_PER_SIDE))


def published_archive(config: EvaluateConfig) -> str | None:
    """Return the name of the archive of published images, once its files are verified."""
    folder = config.corruptions.published
    is_chosen = EvaluationTask.CORRUPTIONS in config.chosen_tasks
    return verify_published(folder) if folder and is_chosen else None


def _plan_box_occlusion(source: EvaluationInput, config: EvaluateConfig) -> TaskPlan:
    fill = source.classifier.data.statistics.mean
    images, boxes = boxed_images(source)
    # Boxes are left, top, right and bottom: the second half less the first is their size.
    areas = [(boxes_M4[:, 2:] - boxes_M4[:, :2]).prod(axis=1) for boxes_M4 in boxes]
    # An image may show several objects; hiding the largest hides most of what is named.
    largest = {
        index: torch.from_numpy(boxes_M4[areas_M.argmax()])
        for index, boxes_M4, areas_M in zip(images.indices.tolist(), boxes, areas, strict=True)
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
    return _plan_occlusion(EvaluationTask.OBJECT_OCCLUSION, source, images, occlude, facts)


def _plan_occlusion(
    task: EvaluationTask,
    source: EvaluationInput,
    images: EvaluationImages,
    occlude: Occluder,
    facts: Json,
) -> TaskPlan:
    def run() -> Json:
        curve = as_json(occlusion_curve(source.classifier.predict, occlude, images))
        return curve | {"fill": list(source.classifier.data.statistics.mean)} | facts

    return one_unit(task, len(FRACTIONS) * len(images), run)


def plan_attacks(source: EvaluationInput, config: EvaluateConfig) -> TaskPlan:
    """Return the accuracy under FGSM, PGD and perhaps AutoAttack.

    Raises:
        MissingExtraError: AutoAttack is wanted and not installed.
        ConfigError: AutoAttack is wanted, and there are too few classes for it.
    """
    options = config.attacks
    settings = PgdSettings(
        epsilon=options.epsilon_levels / 255,
        step_size=options.step_levels / 255,
        num_steps=options.steps,
        num_restarts=options.restarts,
    )
    images = random_subset(source.images, options.images, seed=config.seed)
    num_classes = source.classifier.data.num_classes
    names = ["clean", "fgsm", "pgd"]
    if options.autoattack:
        names.append("autoattack")
        try:
            # Now, rather than after minutes of PGD.
            check_autoattack(num_classes)
        except ValueError as error:
            raise ConfigError(str(error)) from None

    def run(chunk: EvaluationImages) -> Json:
        model = source.classifier.in_pixels()
        survivors = as_json(count_survivors(model, chunk, settings=settings, seed=config.seed))
        if options.autoattack:
            survivors["autoattack"] = survivors_of_autoattack(
                model, chunk, epsilon=settings.epsilon, num_classes=num_classes, seed=config.seed
            )
        return survivors

    # Units count, so that chunks of any size add up to the same accuracies.
    def combine(results: Sequence[Json]) -> Json:
        total = sum(row["num_images"] for row in results)
        counts = {name: sum(row[name] for row in results) for name in names}
        accuracies = {name: count / total for name, count in counts.items()}
        intervals = {
            f"{name}_interval": interval_of_count(count, total) for name, count in counts.items()
        }
        return {"num_images": total, "settings": as_json(settings), **accuracies, **intervals}

    # A gradient for FGSM and for every step of PGD from every start; the rest only counts.
    steps = 1 + settings.num_steps * settings.num_restarts
    passes = GRADIENT_PASSES * steps + settings.num_restarts + 4
    passes += _AUTOATTACK_PASSES if options.autoattack else 0
    return many_units(EvaluationTask.ATTACKS, images, passes=passes, run=run, combine=combine)


def plan_localization(source: EvaluationInput, config: EvaluateConfig) -> TaskPlan:
    """Return MaxBoxAccV2 of class activation maps on the images that have boxes.

    Raises:
        ConfigError: the network has no layer of that name, or no map of features.
    """
    # MaxBoxAccV2 (arXiv:2007.04178): a map is cut at a threshold, boxes of its regions are compared
    # with the true boxes, and the threshold counts that is best over all images.
    images, boxes = boxed_images(source)
    layer = _layer(source, config)
    # Images alternate between two halves by their position in the whole split, not in the unit.
    offsets = {index: position for position, index in enumerate(images.indices.tolist())}

    def run(chunk: EvaluationImages) -> Json:
        maps, is_right = _maps(source, chunk, layer)
        start = offsets[int(chunk.indices[0])]
        overlaps = best_overlaps(maps, boxes[start : start + len(chunk)])
        # Every other image chooses the threshold for the rest, and the reverse.
        is_even = (np.arange(start, start + len(chunk)) % 2) == 0
        tables = {
            f"{kind}_{fold}": _hits(overlaps, counts & chosen)
            for kind, counts in (("known", np.ones_like(is_right)), ("top1", is_right))
            for fold, chosen in (("even", is_even), ("odd", ~is_even))
        }
        sizes = {"num_even": int(is_even.sum()), "num_odd": int((~is_even).sum())}
        return {"num_images": len(chunk), **sizes, **tables}

    def combine(results: Sequence[Json]) -> Json:
        num_outside = source.boxes.num_outside if source.boxes else 0
        return _localization(results) | {"layer": layer, "num_outside": num_outside}

    passes = GRADIENT_PASSES + 1
    return many_units(EvaluationTask.LOCALIZATION, images, passes=passes, run=run, combine=combine)


def _layer(source: EvaluationInput, config: EvaluateConfig) -> str:
    model = source.classifier.model
    names = [name for name, _ in model.named_modules() if name]
    if (layer := config.localization.layer) is not None:
        if layer not in names:
            raise ConfigError(
                f"localization.layer: expected a module of the network, such as "
                f"{', '.join(names[:6])}, got {layer!r}{did_you_mean(layer, names)}"
            )
        return layer
    last = last_feature_layer(model, source.classifier.prepare(source.images.images[:1]))
    if last is None:
        raise ConfigError(
            "localization.layer: expected a network whose last features are a map that is "
            "pooled, got one without; name a layer that gives (B, C, H, W)"
        )
    return last


def _maps(
    source: EvaluationInput, chunk: EvaluationImages, layer: str
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the maps of the images' own classes, and whether each is the class predicted."""
    model = source.classifier.model
    module = model.get_submodule(layer)
    maps, right = [], []
    for batch in chunk.batches():
        images = source.classifier.prepare(batch.images)
        try:
            maps_BHW = class_activation_maps(model, images, batch.labels, layer=module)
        except ValueError as error:
            raise ConfigError(f"localization.{error}") from None
        maps.append(maps_BHW.cpu())
        answers = source.classifier.predict(batch.images).argmax(dim=1)
        right.append((answers == batch.labels).cpu())
    return torch.cat(maps).double().numpy(), torch.cat(right).numpy()


def _hits(overlaps_NT: NDArray[np.float64], counts: NDArray[np.bool_]) -> list[list[int]]:
    # Counts of images by threshold and overlap: they add up over units, accuracies do not.
    table = localization_accuracy(overlaps_NT, is_right=counts) * len(overlaps_NT)
    return table.round().astype(int).tolist()  # type: ignore[no-any-return]


def _localization(results: Sequence[Json]) -> Json:
    """Return the accuracies of all images from the hits per threshold of each unit."""
    total = sum(row["num_images"] for row in results)
    halves = {fold: sum(row[f"num_{fold}"] for row in results) for fold in ("even", "odd")}
    content: Json = {"num_images": total, "iou_levels": list(IOU_LEVELS)}
    content["num_thresholds"] = NUM_THRESHOLDS
    for kind in ("known", "top1"):
        hits = {
            fold: np.sum([np.array(row[f"{kind}_{fold}"], dtype=float) for row in results], axis=0)
            for fold in halves
        }
        # One threshold for all images, the best on the very images that are counted.
        whole = (hits["even"] + hits["odd"]) / total
        name = "max_box_acc_v2" if kind == "known" else "top1_max_box_acc_v2"
        content[name] = max_box_accuracy(whole)
        content[f"{name}_per_level"] = whole.max(axis=0).tolist()
        if min(halves.values()):
            # Each half at the threshold that is best on the other one, weighted by its size.
            crossed = [
                max_box_accuracy(hits[fold] / halves[fold], tuned_on=hits[other]) * halves[fold]
                for fold, other in (("even", "odd"), ("odd", "even"))
            ]
            content[f"{name}_cross_fitted"] = sum(crossed) / total
    return content


def boxed_images(source: EvaluationInput) -> tuple[EvaluationImages, tuple[Floats, ...]]:
    """Return the images that have boxes, and the boxes of each."""
    assert source.boxes is not None
    boxes_by_index = dict(zip(source.boxes.positions, source.boxes.boxes, strict=True))
    indices = source.images.indices.tolist()
    positions = [position for position, index in enumerate(indices) if index in boxes_by_index]
    boxes = tuple(boxes_by_index[indices[position]] for position in positions)
    return source.images.subset(torch.tensor(positions, dtype=torch.int64)), boxes


def finite_logits(classifier: SavedClassifier, images: EvaluationImages) -> Tensor:
    """Return (N, K) logits on the host; refuse a classifier that gives others than finite ones."""
    logits_NK = torch.cat([classifier.predict(batch.images).cpu() for batch in images.batches()])
    num_bad = int((~logits_NK.isfinite().all(dim=1)).sum())
    if num_bad:
        raise DivergedError(
            f"classifier: expected finite logits, got others for {num_bad} of {len(images)} images"
        )
    return logits_NK


def interval_of_count(count: float, total: int) -> list[float]:
    """Return the ends of a 95% Wilson interval of a fraction of ``total`` images."""
    interval = proportion_interval(count / total, total)
    return [interval.low, interval.high]
