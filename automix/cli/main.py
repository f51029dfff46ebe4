"""``automix COMMAND ...``: finds the command, prints one line for what a user got wrong."""

import importlib
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FrameType, MappingProxyType

import automix
from automix.errors import AutoMixError

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A subcommand; its module is imported only when it runs, so that help is instant.

    Attributes:
        module: module with the function.
        function: takes the words after the command.
        summary: one line for the help.
    """

    module: str
    function: str
    summary: str


def _command(name: str, summary: str) -> Command:
    return Command(module="automix.cli.commands", function=f"run_{name}", summary=summary)


COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "search": _command("search", "learn a mixing schedule: PPO on whole trainings, selection"),
        "replay": _command("replay", "train one classifier with a schedule file"),
        "compare": _command("compare", "train several schedules with paired seeds; intervals"),
        "report": _command("report", "write one HTML page about the runs in a folder"),
        "show": _command("show", "contact sheets of each operator on your own images"),
        "schedule": _command("schedule", "show, plot or make a schedule file"),
        "config": _command("config", "print the complete configuration of a command"),
    }
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code.

    0: done. 2: what the user gave does not fit; one line says what was expected. 130:
    interrupted; the same command continues.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0
    if words[0] == "--version":
        print(f"automix {automix.__version__}")
        return 0
    if words[0] not in COMMANDS:
        names = ", ".join(COMMANDS)
        return _complain(f"automix: expected one of {names}, got {words[0]!r}")
    return _run(COMMANDS[words[0]], words[1:])


def _run(command: Command, words: Sequence[str]) -> int:
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        getattr(importlib.import_module(command.module), command.function)(words)
    except AutoMixError as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command continues where it stopped\n")
        return EXIT_INTERRUPTED
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: automix COMMAND ...",
            "",
            "Learns how to mix training images: which operator, how strong, how often and when.",
            "",
            *lines,
            "",
            "automix COMMAND --help explains every field of a command.",
        ]
    )


def _complain(text: str) -> int:
    sys.stderr.write(" ".join(text.split()) + "\n")
    return EXIT_USAGE


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt
