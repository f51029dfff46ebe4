"""``automix report``."""

from collections.abc import Sequence
from pathlib import Path

from automix.configuration.arguments import NoFlags, Signature, read_arguments

REPORT = Signature(
    command="automix report",
    summary="Write FOLDER/report.html, one self-contained page about the runs in a folder.",
    config=NoFlags,
    flags=NoFlags,
    words={"FOLDER": "folder of a run, or of several"},
)


def run(argv: Sequence[str]) -> None:
    """``automix report FOLDER``."""
    arguments = read_arguments(REPORT, argv)
    from automix.experiments.report import run as experiment

    print(f"report: {experiment.write_report(Path(arguments.words[0]))}")
