"""The command line: argv to the handler of a command, lines to print, exit codes."""

import contextlib
import importlib
import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import automix
from automix.configuration.command import Command
from automix.errors import AutoMixError, ConfigError
from automix.escapes import one_line, visible
from automix.experiments.commands import COMMANDS

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
# As of a program that SIGPIPE ended: 128 + 13.
EXIT_CLOSED_PIPE = 141

_HELP = ("-h", "--help")
# Of an error: a file may be quoted in it. What is to be done stands at the end.
_LONGEST_LINE = 4000


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code.

    0: done. 2: an argument, file or folder does not fit, or the system refuses to read or write;
    one line says what was expected. 130: interrupted; one line says how to resume. 141: the reader
    of the output, such as ``head``, is gone.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal or file that cannot show a frame of the help or a name gets "?" for it.
        sys.stdout.reconfigure(errors="replace")
    try:
        command, rest = _command_of(argv)
        if command is None or not command.handler:
            print(_general_help(argv))
        else:
            # Everything else is imported here: the general help has no time for it.
            _named("automix.cli.checks:check_siblings")()
            _named("automix.cli.logs:show_own_logs")()
            read_arguments = _named("automix.configuration.arguments:read_arguments")
            with _sigterm_as_interrupt():
                arguments = read_arguments(command, rest)
                # The handler is called from here, and calls the experiment: a traceback or a
                # profile has nothing of the command line's in between.
                for text in _named(command.handler)(command, arguments):
                    print(visible(text), flush=True)
        sys.stdout.flush()
    except AutoMixError as error:
        _say(str(error))
        return EXIT_USAGE
    except KeyboardInterrupt as interruption:
        _say("; ".join(filter(None, ("interrupted", str(interruption)))))
        return EXIT_INTERRUPTED
    except OSError as error:
        if error.filename is None and isinstance(_output_error(), BrokenPipeError):
            return EXIT_CLOSED_PIPE
        _say(os_error_line(error), every_process=True)
        return EXIT_USAGE
    except SystemExit as end:
        # Only help ends this way.
        if isinstance(end.code, str):
            print(visible(end.code))
    return 0


def _command_of(argv: Sequence[str]) -> tuple[Command | None, Sequence[str]]:
    """Return the command that the first words name, and the rest; None for the general help.

    Raises:
        ConfigError: there is none of that name.
    """
    if not argv or argv[0] in (*_HELP, "--version"):
        return None, argv
    # Two words first: `automix ablate list` is a command, and `automix ablate` another.
    for length in (2, 1):
        command = COMMANDS.get(" ".join(argv[:length]))
        if command is None or not (command.handler or command.summary):
            continue
        rest = argv[length:]
        if not command.handler and rest and rest[0] not in _HELP:
            names = [name.split()[1] for name in COMMANDS if name.startswith(f"{command.name} ")]
            raise _unknown(f"automix {command.name}", rest[0], names)
        return command, rest
    raise _unknown("automix", argv[0], [c.name for c in COMMANDS.values() if c.summary])


def _unknown(where: str, word: str, names: Sequence[str]) -> ConfigError:
    # Imports pydantic, which the general help has no time for.
    hint = _named("automix.configuration.base:did_you_mean")(word, names)
    return ConfigError(f"{where}: expected one of {', '.join(names)}, got {word!r}{hint}")


def _general_help(argv: Sequence[str]) -> str:
    """Return the version, the list of commands, or that of a group of commands."""
    if argv and argv[0] == "--version":
        return f"automix {automix.__version__}"
    if argv and argv[0] not in _HELP:
        members = [c for c in COMMANDS.values() if c.name.startswith(f"{argv[0]} ")]
        usages = "\n       ".join(f"{member.usage} [OPTIONS]" for member in members)
        return f"usage: {usages}\n\nEach explains its words and fields with --help."
    listed = [command for command in COMMANDS.values() if command.summary]
    width = max(len(command.name) for command in listed)
    return "\n".join(
        [
            "usage: automix COMMAND ...",
            "",
            "Learns how to mix training images: which operator, how strong, how often and when.",
            "",
            *(f"  {command.name:<{width}}  {command.summary}" for command in listed),
            "",
            "automix COMMAND --help explains every field of a command.",
        ]
    )


def _named(name: str) -> Any:
    """Import what is named as ``module:name``."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the body as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(text: str, *, every_process: bool = False) -> None:
    """Write one line; of the processes that torchrun starts on a machine, one speaks for all."""
    if every_process or os.environ.get("LOCAL_RANK", "0") == "0":
        line = one_line(" ".join(text.split()))
        if len(line) > _LONGEST_LINE:
            half = _LONGEST_LINE // 2
            line = f"{line[:half]} ... {line[-half:]}"
        sys.stderr.write(f"{line}\n")


def os_error_line(error: OSError) -> str:
    """Return the refusal of the operating system as one line for users."""
    where = "automix" if error.filename is None else error.filename
    reason = (error.strerror or str(error)).lower()
    return f"{where}: expected a place that can be read and written, got: {reason}"


def _output_error() -> OSError | None:
    """Return the error that keeps standard output from being written, or None; then silence it."""
    try:
        # The pipe to a worker breaks with the same error as ours; writing tells which one it was.
        print(flush=True)
    except OSError as error:
        # The interpreter flushes once more when it ends, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    return None
