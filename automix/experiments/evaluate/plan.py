"""The input of an evaluation, and the units of work that its tasks are cut into."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from automix.data.sources.annotations import ImageBoxes, ImageGroups
from automix.evaluation.inference import EvaluationImages
from automix.experiments.common.saved_classifier import SavedClassifier
from automix.experiments.evaluate.config import EvaluationTask
from automix.random_streams import Stream, stream_generator

Json = dict[str, Any]

# Costs are counted in forward passes of one image; a forward and a backward pass cost about three.
GRADIENT_PASSES = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvaluationInput:
    """A classifier, and the images and annotations that it is evaluated on.

    Attributes:
        classifier: the network and its data.
        images: test images, all or a random subset.
        boxes: of test images, by their position in the split; None without a file of them.
        groups: of every test image; None where the groups are the classes.
        published: name of the archive of corrupted images; None where we corrupt them.
    """

    classifier: SavedClassifier
    images: EvaluationImages
    boxes: ImageBoxes | None = None
    groups: ImageGroups | None = None
    published: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkUnit:
    """Work whose result is kept once it is done, so that an interrupted evaluation resumes.

    Attributes:
        name: unique in its task.
        passes: about how many forward passes of single images it takes.
        run: returns the result, as JSON.
    """

    name: str
    passes: int
    run: Callable[[], Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPlan:
    """The units of one task, in order.

    Attributes:
        combine: from the results of all units to that of the task.
        num_corrupted: images that are corrupted in all 75 ways, for estimates of the time.
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


def chunks(images: EvaluationImages, size: int) -> Iterator[tuple[str, EvaluationImages]]:
    """Yield parts of at most ``size`` images, each with a name."""
    for start in range(0, len(images), size):
        stop = min(len(images), start + size)
        yield f"images_{start}_to_{stop - 1}", images.part(start, stop)


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
