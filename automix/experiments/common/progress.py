"""Progress lines with the time remaining, and requests to stop."""

import logging
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

import rich.console
import rich.progress

_SECONDS_BETWEEN_LINES = 10.0


class ProgressBar:
    """Counts finished units of work on standard error."""

    def __init__(self, title: str, total: int, *, done: int = 0, is_shown: bool = True) -> None:
        self._is_shown = is_shown
        self._title, self._total, self._done = title, total, done
        self._first = done
        self._started = self._last_line = time.monotonic()
        self._live: rich.progress.Progress | None = None

    def __enter__(self) -> Self:
        """Show the start."""
        if self._is_shown and sys.stderr.isatty():
            self._live = rich.progress.Progress(
                rich.progress.TextColumn("{task.description}"),
                rich.progress.BarColumn(),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TimeElapsedColumn(),
                rich.progress.TimeRemainingColumn(elapsed_when_finished=True),
                rich.progress.TextColumn("{task.fields[note]}"),
                console=rich.console.Console(stderr=True),
            )
            self._live.start()
            self._task = self._live.add_task(
                self._title, total=self._total, completed=self._done, note=""
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Show the end."""
        if self._live is not None:
            self._live.stop()

    def advance(self, count: int = 1, *, note: str = "") -> None:
        """Take in ``count`` more finished units; ``note`` is shown beside them."""
        self._done += count
        if self._live is not None:
            self._live.update(self._task, advance=count, note=note)
            return
        now = time.monotonic()
        if not self._is_shown:
            return
        if now - self._last_line >= _SECONDS_BETWEEN_LINES or self._done >= self._total:
            self._last_line = now
            sys.stderr.write(self._line(now, note) + "\n")
            sys.stderr.flush()

    def skip(self, count: int) -> None:
        """Take in ``count`` units of an earlier attempt: they say nothing about the time left."""
        self._done += count
        self._first += count
        if self._live is not None and count:
            self._live.reset(self._task, completed=self._done)

    def _line(self, now: float, note: str) -> str:
        elapsed = now - self._started
        rate = (self._done - self._first) / elapsed if elapsed else 0.0
        left = (self._total - self._done) / rate if rate else 0.0
        text = f"{self._title}: {self._done}/{self._total}, {format_seconds(elapsed)} spent"
        text += f", about {format_seconds(left)} left" if self._done < self._total else ""
        return text + (f", {note}" if note else "")


def format_seconds(seconds: float) -> str:
    """Return a duration as people say it: ``45 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# `torchrun` passes on a Ctrl-C that its processes got from the terminal as well.
_SECONDS_OF_ECHO = 2.0
_LOG = logging.getLogger(__name__)


class StopRequest:
    """A context manager within which the first Ctrl-C or SIGTERM only sets `is_made`.

    Another one, two seconds later or more, raises `KeyboardInterrupt` at once. Off the main
    thread, which alone gets signals, it does nothing.
    """

    def __init__(self) -> None:
        self._made_at: float | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        """Take over the two signals."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._take) for number in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def is_made(self) -> bool:
        """Whether somebody wants the loop to stop."""
        return self._made_at is not None

    def _take(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._made_at is None:
            self._made_at = now
            _LOG.info("stopping after this step; what is trained so far will be saved")
        elif now - self._made_at > _SECONDS_OF_ECHO:
            raise KeyboardInterrupt
