"""What is evaluated, and the pieces that an evaluation is cut into."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from automix.data.sources.annotations import Floats, ImageBoxes, ImageGroups
from automix.errors import DivergedError
from automix.evaluation.inference import EvaluationImages
from automix.evaluation.statistics import proportion_interval
from automix.experiments.common.saved_classifier import SavedClassifier
from automix.experiments.evaluate.config import EvaluationTask
from automix.random_streams import Stream, stream_generator

Json = dict[str, Any]

GRADIENT_PASSES = 3
"""A forward and a backward pass cost about three forward passes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """What is evaluated.

    Attributes:
        classifier: the network and its data.
        images: the test images that are looked at.
        boxes: of test images, by their position in the split; None where there are none.
        groups: of every test image; None where the groups are the classes.
        published: name of the published corrupted images; None where they are ours.
    """

    classifier: SavedClassifier
    images: EvaluationImages
    boxes: ImageBoxes | None = None
    groups: ImageGroups | None = None
    published: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A piece of work whose result is kept once it is done.

    Attributes:
        name: unique in its part; the stem of its file.
        passes: forward passes of single images that it takes, about.
        run: returns its result, as JSON.
    """

    name: str
    passes: int
    run: Callable[[], Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One task of an evaluation.

    Attributes:
        task: which.
        units: in order.
        combine: from the results of all units to the result of the part.
        num_corrupted: images that all our own corruptions are made of, for estimates.
    """

    task: EvaluationTask
    units: tuple[Unit, ...]
    combine: Callable[[Sequence[Json]], Json]
    num_corrupted: int = 0

    @property
    def passes(self) -> int:
        """Forward passes of all units."""
        return sum(unit.passes for unit in self.units)


def one_unit(task: EvaluationTask, passes: int, run: Callable[[], Json]) -> Part:
    """Return a part that is done in one go."""
    unit = Unit(name=task.value, passes=passes, run=run)
    return Part(task=task, units=(unit,), combine=lambda results: results[0])


def chunks(images: EvaluationImages, size: int) -> Iterator[tuple[str, EvaluationImages]]:
    """Yield parts of at most ``size`` images, each with a name."""
    for start in range(0, len(images), size):
        stop = min(len(images), start + size)
        yield f"images_{start}_to_{stop - 1}", images.part(start, stop)


def random_subset(images: EvaluationImages, count: int | None, *, seed: int) -> EvaluationImages:
    """Return ``count`` images drawn without replacement, in their order; all for None."""
    if count is None or count >= len(images):
        return images
    generator = stream_generator(seed, Stream.EVALUATION)
    drawn = torch.randperm(len(images), generator=generator)[:count]
    return images.subset(drawn.sort().values)


def boxed_images(subject: Subject) -> tuple[EvaluationImages, tuple[Floats, ...]]:
    """Return the images that have boxes, and the boxes of each."""
    assert subject.boxes is not None
    known = dict(zip(subject.boxes.positions, subject.boxes.boxes, strict=True))
    indices = subject.images.indices.tolist()
    positions = [position for position, index in enumerate(indices) if index in known]
    boxes = tuple(known[indices[position]] for position in positions)
    return subject.images.subset(torch.tensor(positions, dtype=torch.int64)), boxes


def finite_logits(classifier: SavedClassifier, images: EvaluationImages) -> Tensor:
    """Return (N, K) logits on the host.

    Raises:
        DivergedError: some are not finite.
    """
    logits_NK = torch.cat([classifier.predict(batch.images).cpu() for batch in images.batches()])
    num_bad = int((~logits_NK.isfinite().all(dim=1)).sum())
    if num_bad:
        raise DivergedError(
            f"classifier: expected finite logits, got others for {num_bad} of {len(images)} images"
        )
    return logits_NK


def share_of(count: float, total: int) -> list[float]:
    """Return the ends of a 95% interval of a share of ``total`` images."""
    interval = proportion_interval(count / total, total)
    return [interval.low, interval.high]


def as_json(value: Any) -> Json:
    """Return a frozen value as it comes back from a file."""
    content: Json = json.loads(json.dumps(dataclasses.asdict(value), allow_nan=False))
    return content
