"""``automix show``."""

from collections.abc import Sequence
from pathlib import Path

from automix.configuration.arguments import NoFlags, Signature, read_arguments
from automix.experiments.config import ShowConfig

SHOW = Signature(
    command="automix show",
    summary=str(ShowConfig.__doc__),
    config=ShowConfig,
    flags=NoFlags,
    words={"FOLDER": "folder of images, searched at any depth"},
)


def run(argv: Sequence[str]) -> None:
    """``automix show FOLDER [flags]``."""
    arguments = read_arguments(SHOW, argv)
    from automix.experiments import show as experiment

    for path in experiment.show(Path(arguments.words[0]), arguments.config):
        print(path)
