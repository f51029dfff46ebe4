"""Evaluate a trained classifier: task by task, each finished piece kept."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from automix.data.sources.annotations import name_test_images, read_boxes, read_groups
from automix.errors import CheckpointError, ConfigError
from automix.evaluation.corruptions.registry import Corruption, corrupt
from automix.evaluation.inference import EvaluationImages
from automix.experiments.common.run_folder import ProgressBar, RunFolder, format_seconds, read_json
from automix.experiments.common.saved_classifier import SavedClassifier, load_saved_classifier
from automix.experiments.evaluate.config import EvaluateConfig, EvaluationTask
from automix.experiments.evaluate.subject import Json, Part, Subject, Unit, random_subset
from automix.experiments.evaluate.tasks import (
    attacks_part,
    classification_part,
    corruptions_part,
    localization_part,
    object_occlusion_part,
    patch_occlusion_part,
    published_archive,
)
from automix.files import sha256_of, write_json

SUBJECT_NAME = "subject.json"
PARTS_NAME = "parts"
_TIMED_IMAGES = 100

_PARTS: Mapping[EvaluationTask, Callable[[Subject, EvaluateConfig], Part]] = MappingProxyType(
    {
        EvaluationTask.CLASSIFICATION: classification_part,
        EvaluationTask.CORRUPTIONS: corruptions_part,
        EvaluationTask.PATCH_OCCLUSION: patch_occlusion_part,
        EvaluationTask.OBJECT_OCCLUSION: object_occlusion_part,
        EvaluationTask.ATTACKS: attacks_part,
        EvaluationTask.LOCALIZATION: localization_part,
    }
)


def evaluate(config: EvaluateConfig, run: Path, output: Path) -> dict[str, Any]:
    """Evaluate the classifier of ``run`` in ``output``; return the result, also if it is there.

    Every finished unit lies in `parts/TASK/UNIT.json` and is not run again.

    Raises:
        AutoMixError: run, data, files or folder do not fit.
    """
    torch.set_num_threads(config.threads)
    subject, parts = prepare(config, run)
    with RunFolder(output, config) as folder:
        _claim(output, run, subject, config)
        if (finished := folder.result()) is not None:
            return finished
        done = 0
        total = sum(part.passes for part in parts)
        measured: dict[str, Json] = {}
        with ProgressBar("evaluate", total) as bar:
            for part in parts:
                results = []
                for unit in part.units:
                    started = time.perf_counter()
                    path = output / PARTS_NAME / part.task.value / f"{unit.name}.json"
                    content, is_new = _done(unit, path)
                    results.append(content)
                    done += unit.passes
                    bar.advance(unit.passes, note=f"{part.task.value}: {unit.name}")
                    if is_new:
                        seconds = {f"{part.task.value}/seconds": time.perf_counter() - started}
                        folder.log(done, _numbers(content, part.task.value) | seconds)
                measured[part.task.value] = part.combine(results)
                folder.log(done, _numbers(measured[part.task.value], part.task.value))
        result = {"kind": "evaluation", **_facts(run, subject), **measured}
        return folder.finish(result)


def prepare(config: EvaluateConfig, run: Path) -> tuple[Subject, list[Part]]:
    """Read the classifier, its data and the files that the configuration names.

    Raises:
        AutoMixError: one of them is missing or does not fit.
    """
    classifier = load_saved_classifier(run, data_path=config.data_path)
    test = classifier.data.test
    whole = EvaluationImages(
        images=test.images,
        labels=test.labels,
        indices=torch.arange(len(test)),
        batch_size=config.batch_size,
        device=classifier.device,
    )
    subject = _annotated(
        Subject(
            classifier=classifier,
            images=random_subset(whole, config.images, seed=config.seed),
            published=published_archive(config),
        ),
        config,
    )
    _check_published(subject)
    return subject, [_PARTS[task](subject, config) for task in config.chosen_tasks]


def predict_cost(config: EvaluateConfig, run: Path) -> str:
    """Return what `evaluate` will do and about how long it takes; nothing is written."""
    torch.set_num_threads(config.threads)
    subject, parts = prepare(config, run)
    per_pass, per_corrupted = _speed(subject.classifier, subject.images)
    lines, total = [], 0.0
    for part in parts:
        seconds = part.passes * per_pass + part.num_corrupted * per_corrupted
        total += seconds
        lines.append(
            f"{part.task.value:<17} {part.passes:>11,} passes, about {format_seconds(seconds)}"
        )
    lines.append(f"{len(subject.images)} test images: about {format_seconds(total)}")
    return "\n".join(lines)


def summary(result: Mapping[str, Any]) -> str:
    """Return the main numbers of a result, one line per task."""
    lines = []
    if found := result.get("classification"):
        before, after = found["as_trained"], found["rescaled"]
        low, high = found["top1_interval"]
        lines.append(
            f"accuracy {found['top1']:.4f} [{low:.4f}, {high:.4f}], worst class "
            f"{found['classes']['worst']:.4f}; NLL {before['nll']:.4f} nats, ECE "
            f"{before['ece']:.4f}, after temperature {found['temperature']:.3f}: NLL "
            f"{after['nll']:.4f} nats, ECE {after['ece']:.4f}"
        )
    if found := result.get("corruptions"):
        lines.append(
            f"unnormalized mean corruption error "
            f"{found['unnormalized_mean_corruption_error']:.4f} ({found['source']})"
        )
    for name in ("patch_occlusion", "object_occlusion"):
        if found := result.get(name):
            half = found["accuracies"][found["fractions"].index(0.5)]
            lines.append(f"{name.replace('_', ' ')}: accuracy {half:.4f} with half hidden")
    if found := result.get("attacks"):
        levels = found["settings"]["epsilon"] * 255
        names = [name for name in ("clean", "fgsm", "pgd", "autoattack") if name in found]
        shares = ", ".join(f"{name} {found[name]:.4f}" for name in names)
        lines.append(f"attacks within {levels:g}/255 on {found['num_images']} images: {shares}")
    if found := result.get("localization"):
        lines.append(
            f"localization: MaxBoxAccV2 {found['max_box_acc_v2']:.4f} on {found['num_images']} "
            "images with boxes"
        )
    return "\n".join(lines)


def _annotated(subject: Subject, config: EvaluateConfig) -> Subject:
    """Return the subject with the boxes and groups that files give."""
    if config.boxes is None and config.groups is None:
        return subject
    test = subject.classifier.data.test
    height, width = test.images.shape[-2:]
    names = name_test_images(
        subject.classifier.config.task.data, len(test), height=height, width=width
    )
    boxes = read_boxes(config.boxes, names) if config.boxes else None
    if boxes is not None and not set(boxes.positions) & set(subject.images.indices.tolist()):
        raise ConfigError(
            f"{config.boxes}: expected boxes of some of the {len(subject.images)} images that are "
            "evaluated, got none of them"
        )
    return dataclasses.replace(
        subject, boxes=boxes, groups=read_groups(config.groups, names) if config.groups else None
    )


def _check_published(subject: Subject) -> None:
    """Refuse published images that are not of the classifier's kind.

    Raises:
        ConfigError: size or classes differ.
    """
    if subject.published is None:
        return
    num_classes = int(subject.published.split("-")[1])
    shape, found = (3, 32, 32), tuple(subject.images.images.shape[1:])
    if (shape, num_classes) != (found, subject.classifier.data.num_classes):
        raise ConfigError(
            f"corruptions.published: expected a classifier of {num_classes} classes of images of "
            f"3 x 32 x 32 with {subject.published}, got {subject.classifier.data.num_classes} "
            f"classes of {' x '.join(map(str, found))}"
        )


def _done(unit: Unit, path: Path) -> tuple[Json, bool]:
    """Return the result of a unit, and whether it was not there yet."""
    if path.exists():
        return read_json(path), False
    content = unit.run()
    write_json(path, content)
    return content, True


def _facts(run: Path, subject: Subject) -> Json:
    classifier = subject.classifier
    return {
        "run": run.resolve().name,
        "model": classifier.config.task.model.name,
        "num_parameters": classifier.num_parameters,
        "weights_hash": classifier.weights_hash,
        "schedule_hash": classifier.result["schedule_hash"],
        "training_seed": classifier.config.seed,
        "data_source": classifier.data.name,
        "data": classifier.data.fingerprint,
        "num_classes": classifier.data.num_classes,
        "split": "test",
        "num_images": len(subject.images),
    }


def _claim(output: Path, run: Path, subject: Subject, config: EvaluateConfig) -> None:
    """Write down what is evaluated, unless the folder holds the evaluation of something else.

    Raises:
        CheckpointError: it does.
    """
    files = {"boxes": config.boxes, "groups": config.groups}
    content = _facts(run, subject) | {
        name: sha256_of(path.read_bytes())[:16] for name, path in files.items() if path
    }
    path = output / SUBJECT_NAME
    if path.exists() and (found := read_json(path)) != content:
        different = next(key for key in {*found, *content} if found.get(key) != content.get(key))
        raise CheckpointError(
            f"{output}: expected the evaluation of this classifier on these files, got that of "
            f"another ({different}: {found.get(different)!r}, not {content.get(different)!r})"
        )
    write_json(path, content)


def _numbers(content: Mapping[str, Any], prefix: str) -> dict[str, float | str]:
    """Return the numbers of a result by dotted name, without long lists."""
    numbers: dict[str, float | str] = {}
    for key, value in content.items():
        name = f"{prefix}/{key}"
        if isinstance(value, dict):
            numbers |= _numbers(value, name)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers[name] = value
    return numbers


def _speed(classifier: SavedClassifier, images: EvaluationImages) -> tuple[float, float]:
    """Return seconds of one pass of one image, and of corrupting one image in all 75 ways."""
    batch = next(images.batches())
    classifier.predict(batch.images)
    started = time.perf_counter()
    classifier.predict(batch.images).sum().item()
    per_pass = (time.perf_counter() - started) / len(batch.images)
    few = batch.images[:_TIMED_IMAGES]
    started = time.perf_counter()
    for corruption in Corruption:
        corrupt(few, corruption, 3, seed=0)
    return per_pass, 5 * (time.perf_counter() - started) / len(few)
