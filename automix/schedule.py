"""Decision, Segment, Schedule: the contract between search and replay, a versioned JSON file.

Free of torch and of any RL library: whatever can read JSON can read a schedule.
"""

import bisect
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from automix.config import Config
from automix.errors import ConfigError, ScheduleError
from automix.files import sha256_of, write_text
from automix.messages import shown
from automix.plain_yaml import read_text
from automix.vocabulary import OPERATOR_FACTS, Operator

FORMAT = "automix-schedule"
VERSION = 1
MAX_SCHEDULE_BYTES = 4_000_000
MAX_SEGMENTS = 10_000


def _published_strength(values: dict[str, Any]) -> float:
    return OPERATOR_FACTS[values["operator"]].strength.default


class Decision(Config):
    """How batches are mixed: which operator, how strong, how often."""

    operator: Operator
    """Name of the mixing operator."""

    strength: float = Field(default_factory=_published_strength)
    """The operator's own knob; its range and meaning are in `OPERATOR_FACTS`. Defaults to the
    published value."""

    probability: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the batches that are mixed; the others stay as they are. In [0, 1]."""

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
        share = f" p={self.probability:g}" if self.probability < 1 else ""
        return f"{self.operator.value}{strength}{share}"


class Segment(Config):
    """A decision and the share of the training at which it begins."""

    start: Annotated[float, Field(ge=0, lt=1)]
    """Where the segment begins, as a share of the training. In [0, 1)."""

    decision: Decision
    """How batches are mixed from there to the next segment."""


class Schedule(Config):
    """Which decision holds when; independent of the length of a training and of the model."""

    format: Literal["automix-schedule"] = "automix-schedule"
    """Says what kind of file this is."""

    version: Literal[1] = 1
    """Version of the format."""

    segments: Annotated[tuple[Segment, ...], Field(min_length=1, max_length=MAX_SEGMENTS)]
    """Segments in order; the first starts at 0 and starts increase."""

    provenance: Mapping[str, str] = Field(default_factory=dict)
    """Where the schedule comes from: hashes of configuration and data, versions, seed."""

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
        """Return the decision at ``progress``, the share of the training done, in [0, 1]."""
        if not 0 <= progress <= 1:
            raise ValueError(f"expected a progress in [0, 1], got {progress}")
        num_begun = bisect.bisect_right(self.segments, progress, key=lambda each: each.start)
        return self.segments[num_begun - 1].decision

    def decisions(self, num_steps: int) -> list[Decision]:
        """Return the decision of every step of a training of ``num_steps`` steps."""
        return [self.at(step / num_steps) for step in range(num_steps)]

    def holds_until(self, step: int, *, limit: int, num_steps: int) -> int:
        """Return the first step after ``step`` of another decision, or ``limit`` if that is before.

        Args:
            step: a step of a training.
            limit: a later one, or the number of steps.
            num_steps: of the whole training.
        """
        decision = self.at(step / num_steps)
        stop = step + 1
        while stop < limit and self.at(stop / num_steps) == decision:
            stop += 1
        return stop

    def decision_hash(self) -> str:
        """Return a hash of the segments; provenance does not count."""
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
        try:
            values = json.loads(
                text, object_pairs_hook=_refuse_duplicates, parse_constant=_refuse_constant
            )
        except (ValueError, RecursionError) as error:
            raise ScheduleError(f"{source}: expected a JSON schedule, got: {error}") from None
        if not isinstance(values, dict):
            raise ScheduleError(f"{source}: expected a JSON object, got {shown(values)}")
        # Told apart before anything else: another kind of file has other problems as well.
        for key, wanted in (("format", FORMAT), ("version", VERSION)):
            found = values.get(key)
            if type(found) is not type(wanted) or found != wanted:
                got = shown(found) if key in values else "nothing"
                raise ScheduleError(f"{source}: {key}: expected {wanted!r}, got {got}")
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


def decisions_hash(decisions: Sequence[Decision]) -> str:
    """Return a hash of a sequence of decisions, such as those of every step of a training."""
    return sha256_of(*(decision.model_dump_json().encode() for decision in decisions))[:16]


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {key!r} is given twice")
        result[key] = value
    return result


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name}, which is not a number")
