"""Ctrl-C and SIGTERM as a question that a loop asks where it can stop."""

import logging
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

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
