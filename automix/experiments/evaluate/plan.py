"""The input of an evaluation, and the units of work that its tasks are cut into."""

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from automix.data.sources.annotations import ImageBoxes, ImageGroups
from automix.errors import ConfigError
from automix.evaluation.inference import EvaluationImages
from automix.experiments.common.saved_classifier import SavedClassifier
from automix.experiments.evaluate.config import EvaluationTask
from automix.random_streams import Stream, stream_generator

Json = dict[str, Any]

# Costs are counted in forward passes of one image; a forward and a backward pass cost about three.
GRADIENT_PASSES = 3
# Of tasks that take gradients: what an interruption loses is at most a unit.
_IMAGES_PER_UNIT = 250


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvaluationInput:
    """A classifier, and the test images and annotations that it is evaluated on.

    ``published`` names the archive of corrupted images; None where we corrupt them ourselves.
    """

    classifier: SavedClassifier
    images: EvaluationImages
    boxes: ImageBoxes | None = None
    groups: ImageGroups | None = None
    published: str | None = None

    def validation_images(self, task: EvaluationTask, *, batch_size: int) -> EvaluationImages:
        """Return the images of the selection split, on which a task fits the temperature.

        Raises:
            ConfigError: there is no such split.
        """
        # Not on the test images: the calibration would flatter itself.
        split = self.classifier.data.seen.selection
        if not len(split):
            raise ConfigError(
                f"tasks: expected a run with a selection split for '{task}', which fits the "
                "temperature there, got one without"
            )
        return dataclasses.replace(
            EvaluationImages.whole(split.images, split.labels),
            batch_size=batch_size,
            device=self.classifier.device,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkUnit:
    """Work whose result is kept once it is done, so that an interrupted evaluation resumes.

    ``passes`` says about how many forward passes of single images it takes.
    """

    name: str
    passes: int
    run: Callable[[], Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPlan:
    """The units of one task, in order; ``combine`` makes its result of theirs.

    ``num_corrupted`` images are corrupted in all 75 ways, which takes time of its own.
    """

    task: EvaluationTask
    units: tuple[WorkUnit, ...]
    combine: Callable[[Sequence[Json]], Json]
    num_corrupted: int = 0

    @property
    def passes(self) -> int:
        """Forward passes of all units."""
        return sum(unit.passes for unit in self.units)


def one_unit(task: EvaluationTask, passes: int, run: Callable[[], Json]) -> TaskPlan:
    """Return a task that is done in one go."""
    unit = WorkUnit(name=task.value, passes=passes, run=run)
    return TaskPlan(task=task, units=(unit,), combine=lambda results: results[0])


def many_units(
    task: EvaluationTask,
    images: EvaluationImages,
    *,
    passes: int,
    run: Callable[[EvaluationImages], Json],
    combine: Callable[[Sequence[Json]], Json],
) -> TaskPlan:
    """Return a task that is done part by part of its images, ``passes`` for an image."""
    units = []
    for start in range(0, len(images), _IMAGES_PER_UNIT):
        part = images.part(start, min(len(images), start + _IMAGES_PER_UNIT))
        unit = WorkUnit(
            name=f"images_{start}_to_{start + len(part) - 1}",
            passes=passes * len(part),
            run=functools.partial(run, part),
        )
        units.append(unit)
    return TaskPlan(task=task, units=tuple(units), combine=combine)


def random_subset(images: EvaluationImages, count: int | None, *, seed: int) -> EvaluationImages:
    """Return ``count`` images drawn without replacement, in their order; all for None."""
    if count is None or count >= len(images):
        return images
    # A stream of its own: the subset is the same whatever else is measured.
    generator = stream_generator(seed, Stream.EVALUATION)
    drawn = torch.randperm(len(images), generator=generator)[:count]
    return images.subset(drawn.sort().values)


def as_json(value: Any) -> Json:
    """Return a dataclass as it comes back from a file; NaN and infinity are refused."""
    # Through text, so that a unit from this attempt and one from the journal combine to equal bits.
    content: Json = json.loads(json.dumps(dataclasses.asdict(value), allow_nan=False))
    return content
