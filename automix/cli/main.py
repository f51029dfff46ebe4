"""Refuses foreign packages that are called as two of ours are."""

import contextlib
import importlib
import importlib.util
import io
import logging
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, MappingProxyType

import automix
from automix.errors import AutoMixError

_NAMES = ("agents", "envs")


def check_siblings(names: tuple[str, ...] = _NAMES) -> None:
    """Check, without importing them, that ``envs`` and ``agents`` lie beside ``automix``.

    Other distributions install packages of these names too, such as openai-agents. Theirs would
    fail somewhere in their own imports, with a message that names neither them nor us.

    Raises:
        AutoMixError: one of them is somebody else's, or missing.
    """
    home = Path(automix.__file__).parents[1]
    for name in names:
        found = importlib.util.find_spec(name)
        origin = found.origin if found else None
        if origin is None or Path(origin).parents[1] != home:
            raise AutoMixError(
                f"{name}: expected the package in {home}, got {origin or 'none'}; install AutoMix "
                "into a virtual environment of its own"
            )


CONFIG_NAME = "config.yaml"


class Interrupted(KeyboardInterrupt):
    """A command was interrupted; the text says how to continue."""


@contextlib.contextmanager
def continued_by(
    output: Path, *words: str, mark: str | None = CONFIG_NAME, launcher: str = "automix"
) -> Iterator[None]:
    """Say how to continue the run in ``output`` when the body is interrupted.

    Args:
        output: folder of the run.
        words: the command and the files that start the same run again, such as ``search`` and the
            configuration in the folder; ``--output`` is added, unless they say ``--resume``.
        mark: the file in the folder that shows that there is something to continue; None where
            there always is.
        launcher: what starts the command.

    Raises:
        Interrupted: the body was, once there was something to continue.
        AutoMixError: a worker process ended before its work did.
        OSError: of the body; a nameless one, such as a full disk, gets the name of the folder.
    """
    if "--resume" not in words:
        words = (*words, "--output", str(output))
    command = f"{launcher} {shlex.join(words)}"
    try:
        yield
    except KeyboardInterrupt:
        if mark is not None and not (output / mark).exists():
            raise
        raise Interrupted(f"continue with: {command}") from None
    except (BrokenExecutor, ConnectionError, EOFError) as error:
        # What the parent sees of a worker that was killed, or failed with a traceback of its own.
        raise AutoMixError(
            f"{output}: expected worker processes to keep running, got one that ended early, "
            f"killed for its memory perhaps; continue with: {command}"
        ) from error
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(output)) from error


def os_error_line(error: OSError) -> str:
    """Return what the operating system refused, as one line for users."""
    where = "automix" if error.filename is None else error.filename
    reason = (error.strerror or str(error)).lower()
    return f"{where}: expected a place that can be read and written, got: {reason}"


EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
# As of a program that SIGPIPE ended: 128 + 13.
EXIT_CLOSED_PIPE = 141


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A subcommand; its module is imported only when it runs, so that help is instant.

    Attributes:
        module: its function ``run`` takes the words after the command.
        summary: one line for the help.
    """

    module: str
    summary: str


def _command(name: str, summary: str) -> Command:
    return Command(module=f"automix.cli.commands.{name}", summary=summary)


COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "search": _command(
            "search", "learn a mixing schedule: PPO on whole training runs, selection"
        ),
        "replay": _command("replay", "train one classifier with a schedule file"),
        "compare": _command("compare", "train several schedules with paired seeds; intervals"),
        "ablate": _command("ablate", "run a sweep of experiments; finished cells never again"),
        "evaluate": _command("evaluate", "measure a trained classifier: calibration, robustness"),
        "card": _command("card", "write a model card for a classifier or a policy"),
        "probe": _command("probe", "find out whether a search can pay, and what it takes"),
        "transfer": _command("transfer", "compare rankings on a cheap task and on the real one"),
        "report": _command("report", "write one HTML page about the runs in a folder"),
        "show": _command("show", "contact sheets of each operator on your own images"),
        "schedule": _command("schedule", "show, plot or make a schedule file"),
        "config": _command("config", "print the complete configuration of a command"),
    }
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code.

    0: done. 2: what the user gave does not fit, or the system refuses to read or write; one line
    says what was expected. 130: interrupted; one line says how to continue. 141: whatever read the
    output, such as ``head``, is gone.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal or file that cannot show a frame of the help or a name gets "?" for it.
        sys.stdout.reconfigure(errors="replace")
    try:
        code = _run(words)
        sys.stdout.flush()
    except AutoMixError as error:
        return _complain(str(error))
    except KeyboardInterrupt as interruption:
        _say("; ".join(filter(None, ("interrupted", str(interruption)))))
        return EXIT_INTERRUPTED
    except OSError as error:
        if error.filename is None and isinstance(_output_error(), BrokenPipeError):
            return EXIT_CLOSED_PIPE
        return _complain(os_error_line(error), is_of_all=False)
    except SystemExit as end:
        # Only help ends this way.
        return int(end.code or 0)
    return code


def _run(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0
    if words[0] == "--version":
        print(f"automix {automix.__version__}")
        return 0
    if words[0] not in COMMANDS:
        # Slow to import, for a help text.
        hint = importlib.import_module("automix.configuration.base").did_you_mean(
            words[0], COMMANDS
        )
        names = ", ".join(COMMANDS)
        return _complain(f"automix: expected one of {names}, got {words[0]!r}{hint}")
    command = COMMANDS[words[0]]
    check_siblings()
    logging.basicConfig(format="%(message)s")
    for package in ("automix", "agents", "envs"):
        logging.getLogger(package).setLevel(logging.INFO)
    with _termination_as_interrupt():
        importlib.import_module(command.module).run(words[1:])
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


def _complain(text: str, *, is_of_all: bool = True) -> int:
    _say(text, is_of_all=is_of_all)
    return EXIT_USAGE


def _say(text: str, *, is_of_all: bool = True) -> None:
    """Write one line; of the processes that torchrun starts on a machine, one speaks for all."""
    rank = os.environ.get("LOCAL_RANK", "0")
    if rank == "0" or not is_of_all:
        sys.stderr.write(" ".join(text.split()) + "\n")


@contextlib.contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the body as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _output_error() -> OSError | None:
    """Return what keeps standard output from being written, and leave it to nobody, or None."""
    try:
        # The pipe to a worker breaks with the same error as ours; writing tells which one it was.
        print(flush=True)
    except OSError as error:
        # The interpreter flushes once more when it ends, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    return None
