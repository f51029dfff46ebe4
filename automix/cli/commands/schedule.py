"""``automix schedule show`` and ``automix schedule make``."""

from collections.abc import Sequence
from pathlib import Path

from automix.cli.commands.common import SCHEDULE_WORD, dispatch
from automix.configuration.arguments import NoFlags, Signature, read_arguments
from automix.configuration.base import Config


class PlotFlags(Config):
    """Flags of ``automix schedule show``."""

    plot: Path | None = None
    """PNG file to draw the schedule to. Default: no drawing."""


SCHEDULE_SHOW = Signature(
    command="automix schedule show",
    summary="Print a schedule file, and draw it on request.",
    config=NoFlags,
    flags=PlotFlags,
    words={SCHEDULE_WORD: "schedule to show"},
)
SCHEDULE_MAKE = Signature(
    command="automix schedule make",
    summary="Write a schedule file from a description.",
    config=NoFlags,
    flags=NoFlags,
    words={
        "DESCRIPTION": "none, constant:OPERATOR[:STRENGTH[:SHARE]], ramp:OPERATOR (strong to weak),"
        " mix_then_off:OPERATOR, random, shuffled:SCHEDULE.json, or"
        " marginal_matched:SCHEDULE.json",
        SCHEDULE_WORD: "file to write",
    },
)


def run(argv: Sequence[str]) -> None:
    """``automix schedule show FILE`` and ``automix schedule make DESCRIPTION FILE``."""
    commands = {"show": _show_schedule, "make": _make_schedule}
    dispatch(argv, commands, (SCHEDULE_SHOW, SCHEDULE_MAKE))


def _show_schedule(argv: Sequence[str]) -> None:
    arguments = read_arguments(SCHEDULE_SHOW, argv)
    from automix.experiments.compare import schedule_specs as experiment

    file, picture = Path(arguments.words[0]), arguments.flags.plot
    text = experiment.describe(file)
    if picture is not None:
        text += f"\nplot: {experiment.plot(file, picture)}"
    print(text)


def _make_schedule(argv: Sequence[str]) -> None:
    description, file = read_arguments(SCHEDULE_MAKE, argv).words
    from automix.experiments.compare import schedule_specs as experiment

    print(f"schedule: {experiment.make(description, Path(file))}")
