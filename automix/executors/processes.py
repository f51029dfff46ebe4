"""Workers that are processes of this machine."""

import collections
import contextlib
import faulthandler
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

from automix.escapes import one_line
from automix.executors.supervisor import Event, Events
from automix.executors.units import Call, Maker
from automix.worker_processes import apart_from_script, end_with_parent

_NUM_LINES = 8
# For what a dead process wrote to arrive.
_SECONDS_FOR_LINES = 1.0


class ProcessWorker:
    """A process that does one call after the other, and says once a second that it lives."""

    def __init__(
        self, number: int, maker: Maker, events: Events, *, method: str, heartbeat: float
    ) -> None:
        """Start the process, by a ``method`` of multiprocessing; it makes its object at once."""
        context = multiprocessing.get_context(method)
        pipe, other = context.Pipe()
        written, errors = context.Pipe(duplex=False)
        self._process = context.Process(  # type: ignore[attr-defined]  # typeshed
            target=_serve, args=(maker, other, errors, heartbeat)
        )
        with apart_from_script():
            self._process.start()
        other.close()
        errors.close()
        self.name = f"worker process {self._process.pid}"
        self._lines: collections.deque[str] = collections.deque(maxlen=_NUM_LINES)
        self._calls: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        # Threads of their own, because a process that stops in the middle of a message would stop
        # whoever reads it.
        self._reader = threading.Thread(target=_repeat_lines, args=(written, self._lines))
        self._talker = threading.Thread(target=_converse, args=(number, pipe, self._calls, events))
        for thread in (self._reader, self._talker):
            thread.daemon = True
            thread.start()

    def start(self, call: Call) -> None:
        """Begin a call."""
        self._calls.put(bytes(ForkingPickler.dumps(call)))

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.terminate()

    def kill(self, *, patience: float = 0.0) -> None:
        """End the process, once it had time to do so itself."""
        self._process.join(patience)
        self._process.kill()
        self._process.join()
        self._calls.put(None)
        self._talker.join(_SECONDS_FOR_LINES)
        self._reader.join(_SECONDS_FOR_LINES)

    def obituary(self) -> str:
        """Return how it ended."""
        code = self._process.exitcode or 0
        if code < 0:
            return f"ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    def last_lines(self) -> list[str]:
        """Return the last lines that it wrote."""
        return [line for line in self._lines if line]


def _converse(
    number: int,
    pipe: Connection,
    calls: "queue.SimpleQueue[bytes | None]",
    events: Events,
) -> None:
    """Send calls to a process, and put what it says into ``events``, until it ends."""
    with pipe:
        while (call := calls.get()) is not None:
            try:
                pipe.send_bytes(call)
                while True:
                    kind, value = _received(pipe)
                    events.put(Event(number, kind, value))
                    if kind in ("result", "error"):
                        break
            except (EOFError, OSError):
                events.put(Event(number, "lost"))
                return


def _received(pipe: Connection) -> tuple[Any, Any]:
    try:
        kind, value = pipe.recv()
    except (EOFError, OSError):
        raise
    except Exception as error:
        # An exception whose class does not take its own arguments, for one.
        return "error", RuntimeError(f"expected an answer that can be read, got: {error!r}")
    return kind, value


def _repeat_lines(written: Connection, lines: "collections.deque[str]") -> None:
    """Show what a process writes, and keep the last of it."""
    with written, os.fdopen(os.dup(written.fileno()), encoding="utf-8", errors="replace") as text:
        for line in text:
            lines.append(line.strip())
            # At the end of Python there may be nothing to write to.
            with contextlib.suppress(Exception):
                sys.stderr.write(one_line(line.removesuffix("\n")) + "\n")


def _serve(maker: Maker, pipe: Connection, errors: Connection, heartbeat: float) -> None:
    """Do what is asked for, in a worker process, until the other end is closed."""
    # The parent alone reacts to Ctrl-C, and ends its workers; a killed one cannot.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    # Standard output is for results of the command: workers have none.
    for stream in (1, 2):
        os.dup2(errors.fileno(), stream)
    errors.close()
    faulthandler.enable()
    voice = _Voice(pipe)
    threading.Thread(target=voice.beat, args=(heartbeat,), daemon=True).start()
    held: Any = None
    try:
        while True:
            message = pipe.recv_bytes()
            voice.is_needed.set()
            try:
                function, arguments = ForkingPickler.loads(message)
                if held is None:
                    held = maker()
                voice.say("ready", None)
                answer = ("result", function(held, *arguments))
            except Exception as error:
                answer = ("error", error)
            voice.is_needed.clear()
            voice.say(*answer)
    except (EOFError, OSError):
        # Nobody is left to talk to.
        return


class _Voice:
    """The one end of a pipe through which a process says that it lives, and what it did."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._lock = pipe, threading.Lock()
        self.is_needed = threading.Event()

    def say(self, kind: str, value: Any) -> None:
        try:
            # Pickled first: what cannot be sent is an error to report, too.
            message = ForkingPickler.dumps((kind, value))
        except Exception as error:
            message = ForkingPickler.dumps(("error", RuntimeError(f"{value!r}: {error}")))
        with self._lock:
            self._pipe.send_bytes(message)

    def beat(self, seconds: float) -> None:
        """Say that this process lives, as long as it does something."""
        with contextlib.suppress(OSError):
            while self.is_needed.wait():
                self.say("beat", None)
                time.sleep(seconds)
