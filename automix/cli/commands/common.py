"""What commands that write a run folder have in common, and groups of commands."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from automix.configuration.arguments import Signature
from automix.configuration.base import Config, did_you_mean
from automix.errors import ConfigError

SCHEDULE_WORD = "SCHEDULE.json"


class RunFlags(Config):
    """Flags of commands that write a run folder."""

    output: Path | None = None
    """Folder of the run; by default one in runs/ that is named after the configuration. An
    interrupted run in it is continued, a finished one is left alone."""

    dry_run: bool = False
    """Print what would be trained and about how long it would take, and stop."""


def dispatch(
    argv: Sequence[str],
    commands: Mapping[str, Callable[[Sequence[str]], None]],
    signatures: Sequence[Signature[Any, Any]],
) -> None:
    """Run the command that the first word names.

    Raises:
        ConfigError: there is none of that name.
    """
    if not argv or argv[0] in ("-h", "--help"):
        usages = [f"{signature.usage} [OPTIONS]" for signature in signatures]
        print("usage: " + "\n       ".join(usages))
        print("\nEach explains its words and fields with --help.")
        return
    if argv[0] not in commands:
        group = signatures[0].command.rpartition(" ")[0]
        raise ConfigError(
            f"{group}: expected one of {', '.join(commands)}, got {argv[0]!r}"
            f"{did_you_mean(argv[0], commands)}"
        )
    commands[argv[0]](argv[1:])


def run_output(flags: RunFlags, name: str) -> Path:
    """Return the folder of the run; refused here, because the experiment takes seconds to load.

    Raises:
        ConfigError: there is a file of that name.
    """
    output = flags.output or Path("runs") / name
    if output.exists() and not output.is_dir():
        raise ConfigError(f"--output: expected a folder, got the file {output}")
    return output
