"""Schedules: the JSON contract between search and replay, and functions that build them."""

import bisect
import itertools
import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from automix.configuration.base import Config, read_text, shown
from automix.errors import ConfigError, ScheduleError
from automix.files import sha256_of, write_text
from automix.operator_info import OPERATOR_FACTS, Operator

FORMAT = "automix-schedule"
VERSION = 1
# A schedule file may come from anywhere: what is larger than any search writes is not read.
MAX_SCHEDULE_BYTES = 4_000_000
MAX_SEGMENTS = 10_000


class Decision(Config):
    """Mixing of a batch: which operator, how strong, how often."""

    operator: Operator
    """Name of the mixing operator."""

    strength: float = Field(
        default_factory=lambda values: OPERATOR_FACTS[values["operator"]].strength.default
    )
    """The operator's own knob; its range and meaning are in `OPERATOR_FACTS`. Defaults to the
    published value."""

    probability: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Fraction of the batches that are mixed; the others stay as they are. In [0, 1]."""

    @model_validator(mode="after")
    def _strength_fits_the_operator(self) -> Self:
        facts = OPERATOR_FACTS[self.operator].strength
        if not facts.low <= self.strength <= facts.high:
            raise ValueError(
                f"expected a strength in [{facts.low:g}, {facts.high:g}] for {self.operator.value} "
                f"({facts.meaning}), got {self.strength:g}"
            )
        return self

    def label(self) -> str:
        """Return a short name, such as ``mixup 0.2 p=0.5``."""
        if self.operator is Operator.NONE or self.probability == 0:
            return "none"
        facts = OPERATOR_FACTS[self.operator].strength
        strength = f" {self.strength:g}" if facts.low < facts.high else ""
        probability = f" p={self.probability:g}" if self.probability < 1 else ""
        return f"{self.operator.value}{strength}{probability}"


class Segment(Config):
    """A decision and the fraction of the training run at which it begins."""

    start: Annotated[float, Field(ge=0, lt=1)]
    """Fraction of the training run at which the segment begins. In [0, 1)."""

    decision: Decision
    """Mixing of the batches from there to the next segment."""


class Schedule(Config):
    """Decisions over time, independent of the length of a training run and of the model.

    The decision of step t of T is that of the last segment whose start is at most t / T.

    Example:
        >>> from automix.operator_info import Operator
        >>> schedule = mix_then_off(Decision(operator=Operator.CUTMIX, probability=0.5))
        >>> [schedule.at(progress).label() for progress in (0.0, 0.5, 0.75)]
        ['cutmix 1 p=0.5', 'cutmix 1 p=0.5', 'none']
        >>> schedule.save(Path("schedule.json"))
        >>> Schedule.load(Path("schedule.json")) == schedule
        True
    """

    format: Literal["automix-schedule"] = "automix-schedule"
    """Says what kind of file this is."""

    version: Literal[1] = 1
    """Version of the format."""

    segments: Annotated[tuple[Segment, ...], Field(min_length=1, max_length=MAX_SEGMENTS)]
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
        return self

    def at(self, progress: float) -> Decision:
        """Return the decision at ``progress``, the fraction of the training run done, in [0, 1]."""
        if not 0 <= progress <= 1:
            raise ValueError(f"expected a progress in [0, 1], got {progress}")
        # The last segment that has begun; a segment begins exactly at its start, hence the right.
        num_begun = bisect.bisect_right(self.segments, progress, key=lambda segment: segment.start)
        return self.segments[num_begun - 1].decision

    def decisions(self, num_steps: int) -> list[Decision]:
        """Return the decision of every step of a training run of ``num_steps`` steps."""
        return [self.at(step / num_steps) for step in range(num_steps)]

    def holds_until(self, step: int, *, limit: int, num_steps: int) -> int:
        """Return the first step after ``step`` of another decision, or ``limit`` if that is before.

        ``num_steps`` is that of the whole training run.
        """
        decision = self.at(step / num_steps)
        stop = step + 1
        while stop < limit and self.at(stop / num_steps) == decision:
            stop += 1
        return stop

    def decision_hash(self) -> str:
        """Return a hash of the segments; provenance does not count."""
        # Not of the file: two schedules that train alike have the same hash, whoever wrote them.
        return sha256_of(json.dumps(self.model_dump(mode="json")["segments"]).encode())[:16]

    def to_json(self) -> str:
        """Return the file's text."""
        return json.dumps(self.model_dump(mode="json"), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, source: str) -> Self:
        """Parse the text of a schedule file.

        Raises:
            ScheduleError: not JSON, not a schedule, or an impossible one; names ``source``.
        """
        # Python's reader keeps the last of equal keys and accepts NaN and Infinity; other readers
        # do not, so both are refused.
        try:
            values = json.loads(
                text, object_pairs_hook=_refuse_duplicates, parse_constant=_refuse_constant
            )
        except (ValueError, RecursionError) as error:
            raise ScheduleError(f"{source}: expected a JSON schedule, got: {error}") from None
        if not isinstance(values, dict):
            raise ScheduleError(f"{source}: expected a JSON object, got {shown(values)}")
        # Before anything else: another kind of file has other problems as well. The type counts,
        # because True == 1 == 1.0 in Python and not in JSON.
        for key, expected in (("format", FORMAT), ("version", VERSION)):
            value = values.get(key)
            if type(value) is not type(expected) or value != expected:
                got = shown(value) if key in values else "nothing"
                raise ScheduleError(f"{source}: {key}: expected {expected!r}, got {got}")
        try:
            return cls.from_mapping(values, source=source)
        except ConfigError as error:
            raise ScheduleError(str(error)) from None

    def save(self, path: Path) -> None:
        """Write the schedule to ``path`` atomically."""
        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a schedule file.

        Raises:
            ScheduleError: the file is missing or is not a schedule.
        """
        try:
            text = read_text(path, limit=MAX_SCHEDULE_BYTES)
        except ConfigError as error:
            raise ScheduleError(str(error)) from None
        return cls.from_json(text, source=str(path))


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {key!r} is given twice")
        result[key] = value
    return result


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name}, which is not a number")


def decisions_hash(decisions: Sequence[Decision]) -> str:
    """Return a hash of a sequence of decisions, such as those of every step of a training run."""
    return sha256_of(*(decision.model_dump_json().encode() for decision in decisions))[:16]


def constant_decisions(operators: Sequence[Operator]) -> tuple[Decision, ...]:
    """Return every operator at each of its strengths, mixing every batch."""
    return tuple(
        Decision(operator=operator, strength=strength)
        for operator in operators
        for strength in OPERATOR_FACTS[operator].strength.levels
    )


def even_schedule(decisions: Sequence[Decision]) -> Schedule:
    """Return a schedule in which each decision holds for an equal fraction of the training run.

    Example:
        >>> from automix.operator_info import Operator
        >>> schedule = even_schedule([Decision(operator=name) for name in list(Operator)[1:5]])
        >>> [segment.start for segment in schedule.segments]
        [0.0, 0.25, 0.5, 0.75]
    """
    # k / n, rounded once: segment k then begins exactly at step k m of n m, for all n and m.
    count = len(decisions)
    return Schedule(
        segments=tuple(
            Segment(start=index / count, decision=decision)
            for index, decision in enumerate(decisions)
        )
    )


def constant_schedule(decision: Decision) -> Schedule:
    """Return a schedule that never changes."""
    return even_schedule([decision])


def random_schedule(choices: Sequence[Decision], *, num_segments: int, seed: int) -> Schedule:
    """Return a schedule of decisions drawn uniformly from ``choices``."""
    indices = np.random.default_rng(seed).integers(len(choices), size=num_segments)
    return even_schedule([choices[index] for index in indices])


def majority_schedule(rows: Sequence[Sequence[Decision]]) -> Schedule:
    """Return what most of ``rows`` do in each segment; of equally many, what an earlier does."""
    return even_schedule([max(column, key=column.count) for column in zip(*rows, strict=True)])


def linear_ramp(operator: Operator, *, num_segments: int, rising: bool = False) -> Schedule:
    """Return one operator whose probability goes linearly from 1 to 0, or from 0 to 1."""
    values = np.linspace(1.0, 0.0, num_segments) if num_segments > 1 else np.ones(1)
    ordered = values[::-1] if rising else values
    return even_schedule(
        [Decision(operator=operator, probability=float(value)) for value in ordered]
    )


def mix_then_off(decision: Decision, *, off_from: float = 0.75) -> Schedule:
    """Return a schedule that mixes until ``off_from``, a fraction of the training in (0, 1)."""
    off = Segment(start=off_from, decision=Decision(operator=Operator.NONE))
    return Schedule(segments=(Segment(start=0.0, decision=decision), off))


def shuffled_in_time(schedule: Schedule, *, seed: int) -> Schedule:
    """Return the same decisions for the same fractions of the training run, in random order."""
    # Added up as fractions, starts of k/n remain multiples of 1/n in whichever order. A segment so
    # short that no float lies between its new start and its end is left out.
    lengths = _lengths(schedule)
    order = np.random.default_rng(seed).permutation(len(lengths))
    ends = list(itertools.accumulate(lengths[index] for index in order))
    spans = itertools.pairwise(map(float, [Fraction(0), *ends]))
    return Schedule(
        segments=tuple(
            Segment(start=start, decision=schedule.segments[index].decision)
            for index, (start, end) in zip(order, spans, strict=True)
            if start < end
        )
    )


def marginal_matched(schedule: Schedule, *, seed: int) -> Schedule:
    """Return segments as long as those of ``schedule``, each with a decision drawn for itself.

    A decision is drawn with the fraction of the training run for which ``schedule`` holds it. Its
    expected fraction is then the same, while segments are independent: neither the order in time
    nor which decisions go together is left.
    """
    # Decisions weighed by the time they hold: the marginal distribution over operators stays.
    lengths = np.array([float(length) for length in _lengths(schedule)])
    drawn = np.random.default_rng(seed).choice(
        len(lengths), size=len(lengths), p=lengths / lengths.sum()
    )
    return Schedule(
        segments=tuple(
            Segment(start=segment.start, decision=schedule.segments[index].decision)
            for segment, index in zip(schedule.segments, drawn, strict=True)
        )
    )


def _lengths(schedule: Schedule) -> list[Fraction]:
    """Return the fraction of the training run that each segment takes."""
    starts = [_exact(segment.start) for segment in schedule.segments]
    return [end - start for start, end in itertools.pairwise([*starts, Fraction(1)])]


def _exact(start: float) -> Fraction:
    """Return the simple fraction that ``start`` was rounded from, or its own exact value."""
    # A float start of k / n is not k / n: 0.1 is 3602879701896397 / 2 ** 55. The nearest fraction
    # with a small denominator is, if it rounds to the same float.
    simple = Fraction(start).limit_denominator(MAX_SEGMENTS)
    return simple if float(simple) == start else Fraction(start)
