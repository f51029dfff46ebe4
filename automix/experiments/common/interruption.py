"""Interruptions of a command: how to resume what it did."""

import contextlib
import shlex
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path

from automix.errors import AutoMixError, WorkerError
from automix.worker_processes import naming_stopped_workers


class Interrupted(KeyboardInterrupt):
    """A command was interrupted; the text says how to continue."""


@contextlib.contextmanager
def resumable(
    output: Path, *command: str, mark: str | None = "config.yaml", launcher: str = "automix"
) -> Iterator[None]:
    """Say how to resume the run in ``output`` when the body is interrupted.

    Args:
        output: folder of the run.
        command: the command and the files that start the same run again, such as ``search`` and
            the configuration in the folder; ``--output`` is added, unless they say ``--resume``.
        mark: the file in the folder that shows that there is something to resume; None where
            there always is.
        launcher: program that starts the command.

    Raises:
        Interrupted: the body was, once there was something to resume.
        AutoMixError: worker processes ended before their work did.
        OSError: of the body; a nameless one, such as a full disk, gets the name of the folder.
    """
    if "--resume" not in command:
        command = (*command, "--output", str(output))
    again = f"{launcher} {shlex.join(command)}"
    try:
        with naming_stopped_workers():
            yield
    except KeyboardInterrupt:
        if mark is not None and not (output / mark).exists():
            raise
        raise Interrupted(f"continue with: {again}") from None
    except WorkerError as error:
        raise WorkerError(f"{error}; continue with: {again}") from error
    except (BrokenExecutor, ConnectionError, EOFError) as error:
        # The parent's view of another worker that was killed, such as one of a library.
        raise AutoMixError(
            f"{output}: expected worker processes to keep running, got one that ended early, "
            f"killed for its memory perhaps; continue with: {again}"
        ) from error
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(output)) from error
