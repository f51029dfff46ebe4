"""``automix card``."""

from collections.abc import Sequence
from pathlib import Path

from automix.configuration.arguments import Signature, read_arguments
from automix.configuration.base import Config
from automix.experiments.config import CardConfig


class CardFlags(Config):
    """Flags of ``automix card``."""

    output: Path | None = None
    """File of the card. Default: README.md in the folder of the run, where the Hub looks for it."""

    overwrite: bool = False
    """Replace a file that is there and differs."""


CARD = Signature(
    command="automix card",
    summary=str(CardConfig.__doc__),
    config=CardConfig,
    flags=CardFlags,
    words={"RUN": "folder of a finished replay or search"},
)


def run(argv: Sequence[str]) -> None:
    """``automix card RUN [flags]``."""
    arguments = read_arguments(CARD, argv)
    folder, flags = Path(arguments.words[0]), arguments.flags
    from automix.experiments.report import card as experiment

    path = experiment.write_card(
        folder,
        arguments.config,
        output=flags.output or folder / experiment.CARD_NAME,
        overwrite=flags.overwrite,
    )
    print(f"card: {path}")
