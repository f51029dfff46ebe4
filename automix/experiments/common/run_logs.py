"""Logs of a run, which a power cut or a foreign hand may have damaged since: checked when read.

`metrics.jsonl` has no sums of its own, because people and scripts read it. Its text is in the
checkpoints, from which it is restored. A journal, whose lines are worth minutes of work each and
which no checkpoint holds, has a sum in every line: a damaged line costs its unit, not the others.
"""

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from automix.errors import CheckpointError
from automix.files import sha256_of, write_bytes
from automix.readers import open_regular, read_bytes

Json = dict[str, Any]

# Names that no result has.
_LINE = "journal_line"
_SUM = "journal_sum"
_SUM_LENGTH = 40  # of the end of a line, with 16 digits
# Of a million lines and more.
_MAX_BYTES = 500_000_000
# Of an evaluation of 100,000 classes and more; parsed, a line takes 25 times as much.
_MAX_LINE = 4_000_000
_MAX_LINES = 1_000_000
_LOG = logging.getLogger(__name__)


class MetricsLog:
    """Numbers of a run over time, one JSON line each.

    Attributes:
        lines: what the file holds, each line with its end.
    """

    def __init__(self, path: Path) -> None:
        """Log to ``path``; what is there already is kept only by `restore`."""
        self.path = path
        self.lines: list[str] = []

    def add(self, values: Mapping[str, Any]) -> None:
        """Append one line."""
        line = json.dumps(values) + "\n"
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(line)
        self.lines.append(line)

    def synchronized(self) -> str:
        """Return the text for a checkpoint, once all of it is on the disk.

        A checkpoint must never survive a power cut that its log does not.
        """
        if self.path.exists():
            with self.path.open("rb") as stream:
                os.fsync(stream.fileno())
        return "".join(self.lines)

    def restore(self, text: str) -> None:
        """Let the file hold the text of the checkpoint and nothing else.

        Lines after it are those of steps that are run, and logged, again.

        Raises:
            CheckpointError: the text is no such log.
        """
        if text and not (text.endswith("\n") and all(map(_is_object, text.splitlines()))):
            raise CheckpointError(
                f"{self.path}: text in the checkpoint: expected a line of JSON for each step"
            )
        expected = text.encode()
        self.lines = text.splitlines(keepends=True)
        if self._begins_with(expected):
            if self.path.exists() and self.path.stat().st_size > len(expected):
                # Cut in place: `tail -f` and other readers keep following the same file.
                with self.path.open("r+b") as stream:
                    stream.truncate(len(expected))
            return
        _LOG.warning(
            "%s: expected the %d lines of the checkpoint, got a damaged file; written again",
            self.path,
            len(self.lines),
        )
        write_bytes(self.path, expected)

    def _begins_with(self, expected: bytes) -> bool:
        if not self.path.exists():
            return not expected
        with open_regular(self.path, limit=_MAX_BYTES) as stream:
            return stream.read(len(expected)) == expected


class Journal:
    """Results of finished units by the key of their job: one JSON line each, in order of finishing.

    A line is appended and flushed as soon as a unit is finished. It ends with a sum of its content
    and has a number, so that lines that are damaged or gone are noticed: those units are run again.
    One process at a time may hold a journal: it lies in a `RunFolder`, whose lock sees to that.

    Attributes:
        results: of the finished units, by key.
        seconds: wall-clock time that the units took, over all attempts.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.results: dict[str, Json] = {}
        self._waited: dict[str, float] = {}
        self._next = 0
        self._started = time.perf_counter()
        self._read()

    @property
    def seconds(self) -> float:
        """Wall-clock time of all units."""
        return sum(self._waited.values())

    def seconds_of(self, key: str) -> float:
        """Return the wall-clock time of a finished unit."""
        return self._waited[key]

    def get(self, key: str) -> Json | None:
        """Return the result of a unit, or None: it is to be run, and its time counts from now."""
        self._started = time.perf_counter()
        return self.results.get(key)

    def add(self, key: str, result: Json) -> None:
        """Record a unit that took the time since the last `get` or `add`."""
        now = time.perf_counter()
        waited, self._started = now - self._started, now
        # Python writes NaN, and reads it again: the losses of a run that diverged.
        values = {"key": key, "waited_seconds": waited} | result | {_LINE: self._next}
        # Flushed by the close, without fsync: a power cut costs the last units, a kill none.
        with self._path.open("ab") as stream:
            stream.write(_with_sum(values))
        # In memory only once it is on disk: an interrupt in between must not hide a missing line.
        self._next += 1
        self.results[key] = result
        self._waited[key] = waited

    def _read(self) -> None:
        whole: list[Json] = []
        num_lines, is_torn = 0, False
        # Bytes, not text: a crash may have left half of a character, or a block of zeros.
        for line in self._lines():
            num_lines += 1
            if num_lines > _MAX_LINES:
                raise CheckpointError(
                    f"{self._path}: expected at most {_MAX_LINES} lines, got more"
                )
            # A torn line at the end is what a kill leaves; anything else is damage.
            is_torn = not line.endswith(b"\n")
            if (values := _checked(line)) is not None:
                whole.append(values)
        expected = max((values[_LINE] + 1 for values in whole), default=0)
        num_lost = max(expected - len(whole), num_lines - len(whole) - is_torn)
        if num_lost > 0:
            _LOG.warning(
                "%s: expected whole lines, got %d damaged or missing; their units are run again",
                self._path,
                num_lost,
            )
        if len(whole) < max(expected, num_lines):
            # Numbered anew, so that this is said once.
            whole = [values | {_LINE: number} for number, values in enumerate(whole)]
            write_bytes(self._path, b"".join(map(_with_sum, whole)))
        self._next = len(whole)
        for values in whole:
            key = values.pop("key")
            self._waited[key] = values.pop("waited_seconds")
            del values[_LINE]
            self.results[key] = values

    def _lines(self) -> Iterator[bytes]:
        """Yield the lines with their ends; a longer one than any of ours, in parts."""
        if self._path.exists():
            with open_regular(self._path, limit=_MAX_BYTES) as stream:
                while line := stream.readline(_MAX_LINE):
                    yield line


def drop_damaged_lines(path: Path) -> None:
    """Write a log that has no sums again without its damaged lines, if there are any."""
    content = read_bytes(path, limit=_MAX_LINE) if path.exists() else b""
    lines = content.splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"\n") and _is_object(line)]
    if len(whole) < len(lines):
        _LOG.warning("%s: expected whole lines, got damaged ones; left out", path)
        write_bytes(path, b"".join(whole))


def _is_object(line: str | bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _with_sum(values: Json) -> bytes:
    body = json.dumps(values)
    return (json.dumps(values | {_SUM: sha256_of(body.encode())[:16]}) + "\n").encode()


def _checked(line: bytes) -> Json | None:
    """Return what `_with_sum` wrote, or None where it is not that."""
    # Many lines that are none of ours would take minutes to parse.
    if _SUM.encode() not in line[-_SUM_LENGTH:]:
        return None
    try:
        values = json.loads(line)
        del values[_SUM]
        # Written again, it has the same bytes: whatever was changed, the sum included, differs.
        is_whole = _with_sum(values) == line and isinstance(values[_LINE], int)
        is_whole &= isinstance(values["key"], str)
        return values if is_whole and isinstance(values["waited_seconds"], int | float) else None
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
