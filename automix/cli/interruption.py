"""What to say when a command is stopped, or cannot read or write."""

import contextlib
import shlex
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path

from automix.errors import AutoMixError

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
