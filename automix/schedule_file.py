"""The text of a schedule file: version 1 has a decision in each segment, version 2 a mixture.

A file is checked against the version that it names, so that a message speaks of its own keys.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import Field

from automix.configuration.base import Config, shown
from automix.errors import ConfigError, ScheduleError
from automix.mixture import Decision, WeightedDecisions

FORMAT = "automix-schedule"
# A schedule file may come from anywhere: what is larger than any search writes is not read.
MAX_SCHEDULE_BYTES = 4_000_000
MAX_SEGMENTS = 10_000

Start = Annotated[float, Field(ge=0, lt=1)]
SegmentLimits = Field(min_length=1, max_length=MAX_SEGMENTS)
Part = tuple[float, tuple[Decision, ...]]
"""Start and decisions of a segment."""


class _SegmentOf1(Config):
    start: Start
    decision: Decision


class _SegmentOf2(Config):
    start: Start
    mixture: WeightedDecisions


class _File(Config):
    format: Literal["automix-schedule"]
    version: int
    provenance: Mapping[str, str] = Field(default_factory=dict)


class _FileOf1(_File):
    segments: Annotated[tuple[_SegmentOf1, ...], SegmentLimits]

    def parts(self) -> list[Part]:
        return [(segment.start, (segment.decision,)) for segment in self.segments]


class _FileOf2(_File):
    segments: Annotated[tuple[_SegmentOf2, ...], SegmentLimits]

    def parts(self) -> list[Part]:
        return [(segment.start, segment.mixture) for segment in self.segments]


ScheduleFile = _FileOf1 | _FileOf2
_VERSIONS: Mapping[int, type[_FileOf1 | _FileOf2]] = MappingProxyType({1: _FileOf1, 2: _FileOf2})


def version_of(parts: Sequence[Part]) -> int:
    """Return the oldest version that can say ``parts``: older readers then read the file too."""
    return 1 if all(len(decisions) == 1 for _, decisions in parts) else 2


def to_values(parts: Sequence[Part], provenance: Mapping[str, str]) -> dict[str, Any]:
    """Return the plain values of a file."""
    version = version_of(parts)
    segments = []
    for start, decisions in parts:
        plain = [decision.model_dump(mode="json") for decision in decisions]
        said = {"decision": plain[0]} if version == 1 else {"mixture": plain}
        segments.append({"start": start, **said})
    return {
        "format": FORMAT,
        "version": version,
        "segments": segments,
        "provenance": dict(provenance),
    }


def read_values(values: object, *, source: str) -> ScheduleFile:
    """Validate the plain values of a file.

    Raises:
        ScheduleError: they are those of no schedule; names ``source``.
    """
    if not isinstance(values, dict):
        raise ScheduleError(f"{source}: expected a JSON object, got {shown(values)}")
    # Before anything else: another kind of file has other problems as well. The type counts,
    # because True == 1 == 1.0 in Python and not in JSON.
    for key, choices in (("format", (FORMAT,)), ("version", tuple(_VERSIONS))):
        value = values.get(key)
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            expected = " or ".join(map(repr, choices))
            got = shown(value) if key in values else "nothing"
            raise ScheduleError(f"{source}: {key}: expected {expected}, got {got}")
    # Before they are validated: every wrong segment is several problems, of a kilobyte each.
    segments = values.get("segments")
    if isinstance(segments, list) and len(segments) > MAX_SEGMENTS:
        raise ScheduleError(
            f"{source}: segments: expected at most {MAX_SEGMENTS}, got {len(segments)}"
        )
    try:
        return _VERSIONS[values["version"]].from_mapping(values, source=source)
    except ConfigError as error:
        raise ScheduleError(str(error)) from None
