"""The task of an evaluation on images with several labels each."""

import dataclasses
from collections.abc import Callable, Sequence

from torch import Tensor

from automix.errors import ConfigError
from automix.evaluation.calibration import fit_temperature
from automix.evaluation.multilabel import (
    as_decisions,
    mean_average_precision,
    worst_class_recall,
)
from automix.experiments.evaluate.config import EvaluateConfig, EvaluationTask
from automix.experiments.evaluate.plan import EvaluationInput, Json, TaskPlan, one_unit
from automix.experiments.evaluate.tasks import finite_logits
from automix.training.scores import eval_metrics, evaluation_scores


def tasks_for(config: EvaluateConfig, *, has_label_rows: bool) -> tuple[EvaluationTask, ...]:
    """Return the tasks that are measured on images with one class each, or several labels.

    Raises:
        ConfigError: a task is named that such images do not have.
    """
    of_rows = EvaluationTask.SEVERAL_LABELS
    if not has_label_rows and of_rows in config.tasks:
        raise ConfigError(f"tasks: expected no '{of_rows}' for images with one class each, got it")
    if not has_label_rows:
        return config.chosen_tasks
    if others := [task.value for task in config.tasks if task is not of_rows]:
        raise ConfigError(
            f"tasks: expected '{of_rows}' alone for images with several labels, got "
            f"{', '.join(others)}"
        )
    return (of_rows,)


def plan_several_labels(source: EvaluationInput, config: EvaluateConfig) -> TaskPlan:
    """Return the scores of `EvalMetrics`, and those of each class.

    Raises:
        ConfigError: there is no split to fit the temperature on.
    """
    classifier, images = source.classifier, source.images
    validation = source.validation_images(
        EvaluationTask.SEVERAL_LABELS, batch_size=config.batch_size
    )

    def run() -> Json:
        logits_NK, labels_NK = finite_logits(classifier, images), images.labels.cpu()
        temperature = fit_temperature(
            *as_decisions(finite_logits(classifier, validation), validation.labels.cpu())
        )
        scores = evaluation_scores(logits_NK, labels_NK, temperature=temperature)
        counts = labels_NK.sum(dim=0).int().tolist()
        columns = [
            (logits_NK[:, number : number + 1], labels_NK[:, number : number + 1])
            for number in range(len(counts))
        ]
        return {
            **dataclasses.asdict(eval_metrics(scores.tolist(), num_images=len(images))),
            "num_validation_images": len(validation),
            "class_names": list(classifier.data.class_names),
            "counts": counts,
            # Without a positive image a class has neither.
            "average_precisions": _of_classes(mean_average_precision, columns, counts),
            "recalls": _of_classes(worst_class_recall, columns, counts),
        }

    return one_unit(EvaluationTask.SEVERAL_LABELS, len(images) + len(validation), run)


def _of_classes(
    score: Callable[[Tensor, Tensor], Tensor],
    columns: Sequence[tuple[Tensor, Tensor]],
    counts: Sequence[int],
) -> list[float | None]:
    pairs = zip(columns, counts, strict=True)
    return [score(*column).item() if count else None for column, count in pairs]
