"""Schedules: the JSON contract between search and replay, and functions that build them."""

import bisect
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, overload

from pydantic import Field, ValidationError, model_validator

from automix.configuration.base import Config, first_problem
from automix.errors import ScheduleError
from automix.files import sha256_of, write_text
from automix.mixture import Decision, Mixing, Mixture, equal_mixture, weighted_mixture
from automix.operator_info import OPERATOR_FACTS, Operator
from automix.portfolio import portfolio_texts
from automix.readers import parse_json, read_text
from automix.schedule_file import (
    MAX_SCHEDULE_BYTES,
    MAX_SEGMENTS,
    Part,
    SegmentLimits,
    Start,
    read_values,
    to_values,
    version_of,
)

__all__ = [
    "MAX_DECISIONS", "MAX_SCHEDULE_BYTES", "MAX_SEGMENTS", "Decision", "Mixing", "Mixture",
    "Schedule", "Segment", "constant_decisions", "constant_schedule", "decisions_hash",
    "equal_mixture", "even_schedule", "exact_fraction", "in_turn", "linear_ramp",
    "majority_schedule", "mix_then_off", "mixture_then_off", "random_schedule",
    "strong_to_weak",
]  # fmt: skip

# With this many decisions the file of a schedule of mixtures is as large as one may be.
MAX_DECISIONS = 16_000


class Segment(Config):
    """A mixture, or a single decision, and the fraction of the training run at which it begins.

    Examples:
        >>> decision = Decision(operator="cutmix")
        >>> Segment(start=0, decision=decision) == Segment(start=0, mixture=Mixture.of(decision))
        True
    """

    start: Start
    """Fraction of the training run at which the segment begins. In [0, 1)."""

    mixture: Mixture
    """Mixing of the batches from there to the next segment."""

    if TYPE_CHECKING:

        @overload
        def __init__(self, *, start: float, decision: Decision) -> None: ...

        @overload
        def __init__(self, *, start: float, mixture: Mixture) -> None: ...

        def __init__(self, **_: Any) -> None: ...

    @model_validator(mode="before")
    @classmethod
    def _one_decision_is_a_mixture(cls, values: Any) -> Any:
        if isinstance(values, dict) and "decision" in values and "mixture" not in values:
            others = {name: value for name, value in values.items() if name != "decision"}
            return others | {"mixture": {"decisions": (values["decision"],)}}
        return values

    @property
    def decision(self) -> Decision:
        """The one decision of the segment.

        Raises:
            ValueError: it has several.
        """
        return self.mixture.decision


