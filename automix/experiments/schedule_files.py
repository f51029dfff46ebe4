"""Schedule files on the command line: described, and the one to use where nothing was searched.

Nothing here trains or draws, so neither torch nor a plotting library is loaded.
"""

from collections.abc import Iterator
from pathlib import Path

from automix.escapes import one_line
from automix.schedule import Schedule
from automix.schedule_words import in_words, timm_flags


def describe(path: Path) -> str:
    """Return the segments and the provenance of a schedule file as text."""
    schedule = Schedule.load(path)
    # A segment ends where the next begins; the last one, with the training run.
    ends = [segment.start for segment in schedule.segments[1:]] + [1.0]
    lines = [f"{one_line(path)}: {len(schedule.segments)} segments, version {schedule.version}"]
    for segment, end in zip(schedule.segments, ends, strict=True):
        lines.append(f"  {segment.start:>7.1%} to {end:>7.1%}  {segment.mixture.label()}")
    lines += [f"in words: {in_words(schedule)}", f"nearest flags of timm: {timm_flags(schedule)}"]
    lines += [f"{one_line(key)}: {one_line(value)}" for key, value in schedule.provenance.items()]
    return "\n".join([*lines, f"decisions: {schedule.decision_hash()}"])


def recommend(path: Path) -> Iterator[str]:
    """Write the first schedule that ships to ``path``; yield lines about it and the others."""
    schedules = Schedule.portfolio()
    first, *others = schedules
    schedules[first].save(path)
    yield f"recommended where nothing was searched: {first}"
    yield "others that ship (automix schedule make portfolio:NAME FILE):"
    yield from (f"  {name}" for name in others)
    yield f"schedule: {one_line(path)}"
