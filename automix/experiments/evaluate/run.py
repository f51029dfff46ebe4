"""Evaluation of a saved classifier: task by task, every finished unit of work kept."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from automix.data.sources.annotations import name_test_images, read_boxes, read_groups
from automix.errors import CheckpointError, ConfigError
from automix.evaluation.calibration import TEMPERATURE_FROM
from automix.evaluation.corruptions.registry import SEVERITIES, Corruption, corrupt
from automix.evaluation.inference import EvaluationImages
from automix.experiments.common.run_folder import (
    ProgressBar,
    RunFolder,
    format_seconds,
)
from automix.experiments.common.run_logs import Journal
from automix.experiments.common.saved_classifier import (
    SavedClassifier,
    load_saved_classifier,
    weights_hash,
)
from automix.experiments.evaluate.attribution import (
    plan_attribution_consistency,
    plan_saliency_removal,
)
from automix.experiments.evaluate.config import EvaluateConfig, EvaluationTask
from automix.experiments.evaluate.plan import EvaluationInput, Json, TaskPlan, random_subset
from automix.experiments.evaluate.several_labels import plan_several_labels, tasks_for
from automix.experiments.evaluate.tasks import (
    plan_attacks,
    plan_classification,
    plan_corruptions,
    plan_localization,
    plan_object_occlusion,
    plan_patch_occlusion,
    published_archive,
)
from automix.files import sha256_of_file, write_json
from automix.readers import MAX_JSON_BYTES, parsing, read_json

SUBJECT_NAME = "subject.json"
JOURNAL_NAME = "units.jsonl"
_TIMED_IMAGES = 100

_PLANS: Mapping[EvaluationTask, Callable[[EvaluationInput, EvaluateConfig], TaskPlan]] = (
    MappingProxyType(
        {
            EvaluationTask.CLASSIFICATION: plan_classification,
            EvaluationTask.CORRUPTIONS: plan_corruptions,
            EvaluationTask.PATCH_OCCLUSION: plan_patch_occlusion,
            EvaluationTask.OBJECT_OCCLUSION: plan_object_occlusion,
            EvaluationTask.ATTACKS: plan_attacks,
            EvaluationTask.LOCALIZATION: plan_localization,
            EvaluationTask.SALIENCY_REMOVAL: plan_saliency_removal,
            EvaluationTask.ATTRIBUTION_CONSISTENCY: plan_attribution_consistency,
            EvaluationTask.SEVERAL_LABELS: plan_several_labels,
        }
    )
)


def evaluate(config: EvaluateConfig, run: Path, output: Path) -> dict[str, Any]:
    """Evaluate the classifier of ``run`` in ``output``; return the result, also if it is there.

    Finished units of work are in a journal, `units.jsonl`, and are not run again.

    Raises:
        AutoMixError: run, data, files or folder do not fit.
    """
    torch.set_num_threads(config.threads)
    source, plans = prepare(config, run)
    with RunFolder(output, config) as folder:
        # Before the result is returned: it may be that of weights that were replaced since.
        _claim(output, run, source, config)
        if (finished := folder.result()) is not None:
            return finished
        journal, tasks, done = Journal(output / JOURNAL_NAME), {}, 0
        # A view of the journal: written anew, because a kill may have come between the two.
        folder.restore_metrics("")
        with ProgressBar("evaluate", sum(plan.passes for plan in plans)) as bar:
            for plan in plans:
                task, results = plan.task.value, []
                for unit in plan.units:
                    key = f"{task}/{unit.name}"
                    done += unit.passes
                    if (result := journal.get(key)) is not None:
                        bar.skip(unit.passes)
                    else:
                        result = unit.run()
                        journal.add(key, result)
                        bar.advance(unit.passes, note=f"{task}: {unit.name}")
                    seconds = {f"{task}/seconds": journal.seconds_of(key)}
                    folder.log(done, _numbers(result, task) | seconds)
                    results.append(result)
                # Counts of units add up to the rates of a task.
                with parsing(str(output / JOURNAL_NAME), f"units of {task}"):
                    tasks[task] = plan.combine(results)
                folder.log(done, _numbers(tasks[task], task))
        return folder.finish({"kind": "evaluation", **_facts(run, source), **tasks})


def prepare(config: EvaluateConfig, run: Path) -> tuple[EvaluationInput, list[TaskPlan]]:
    """Read the classifier, its data and the files that the configuration names."""
    classifier = load_saved_classifier(run, data_path=config.data_path, factory=config.factory)
    test = classifier.data.test
    chosen = tasks_for(config, has_label_rows=test.labels.ndim == 2)
    test_images = dataclasses.replace(
        EvaluationImages.whole(test.images, test.labels),
        batch_size=config.batch_size,
        device=classifier.device,
    )
    source = EvaluationInput(
        classifier=classifier,
        images=random_subset(test_images, config.images, seed=config.seed),
        published=published_archive(config),
    )
    source = _annotated(source, config)
    _check_published(source)
    return source, [_PLANS[task](source, config) for task in chosen]


def predict_cost(config: EvaluateConfig, run: Path) -> str:
    """Return what `evaluate` will do and about how long it takes; nothing is written."""
    torch.set_num_threads(config.threads)
    source, plans = prepare(config, run)
    per_pass, per_corrupted = _speed(source.classifier, source.images)
    lines, total = [], 0.0
    for plan in plans:
        # Making a corrupted image costs time of its own, beside the passes over it.
        seconds = plan.passes * per_pass + plan.num_corrupted * per_corrupted
        total += seconds
        lines.append(
            f"{plan.task.value:<17} {plan.passes:>11,} passes, about {format_seconds(seconds)}"
        )
    lines.append(f"{len(source.images)} test images: about {format_seconds(total)}")
    return "\n".join(lines)


def summarize_evaluation(result: Mapping[str, Any]) -> str:
    """Return the main numbers of a result, one line per task."""
    # A task that was not chosen has no entry in the result.
    lines = []
    if part := result.get("classification"):
        before, after = part["as_trained"], part["rescaled"]
        low, high = part["top1_interval"]
        lines.append(
            f"accuracy {part['top1']:.4f} [{low:.4f}, {high:.4f}], worst class "
            f"{part['classes']['worst']:.4f}; NLL {before['nll']:.4f} nats, ECE "
            f"{before['ece']:.4f}; {TEMPERATURE_FROM}, {part['temperature']:.3f}: calibrated NLL "
            f"{after['nll']:.4f} nats, ECE {after['ece']:.4f}{_worse_ece(before, after)}"
        )
    if part := result.get("several_labels"):
        lines.append(
            f"mean average precision {part['mean_average_precision']:.4f}; of the labels "
            f"{part['accuracy']:.4f} right, recall of the worst class "
            f"{part['worst_class_accuracy']:.4f}; NLL {part['nll']:.4f} nats; {TEMPERATURE_FROM}, "
            f"{part['temperature']:.3f}: calibrated NLL {part['calibrated_nll']:.4f} nats"
        )
    if part := result.get("corruptions"):
        lines.append(
            f"unnormalized mean corruption error "
            f"{part['unnormalized_mean_corruption_error']:.4f} ({part['source']})"
        )
    for name in ("patch_occlusion", "object_occlusion"):
        if part := result.get(name):
            half = part["accuracies"][part["fractions"].index(0.5)]
            lines.append(f"{name.replace('_', ' ')}: accuracy {half:.4f} with half hidden")
    if part := result.get("attacks"):
        levels = part["settings"]["epsilon"] * 255
        names = [name for name in ("clean", "fgsm", "pgd", "autoattack") if name in part]
        accuracies = ", ".join(f"{name} {part[name]:.4f}" for name in names)
        lines.append(f"attacks within {levels:g}/255 on {part['num_images']} images: {accuracies}")
    if part := result.get("localization"):
        lines.append(
            f"localization: MaxBoxAccV2 {part['max_box_acc_v2']:.4f} on {part['num_images']} "
            "images with boxes"
        )
    lines += _attribution_lines(result)
    return "\n".join(lines)


def _attribution_lines(result: Mapping[str, Any]) -> list[str]:
    lines = []
    if part := result.get("saliency_removal"):
        margins = [
            f"{name} {row['margin']:+.4f} [{row['margin_interval'][0]:+.4f}, "
            f"{row['margin_interval'][1]:+.4f}]"
            for name, row in part["sources"].items()
        ]
        lines.append(
            "saliency removal: accuracy lost beyond that of random cells: " + ", ".join(margins)
        )
    if part := result.get("attribution_consistency"):
        correlations: dict[str, list[float]] = {}
        for other in part["runs"]:
            for name, row in other["sources"].items():
                correlations.setdefault(name, []).append(row["rank_correlation"])
        shown = ", ".join(f"{name} {sum(row) / len(row):.3f}" for name, row in correlations.items())
        lines.append(f"consistency with {len(part['runs'])} other runs, rank correlation: {shown}")
    return lines


def _worse_ece(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    return ", worse than before" if after["ece"] > before["ece"] else ""


def _annotated(source: EvaluationInput, config: EvaluateConfig) -> EvaluationInput:
    """Return the input with the boxes and groups that files give."""
    if config.boxes is None and config.groups is None:
        return source
    test = source.classifier.data.test
    height, width = test.images.shape[-2:]
    # Files may name images by their path or by their number in the test split.
    names = name_test_images(
        source.classifier.config.task.data, len(test), height=height, width=width
    )
    boxes = read_boxes(config.boxes, names) if config.boxes else None
    if boxes is not None and not set(boxes.positions) & set(source.images.indices.tolist()):
        raise ConfigError(
            f"{config.boxes}: expected boxes of some of the {len(source.images)} images that are "
            "evaluated, got none of them"
        )
    return dataclasses.replace(
        source, boxes=boxes, groups=read_groups(config.groups, names) if config.groups else None
    )


def _check_published(source: EvaluationInput) -> None:
    """Refuse published images of another size or with other classes."""
    if source.published is None:
        return
    # CIFAR-10-C or CIFAR-100-C.
    num_classes = int(source.published.split("-")[1])
    shape = tuple(source.images.images.shape[1:])
    if (shape, num_classes) != ((3, 32, 32), source.classifier.data.num_classes):
        raise ConfigError(
            f"corruptions.published: expected a classifier of {num_classes} classes of images of "
            f"3 x 32 x 32 with {source.published}, got {source.classifier.data.num_classes} "
            f"classes of {' x '.join(map(str, shape))}"
        )


def _facts(run: Path, source: EvaluationInput) -> Json:
    classifier = source.classifier
    return {
        "run": run.resolve().name,
        "model": classifier.config.task.model.title,
        "num_parameters": sum(weights.numel() for weights in classifier.model.parameters()),
        "weights_hash": classifier.weights_hash,
        "schedule_hash": classifier.result["schedule_hash"],
        "training_seed": classifier.config.seed,
        "data_source": classifier.data.name,
        "data": classifier.data.fingerprint,
        "num_classes": classifier.data.num_classes,
        "split": "test",
        "num_images": len(source.images),
    }


def _claim(output: Path, run: Path, source: EvaluationInput, config: EvaluateConfig) -> None:
    """Write down what is evaluated, unless the folder holds the evaluation of something else."""
    # Their content, because a file may be edited in place between two attempts.
    files = {"boxes": config.boxes, "groups": config.groups}
    content = _facts(run, source) | {
        name: sha256_of_file(path, limit=MAX_JSON_BYTES)[:16]
        for name, path in files.items()
        if path
    }
    if config.attribution.runs:
        content["attribution_runs"] = [weights_hash(other) for other in config.attribution.runs]
    path = output / SUBJECT_NAME
    if path.exists() and (previous := read_json(path)) != content:
        different = next(
            key for key in {*previous, *content} if previous.get(key) != content.get(key)
        )
        raise CheckpointError(
            f"{output}: expected the evaluation of this classifier on these files, got that of "
            f"another ({different}: {previous.get(different)!r}, not {content.get(different)!r})"
        )
    write_json(path, content)


def _numbers(content: Mapping[str, Any], prefix: str) -> dict[str, float | str]:
    """Return the numbers of a result by dotted name, without long lists."""
    # TensorBoard draws scalars; lists by image or threshold are in the result alone.
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
    # The first pass allocates, and on an accelerator compiles.
    classifier.predict(batch.images)
    started = time.perf_counter()
    classifier.predict(batch.images).sum().item()
    per_pass = (time.perf_counter() - started) / len(batch.images)
    few = batch.images[:_TIMED_IMAGES]
    started = time.perf_counter()
    for corruption in Corruption:
        corrupt(few, corruption, 3, seed=0)
    # All severities take about as long as the middle one.
    return per_pass, len(SEVERITIES) * (time.perf_counter() - started) / len(few)
