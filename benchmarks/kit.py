"""Runs commands one after the other, each within its time, and keeps what is done.

What a part measured is in the file of the kit as soon as the part has ended, so that a kit which
was interrupted, or whose machine was taken away, resumes with the parts that are missing.
"""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from automix.files import write_json

DONE, FAILED, LATE = "done", "failed", "over its time"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A command with a time limit.

    Attributes:
        name: key of its result, and name of its log.
        command: arguments of Python, quoted as in a shell; ``{json}`` and ``{folder}`` stand for
            the file into which it writes its figures and for a folder of its own.
        seconds: its time limit; it may also use what the parts before it have not.
    """

    name: str
    command: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Result:
    """The outcome of a part.

    Attributes:
        state: done, failed, or over its time.
        seconds: wall-clock time that it took.
        last_line: of what it printed.
        command: that of the part; another command is another part.
        figures: what it wrote as JSON, if it was done and wrote something.
    """

    state: str
    seconds: float
    last_line: str
    command: str
    figures: Any = None


def run_parts(
    parts: Sequence[Part], *, file: Path, hardware: Mapping[str, object], again: bool = False
) -> dict[str, Any]:
    """Run the parts that ``file`` does not have as done, or all of them with ``again``.

    Logs and files of the parts are beside ``file``, which is written after each part.

    Returns:
        The content of ``file``: the hardware and the result of each part.

    Raises:
        ValueError: ``file`` is of other hardware.
    """
    content: dict[str, Any] = {"hardware": dict(hardware), "parts": {}}
    if file.exists() and not again:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["hardware"] != dict(hardware):
            raise ValueError(
                f"{file}: expected figures of this machine and release of PyTorch, got others; "
                "--again measures all parts"
            )
    file.parent.mkdir(parents=True, exist_ok=True)
    results = content["parts"]
    pending = [part for part in parts if not _is_done(part, results.get(part.name))]
    started, allowed = time.monotonic(), 0.0
    for part in pending:
        allowed += part.seconds
        limit = started + allowed - time.monotonic()
        print(f"{part.name}: at most {limit:.0f} s", flush=True)
        result = run_part(part, folder=file.parent, limit=limit)
        results[part.name] = asdict(result)
        write_json(file, content)
        print(
            f"{part.name}: {result.state}, {result.seconds:.0f} s: {result.last_line}", flush=True
        )
    return content


def _is_done(part: Part, result: Mapping[str, Any] | None) -> bool:
    return result is not None and result["state"] == DONE and result["command"] == part.command


def run_part(part: Part, *, folder: Path, limit: float) -> Result:
    """Run one part for at most ``limit`` seconds, and end whatever it started."""
    log, figures, outputs = (
        folder / f"{part.name}{suffix}" for suffix in (".log", ".json", ".files")
    )
    figures.unlink(missing_ok=True)
    # A search that was interrupted would resume, and its time would be that of a rest.
    shutil.rmtree(outputs, ignore_errors=True)
    places = {"{json}": str(figures), "{folder}": str(outputs)}
    command = [sys.executable, *(places.get(word, word) for word in shlex.split(part.command))]
    started = time.monotonic()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            state = FAILED if process.wait(limit) else DONE
        except subprocess.TimeoutExpired:
            state = LATE
        finally:
            # Its worker processes, too: they would disturb the parts after it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    seconds = time.monotonic() - started
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return Result(
        state=state,
        seconds=round(seconds, 1),
        last_line=lines[-1].strip() if lines else "",
        command=part.command,
        figures=_read(figures) if state == DONE and figures.exists() else None,
    )


def _read(file: Path) -> Any:
    # NaN is no JSON, and in a table it is an empty cell.
    return json.loads(file.read_text(encoding="utf-8"), parse_constant=lambda _: None)
