"""Journal of finished units of work, so that an interrupted command runs none of them twice."""

import json
import time
from pathlib import Path
from typing import Any

Json = dict[str, Any]


class Journal:
    """Results of finished units by the key of their job: one JSON line each, in order of finishing.

    A line is appended and flushed as soon as a unit is finished. Reading stops at the first line
    that is not whole, which a crash left, and cuts the file there. One process at a time may hold
    a journal: it lies in a `RunFolder`, whose lock sees to that.

    Attributes:
        results: of the finished units, by key.
        seconds: wall-clock time that the units took, over all attempts.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.results: dict[str, Json] = {}
        self.seconds = 0.0
        self._started = time.perf_counter()
        self._read()

    def get(self, key: str) -> Json | None:
        """Return the result of a unit, or None: it is to be run, and its time counts from now."""
        self._started = time.perf_counter()
        return self.results.get(key)

    def add(self, key: str, result: Json) -> None:
        """Record a unit that took the time since the last `get` or `add`."""
        now = time.perf_counter()
        waited, self._started = now - self._started, now
        # Python writes NaN, and reads it again: the losses of a run that diverged.
        line = json.dumps({"key": key, "waited_seconds": waited} | result)
        # Flushed by the close, without fsync: a power cut costs the last units, a kill none.
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
        # In memory only once it is on disk: an interrupt in between must not hide a missing line.
        self.results[key] = result
        self.seconds += waited

    def _read(self) -> None:
        content = self._path.read_bytes() if self._path.exists() else b""
        # Bytes, not text: a crash may have left half of a character, or a block of zeros.
        size = 0
        for line in content.splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            try:
                result = json.loads(line)
                key, waited = result.pop("key"), float(result.pop("waited_seconds"))
            except (ValueError, TypeError, KeyError, AttributeError):
                break
            self.results[key] = result
            self.seconds += waited
            size += len(line)
        if size < len(content):
            with self._path.open("r+b") as stream:
                stream.truncate(size)
