"""Show, plot and make schedule files."""

import functools
from pathlib import Path

from automix.errors import ConfigError
from automix.experiments.entries import build_schedule
from automix.files import write_bytes
from automix.reporting.canvas import light_png
from automix.reporting.figures.schedule import SchedulePanel, schedule_figure
from automix.schedule import Schedule
from envs.config import EnvironmentConfig


def describe(path: Path) -> str:
    """Return the segments and the provenance of a schedule file as text."""
    schedule = Schedule.load(path)
    ends = [segment.start for segment in schedule.segments[1:]] + [1.0]
    lines = [f"{path}: {len(schedule.segments)} segments, version {schedule.version}"]
    for segment, end in zip(schedule.segments, ends, strict=True):
        lines.append(f"  {segment.start:>7.1%} to {end:>7.1%}  {segment.decision.label()}")
    lines += [f"{key}: {value}" for key, value in schedule.provenance.items()]
    return "\n".join([*lines, f"decisions: {schedule.decision_hash()}"])


def plot(path: Path, picture: Path) -> Path:
    """Draw a schedule file as a PNG; return where it was written."""
    if picture.suffix.lower() != ".png":
        raise ConfigError(f"{picture}: expected a file name that ends in .png, got another")
    panel = SchedulePanel(title=path.name, schedules=(Schedule.load(path),))
    write_bytes(picture, light_png(functools.partial(schedule_figure, [panel])))
    return picture


def make(text: str, path: Path, environment: EnvironmentConfig | None = None) -> Path:
    """Write the schedule that ``text`` describes; return where it was written."""
    schedule = build_schedule(text, environment or EnvironmentConfig(), seed=0)
    provenance = {"origin": f"automix schedule make {text}"}
    schedule.model_copy(update={"provenance": provenance}).save(path)
    return path
