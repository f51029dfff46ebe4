"""``automix config COMMAND``."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from automix.cli.commands.common import dispatch
from automix.cli.commands.compare import COMPARE
from automix.cli.commands.evaluate import EVALUATE
from automix.cli.commands.probe import PROBE
from automix.cli.commands.replay import REPLAY
from automix.cli.commands.search import SEARCH
from automix.cli.commands.transfer import TRANSFER
from automix.configuration.arguments import NoFlags, Signature, read_arguments

CONFIGS: Mapping[str, Signature[Any, NoFlags]] = MappingProxyType(
    {
        signature.command.rpartition(" ")[2]: Signature(
            command=signature.command.replace("automix", "automix config"),
            summary="Print the complete configuration, defaults included, as YAML.",
            config=signature.config,
            flags=NoFlags,
            words={},
            takes_file=True,
        )
        for signature in (SEARCH, PROBE, TRANSFER, REPLAY, COMPARE, EVALUATE)
    }
)


def run(argv: Sequence[str]) -> None:
    """``automix config COMMAND [CONFIG.yaml] [flags]``."""
    commands = {name: _printer(signature) for name, signature in CONFIGS.items()}
    dispatch(argv, commands, tuple(CONFIGS.values()))


def _printer(signature: Signature[Any, NoFlags]) -> Callable[[Sequence[str]], None]:
    def print_config(argv: Sequence[str]) -> None:
        print(read_arguments(signature, argv).config.to_yaml(), end="")

    return print_config