class Schedule(Config):
    """Mixing over time, independent of the length of a training run and of the model.

    The mixture of step t of T is that of the last segment whose start is at most t / T. Where it
    has a single decision, `at`, `decisions` and `Segment.decision` say that decision; of a mixture
    of several they refuse to name one.

    Examples:
        >>> from automix.operator_info import Operator
        >>> schedule = mix_then_off(Decision(operator=Operator.CUTMIX, probability=0.5))
        >>> [schedule.at(progress).label() for progress in (0.0, 0.5, 0.75)]
        ['cutmix 1 p=0.5', 'cutmix 1 p=0.5', 'none']
        >>> schedule.save(Path("schedule.json"))
        >>> Schedule.load(Path("schedule.json")) == schedule
        True
        >>> both = mixture_then_off([Decision(operator="cutmix"), Decision(operator="mixup")])
        >>> both.version, both.mixture_at(0.5).label()
        (2, 'cutmix 1 p=0.5 + mixup 1 p=0.5')
    """

    segments: Annotated[tuple[Segment, ...], SegmentLimits]
    """Segments in order; the first starts at 0 and starts increase."""

    provenance: Mapping[str, str] = Field(default_factory=dict)
    """Origin of the schedule: hashes of configuration and data, versions, seed."""

    @model_validator(mode="after")
    def _starts_increase_from_zero(self) -> Self:
        starts = [segment.start for segment in self.segments]
        if starts[0] != 0:
            raise ValueError(f"expected the first segment to start at 0, got {starts[0]}")
        for earlier, later in itertools.pairwise(starts):
            if later <= earlier:
                raise ValueError(f"expected starts that increase, got {later} after {earlier}")
        count = sum(len(segment.mixture.decisions) for segment in self.segments)
        if count > MAX_DECISIONS:
            raise ValueError(f"expected at most {MAX_DECISIONS} decisions in all, got {count}")
        return self

    @property
    def version(self) -> int:
        """Version of the file's format: 1, or 2 if a segment has several decisions."""
        return version_of(self._parts)

    @property
    def operators(self) -> tuple[Operator, ...]:
        """Operators of all decisions, sorted by name, each once."""
        return tuple(sorted({name for it in self.segments for name in it.mixture.operators}))

    def mixture_at(self, progress: float) -> Mixture:
        """Return the mixture at ``progress``, the fraction of the training run done, in [0, 1]."""
        if not 0 <= progress <= 1:
            raise ValueError(f"expected a progress in [0, 1], got {progress}")
        # The last segment that has begun; a segment begins exactly at its start, hence the right.
        num_begun = bisect.bisect_right(self.segments, progress, key=lambda segment: segment.start)
        return self.segments[num_begun - 1].mixture

    def at(self, progress: float) -> Decision:
        """Return the decision at ``progress``, the fraction of the training run done, in [0, 1].

        Raises:
            ValueError: a mixture of several decisions holds there; `mixture_at` returns it.
        """
        return self.mixture_at(progress).decision

    def mixtures(self, num_steps: int) -> list[Mixture]:
        """Return the mixture of every step of a training run of ``num_steps`` steps."""
        return [self.mixture_at(step / num_steps) for step in range(num_steps)]

    def decisions(self, num_steps: int) -> list[Decision]:
        """Return the decision of every step of a training run of ``num_steps`` steps.

        Raises:
            ValueError: a mixture of several decisions holds at one; `mixtures` returns all.
        """
        return [mixture.decision for mixture in self.mixtures(num_steps)]

    def holds_until(self, step: int, *, limit: int, num_steps: int) -> int:
        """Return the first step after ``step`` of another mixture, or ``limit`` if that is before.

        ``num_steps`` is that of the whole training run.
        """
        mixture = self.mixture_at(step / num_steps)
        stop = step + 1
        while stop < limit and self.mixture_at(stop / num_steps) == mixture:
            stop += 1
        return stop

    def without_repeats(self) -> Self:
        """Return the same schedule without the starts at which nothing changes.

        Examples:
            >>> len(even_schedule([Decision(operator="mixup")] * 4).without_repeats().segments)
            1
        """
        kept = [
            segment
            for before, segment in itertools.pairwise((None, *self.segments))
            if segment is not None and (before is None or before.mixture != segment.mixture)
        ]
        return self.model_copy(update={"segments": tuple(kept)})

    def at_starts(self, starts: Sequence[float]) -> Self:
        """Return the same mixtures with other starts, one for each segment."""
        segments = [
            Segment(start=start, mixture=segment.mixture)
            for start, segment in zip(starts, self.segments, strict=True)
        ]
        return self.model_copy(update={"segments": tuple(segments)})

    def averaged(self, starts: Sequence[float]) -> list[Mixture]:
        """Return the mean over time of the mixtures in each segment that begins at ``starts``.

        Examples:
            >>> schedule = mix_then_off(Decision(operator="cutmix"), off_from=0.75)
            >>> [mixture.label() for mixture in schedule.averaged([0.0, 0.5])]
            ['cutmix 1', 'cutmix 1 p=0.5']
        """
        cuts = sorted({*starts, 1.0, *(segment.start for segment in self.segments)})
        parts: list[list[tuple[Mixture, float]]] = [[] for _ in starts]
        for start, stop in itertools.pairwise(cuts):
            of_segment = parts[bisect.bisect_right(starts, start) - 1]
            mixture = self.mixture_at(start)
            if of_segment and of_segment[-1][0] == mixture:
                of_segment[-1] = mixture, of_segment[-1][1] + stop - start
            else:
                of_segment.append((mixture, stop - start))
        # Where nothing changes it is the mixture itself, without rounding.
        return [
            of_segment[0][0] if len(of_segment) == 1 else _mean(of_segment) for of_segment in parts
        ]

    def decision_hash(self) -> str:
        """Return a hash of the segments; provenance does not count."""
        # Not of the file: two schedules that train alike have the same hash, whoever wrote them.
        return sha256_of(json.dumps(self.to_plain()["segments"]).encode())[:16]

    @property
    def _parts(self) -> list[Part]:
        return [(segment.start, segment.mixture.decisions) for segment in self.segments]

    def to_plain(self) -> dict[str, Any]:
        """Return the values of the file, as plain values."""
        return to_values(self._parts, self.provenance)

    @classmethod
    def from_plain(cls, values: object, *, source: str = "schedule") -> Self:
        """Return the schedule of the values of a file.

        Raises:
            ScheduleError: they are those of no schedule, or of an impossible one; names ``source``.
        """
        file = read_values(values, source=source)
        try:
            return cls(
                segments=tuple(
                    Segment(start=start, mixture=Mixture(decisions=decisions))
                    for start, decisions in file.parts()
                ),
                provenance=file.provenance,
            )
        except ValidationError as error:
            raise ScheduleError(f"{source}: {first_problem(error, cls)}") from None

    def to_json(self) -> str:
        """Return the file's text."""
        return json.dumps(self.to_plain(), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, source: str) -> Self:
        """Parse the text of a schedule file.

        Raises:
            ScheduleError: not JSON, not a schedule, or an impossible one; names ``source``.
        """
        values = parse_json(text, source=source, error=ScheduleError, expected="a JSON schedule")
        return cls.from_plain(values, source=source)

    @classmethod
    def portfolio(cls) -> Mapping[str, Self]:
        """Return the schedules that ship by name, the one to try first first."""
        return {name: cls.from_json(text, source=name) for name, text in portfolio_texts().items()}

    @classmethod
    def recommended(cls) -> Self:
        """Return the schedule to use where nothing was searched: the first of the portfolio.

        Examples:
            >>> Schedule.recommended().mixture_at(1.0).label()
            'none'
        """
        return next(iter(cls.portfolio().values()))

    def save(self, path: Path) -> None:
        """Write the schedule to ``path`` atomically."""
        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a schedule file.

        Raises:
            ScheduleError: the file is missing or is not a schedule.
        """
        text = read_text(path, limit=MAX_SCHEDULE_BYTES, error=ScheduleError)
        return cls.from_json(text, source=str(path))


def _mean(parts: Sequence[tuple[Mixture, float]]) -> Mixture:
    total = math.fsum(length for _, length in parts)
    return weighted_mixture([(mixture, length / total) for mixture, length in parts])


def decisions_hash(mixings: Sequence[Mixing]) -> str:
    """Return a hash of a sequence, such as the decisions of every step of a training run.

    A mixture of one decision counts as that decision.
    """
    mixtures = map(Mixture.of, mixings)
    said = (it if len(it.decisions) > 1 else it.decisions[0] for it in mixtures)
    return sha256_of(*(it.model_dump_json().encode() for it in said))[:16]


def constant_decisions(operators: Sequence[Operator]) -> tuple[Decision, ...]:
    """Return every operator at each of its strengths, mixing every batch."""
    return tuple(
        Decision(operator=operator, strength=strength)
        for operator in operators
        for strength in OPERATOR_FACTS[operator].strength.levels
    )


def even_schedule(mixings: Sequence[Mixing]) -> Schedule:
    """Return a schedule in which each decision or mixture holds for an equal fraction of the run.

    Examples:
        >>> from automix.operator_info import Operator
        >>> schedule = even_schedule([Decision(operator=name) for name in list(Operator)[1:5]])
        >>> [segment.start for segment in schedule.segments]
        [0.0, 0.25, 0.5, 0.75]
    """
    # k / n, rounded once: segment k then begins exactly at step k m of n m, for all n and m.
    count = len(mixings)
    return Schedule(
        segments=tuple(
            Segment(start=index / count, mixture=Mixture.of(mixing))
            for index, mixing in enumerate(mixings)
        )
    )


def constant_schedule(mixing: Mixing) -> Schedule:
    """Return a schedule that never changes."""
    return even_schedule([mixing])


def random_schedule(choices: Sequence[Mixing], *, num_segments: int, seed: int) -> Schedule:
    """Return a schedule of decisions or mixtures drawn uniformly from ``choices``."""
    import numpy as np  # noqa: PLC0415 - `automix schedule show` has no use for it

    indices = np.random.default_rng(seed).integers(len(choices), size=num_segments)
    return even_schedule([choices[index] for index in indices])


def majority_schedule(rows: Sequence[Sequence[Mixing]]) -> Schedule:
    """Return what most of ``rows`` do in each segment; of equally many, what an earlier does."""
    return even_schedule([max(column, key=column.count) for column in zip(*rows, strict=True)])


def linear_ramp(operator: Operator, *, num_segments: int, rising: bool = False) -> Schedule:
    """Return one operator whose probability goes linearly from 1 to 0, or from 0 to 1."""
    import numpy as np  # noqa: PLC0415 - `automix schedule show` has no use for it

    values = np.linspace(1.0, 0.0, num_segments) if num_segments > 1 else np.ones(1)
    ordered = values[::-1] if rising else values
    return even_schedule(
        [Decision(operator=operator, probability=float(value)) for value in ordered]
    )


def mix_then_off(mixing: Mixing, *, off_from: float = 0.75) -> Schedule:
    """Return a schedule that mixes until ``off_from``, a fraction of the training in (0, 1)."""
    return _then_off([mixing], off_from=off_from)


def mixture_then_off(mixings: Sequence[Mixing], *, off_from: float = 0.875) -> Schedule:
    """Return a schedule in which each batch before ``off_from`` draws one of ``mixings``.

    All are equally likely; ``off_from`` is a fraction of the training run in (0, 1).

    Examples:
        >>> schedule = mixture_then_off([Decision(operator="cutmix"), Decision(operator="mixup")])
        >>> [(segment.start, segment.mixture.label()) for segment in schedule.segments]
        [(0.0, 'cutmix 1 p=0.5 + mixup 1 p=0.5'), (0.875, 'none')]
    """
    return _then_off([equal_mixture(mixings)], off_from=off_from)


def in_turn(mixings: Sequence[Mixing], *, num_segments: int, off_from: float = 0.875) -> Schedule:
    """Return a schedule of ``mixings`` in turn, in equal segments before ``off_from``.

    There are ``num_segments`` segments before ``off_from``, a fraction of the training run in
    (0, 1), and one without mixing from there on.

    Examples:
        >>> turns = [Decision(operator="cutmix", strength=2), Decision(operator="mixup")]
        >>> schedule = in_turn(turns, num_segments=3, off_from=0.75)
        >>> [(segment.start, segment.decision.label()) for segment in schedule.segments]
        [(0.0, 'cutmix 2'), (0.25, 'mixup 1'), (0.5, 'cutmix 2'), (0.75, 'none')]
    """
    repeated = itertools.islice(itertools.cycle(mixings), num_segments)
    return _then_off(list(repeated), off_from=off_from)


def strong_to_weak(operator: Operator, *, off_from: float = 0.875) -> Schedule:
    """Return a schedule of one operator whose strength steps down, and that ends without mixing.

    Its levels of strength hold for equal fractions of the training run before ``off_from``, which
    is in (0, 1).

    Examples:
        >>> schedule = strong_to_weak(Operator.CUTMIX, off_from=0.75)
        >>> [(segment.start, segment.decision.label()) for segment in schedule.segments]
        [(0.0, 'cutmix 2'), (0.25, 'cutmix 1'), (0.5, 'cutmix 0.2'), (0.75, 'none')]
    """
    levels = OPERATOR_FACTS[operator].strength.levels
    falling = [Decision(operator=operator, strength=level) for level in reversed(levels)]
    return _then_off(falling, off_from=off_from)


def _then_off(mixings: Sequence[Mixing], *, off_from: float) -> Schedule:
    # As fractions: a third of 3/4 begins exactly where a quarter of the training run does.
    length = exact_fraction(off_from) / len(mixings)
    segments = [
        Segment(start=float(index * length), mixture=Mixture.of(mixing))
        for index, mixing in enumerate(mixings)
    ]
    off = Segment(start=off_from, decision=Decision(operator=Operator.NONE))
    return Schedule(segments=(*segments, off))


def exact_fraction(start: float) -> Fraction:
    """Return the simple fraction that ``start`` was rounded from, or its own exact value."""
    # A float start of k / n is not k / n: 0.1 is 3602879701896397 / 2 ** 55. The nearest fraction
    # with a small denominator is, if it rounds to the same float.
    simple = Fraction(start).limit_denominator(MAX_SEGMENTS)
    return simple if float(simple) == start else Fraction(start)
