"""Supervision of workers: those that die, hang or stop are replaced, and their units done again."""

import logging
import queue
import statistics
import time
import weakref
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from automix.errors import WorkerError
from automix.escapes import one_line
from automix.executors.units import Call, Loss, Unit

# Between two looks at the clock.
_LOOK_SECONDS = 0.2
# A longer time between two looks is one in which this process was stopped or did something else.
_LONGEST_LOOK = 5.0
# Starting on a busy machine, or on a node that has to come up, before anything is heard.
_START_SECONDS = 300.0
# A unit may take so many times as long as the longest of its kind, and a minute more.
_TIMES_THE_LONGEST = 10.0
_GRACE_SECONDS = 60.0
# A unit is reported as a straggler once, after so many times the median of its kind.
_STRAGGLES = 3.0
_FEWEST_TO_STRAGGLE = 3
_SHORTEST_STRAGGLER = 30.0
# Of what a worker wrote.
_LONGEST_LINE = 200
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits on how long a worker takes or is silent, and on how many are lost.

    Attributes:
        timeout: seconds per unit; None: ten times the longest of its kind so far, and a minute.
        silence: seconds without a sign of life after which a worker is taken for lost.
        per_unit: lost workers per unit that are tolerated.
        in_all: lost workers of an executor that are tolerated.
        is_start_steady: whether the next worker starts about as quickly as others did: on one
            machine, and not on a cluster, which may have to find a node first.
    """

    timeout: float | None = None
    silence: float = 60.0
    per_unit: int = 3
    in_all: int = 100
    is_start_steady: bool = False

    @property
    def heartbeat(self) -> float:
        """Seconds between two signs of life of a worker."""
        return min(1.0, self.silence / 10)


EventKind = Literal["beat", "ready", "result", "error", "lost"]


@dataclass(frozen=True, slots=True)
class Event:
    """A message of a worker, by its number: alive, ready, done with its unit, or lost."""

    worker: int
    kind: EventKind
    value: Any = None


Events = queue.SimpleQueue[Event]


class Worker(Protocol):
    """A process that does one unit at a time, and puts what happens to it into `Events`."""

    @property
    def name(self) -> str:
        """Name for the log: its process, and where that is."""

    def start(self, call: Call) -> None:
        """Begin a call, which must be possible to pickle."""

    def terminate(self) -> None:
        """Ask it to end, where it can be asked."""

    def kill(self, *, patience: float = 0.0) -> None:
        """End it after ``patience`` in seconds, whatever it does; its threads here end, too."""

    def obituary(self) -> str:
        """Return how it ended, after `kill` or by itself."""

    def last_lines(self) -> list[str]:
        """Return the last lines that it wrote."""


Spawn = Callable[[int, int, bool, Events], Worker]
"""Starts a worker for a seat, with a number of its own, without waiting for it; True: one was lost
at that seat before."""


@dataclass(slots=True)
class _Seat:
    """A place for a worker, and the unit that it does."""

    index: int
    worker: Worker | None = None
    number: int = -1
    unit: Unit | None = None
    is_replaced: bool = False  # a worker was lost here, and none has finished a unit since
    has_lost: bool = False  # whether one was ever lost here
    is_pinned: bool = False  # whether the unit may be done here only
    heard: float = 0.0  # when the worker last said anything
    began: float | None = None  # when it began the unit, with its object in memory
    has_spoken: bool = False
    spawned: float = 0.0  # when the worker was started
    is_reported: bool = False  # as a straggler


@dataclass(slots=True)
class _Record:
    """Memory of an executor: units that wait, outcomes, failures and times."""

    waiting: deque[tuple[Unit, int | None]] = field(default_factory=deque)
    done: dict[str, tuple[bool, Any]] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    quickest_start: float = float("inf")


class Supervised:
    """An executor of workers that may die or hang: whatever they do, outcomes are the same.

    Workers start with their first unit. All is done by the caller's thread, while it waits for an
    outcome; threads of the workers only put events into a queue.
    """

    def __init__(
        self, spawn: Spawn, *, num_seats: int, limits: Limits, is_fresh: bool = False
    ) -> None:
        """Have ``num_seats`` workers at most; ``is_fresh``: each does one unit, and ends."""
        self.lost: list[Loss] = []
        self._spawn, self._limits, self._is_fresh = spawn, limits, is_fresh
        self._seats = [_Seat(index) for index in range(num_seats)]
        self._record = _Record()
        self._events: Events = queue.SimpleQueue()
        self._num_spawned = 0
        self._clock = _Clock()
        # Also when the caller forgets to, and at the end of Python.
        self._finalizer = weakref.finalize(self, _kill_all, self._seats)

    def submit(self, unit: Unit, *, seat: int | None = None) -> None:
        """Queue a unit."""
        if not self._knows(unit.name):
            self._record.waiting.append((unit, seat))
            self._assign()

    def outcome(self, name: str) -> Any:
        """Wait for a unit, and return what its function did."""
        while name not in self._record.done:
            if not self._knows(name):
                raise KeyError(f"expected a unit that was submitted, got {name}")
            self._advance()
        is_error, value = self._record.done.pop(name)
        if is_error:
            raise value
        return value

    def first(self, names: Collection[str], *, seconds: float) -> str | None:
        """Wait for one of the units, at most so long."""
        end = time.monotonic() + seconds
        while (name := next((one for one in names if one in self._record.done), None)) is None:
            if time.monotonic() >= end:
                return None
            self._advance()
        return name

    def cancel(self, name: str) -> None:
        """Forget a unit, and end the worker that does it."""
        self._record.done.pop(name, None)
        kept = [entry for entry in self._record.waiting if entry[0].name != name]
        self._record.waiting = deque(kept)
        for seat in self._seats:
            if seat.unit is not None and seat.unit.name == name:
                self._vacate(seat)

    def stop(self, *, patience: float = 0.0) -> None:
        """End all workers."""
        workers = [seat.worker for seat in self._seats if seat.worker is not None]
        if patience:
            # All are asked first, so that the time is that of the slowest, not of each.
            end = time.monotonic() + patience
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.kill(patience=max(0.0, end - time.monotonic()))
        _kill_all(self._seats)

    def _knows(self, name: str) -> bool:
        return (
            name in self._record.done
            or any(unit.name == name for unit, _ in self._record.waiting)
            or any(seat.unit is not None and seat.unit.name == name for seat in self._seats)
        )

    def _advance(self) -> None:
        """Hand out units, wait a moment for an event, and look for workers that hang."""
        self._assign()
        try:
            self._take(self._events.get(timeout=_LOOK_SECONDS))
            # Whatever was said while this process did something else, before any is judged.
            while True:
                self._take(self._events.get_nowait())
        except queue.Empty:
            pass
        self._clock.tick()
        for seat in self._seats:
            if seat.unit is not None and (reason := self._hangs(seat, seat.unit)):
                self._lose(seat, seat.unit, reason)

    def _assign(self) -> None:
        for seat in self._seats:
            if seat.unit is not None:
                continue
            entry = next(
                (one for one in self._record.waiting if one[1] in (None, seat.index)), None
            )
            if entry is None:
                continue
            self._record.waiting.remove(entry)
            self._begin(seat, *entry)

    def _begin(self, seat: _Seat, unit: Unit, place: int | None) -> None:
        if seat.worker is None:
            seat.number, self._num_spawned = self._num_spawned, self._num_spawned + 1
            seat.worker = self._spawn(seat.index, seat.number, seat.has_lost, self._events)
            seat.has_spoken, seat.spawned = False, self._clock.now
        seat.unit, seat.is_pinned = unit, place is not None
        seat.heard, seat.began, seat.is_reported = self._clock.now, None, False
        # The worker that did the last unit of a seat remembers it; another one has to be told.
        call = unit.again if seat.is_replaced and unit.again else unit.call
        try:
            seat.worker.start(call)
        except Exception:
            # It cannot be pickled: the fault of the caller, not of the worker.
            seat.unit = None
            raise

    def _take(self, event: Event) -> None:
        seat = next((seat for seat in self._seats if seat.number == event.worker), None)
        # What a worker said before it was replaced, or of a unit that was canceled.
        if seat is None or seat.worker is None or seat.unit is None:
            return
        if not seat.has_spoken:
            starting = self._clock.now - seat.spawned
            self._record.quickest_start = min(self._record.quickest_start, starting)
        seat.heard, seat.has_spoken = self._clock.now, True
        if event.kind == "ready":
            seat.began = self._clock.now
        elif event.kind in ("result", "error"):
            if seat.began is not None:
                self._record.seconds[seat.unit.kind].append(self._clock.now - seat.began)
            self._record.done[seat.unit.name] = (event.kind == "error", event.value)
            if self._is_fresh:
                self._vacate(seat)
            seat.unit, seat.is_replaced = None, False
        elif event.kind == "lost":
            self._lose(seat, seat.unit, "")

    def _hangs(self, seat: _Seat, unit: Unit) -> str:
        """Return why the worker of a seat is taken for lost; empty if it is not."""
        silent = self._clock.now - seat.heard
        limit = self._limits.silence
        if not seat.has_spoken:
            limit = _START_SECONDS
            if self._limits.is_start_steady:
                quickest = self._record.quickest_start
                limit = min(limit, self._limits.silence + _TIMES_THE_LONGEST * quickest)
        if silent > limit:
            return f"no sign of life for {silent:.0f} s"
        if seat.began is None:
            return ""
        seconds, earlier = self._clock.now - seat.began, self._record.seconds[unit.kind]
        limit = self._limits.timeout or (
            _TIMES_THE_LONGEST * max(earlier) + _GRACE_SECONDS if earlier else float("inf")
        )
        if seconds > limit:
            return f"no result within {limit:.3g} s"
        self._report_straggler(seat, unit, seconds)
        return ""

    def _report_straggler(self, seat: _Seat, unit: Unit, seconds: float) -> None:
        earlier = self._record.seconds[unit.kind]
        if seat.is_reported or len(earlier) < _FEWEST_TO_STRAGGLE or seconds < _SHORTEST_STRAGGLER:
            return
        times = seconds / max(statistics.median(earlier), 1e-9)
        if times > _STRAGGLES and seat.worker is not None:
            seat.is_reported = True
            _LOG.warning(
                "unit %s (%s): takes %.3g s so far, %.1f times the median of its kind, on %s",
                *(unit.name, unit.kind, seconds, times, seat.worker.name),
            )

    def _lose(self, seat: _Seat, unit: Unit, reason: str) -> None:
        """Count a lost worker, and queue its unit again, unless that was one too many."""
        worker, is_pinned = seat.worker, seat.is_pinned
        assert worker is not None
        self._vacate(seat)
        # After it is dead: how it ended, and all that it wrote.
        reason = reason or worker.obituary()
        self.lost.append(Loss(unit=unit.name, worker=worker.name, reason=reason))
        seat.has_lost = True
        self._record.failures[unit.name] += 1
        lost, lines = f"{worker.name}, {reason}", worker.last_lines()
        of_unit, in_all = self._record.failures[unit.name], len(self.lost)
        if in_all > self._limits.in_all:
            self.stop()
            raise _too_many(unit, self._limits.in_all, "in all", in_all, lost, lines)
        if of_unit > self._limits.per_unit:
            # Its outcome, for whoever asks for it: other units are done.
            error = _too_many(unit, self._limits.per_unit, "in a unit", of_unit, lost, lines)
            self._record.done[unit.name] = (True, error)
            return
        self._log_loss(unit, lost, lines)
        self._record.waiting.appendleft((unit, seat.index if is_pinned else None))

    def _log_loss(self, unit: Unit, lost: str, lines: Sequence[str]) -> None:
        limits, num_lost = self._limits, len(self.lost)
        of_unit = self._record.failures[unit.name]
        _LOG.warning(
            "unit %s (%s): lost %s; done again (%d of at most %d in a unit, %d of %d in all)%s",
            *(unit.name, unit.kind, lost, of_unit, limits.per_unit, num_lost, limits.in_all),
            _quoted("its last lines", lines),
        )

    def _vacate(self, seat: _Seat) -> None:
        if seat.worker is not None:
            seat.worker.kill()
        seat.worker, seat.unit, seat.number, seat.is_replaced = None, None, -1, True


def _too_many(
    unit: Unit, most: int, what: str, count: int, lost: str, lines: Sequence[str]
) -> WorkerError:
    return WorkerError(
        f"unit {unit.name} ({unit.kind}): expected at most {most} lost workers {what}, got "
        f"{count}: {lost}{_quoted('its last line', lines[-1:])}"
    )


def _quoted(title: str, lines: Sequence[str]) -> str:
    """Return what a worker wrote last, for the end of a message."""
    text = " | ".join(one_line(line[:_LONGEST_LINE]) for line in lines)
    return f"; {title}: {text}" if text else ""


class _Clock:
    """Seconds of this process: those in which it was stopped itself, or busy, do not count.

    Ctrl-Z stops workers and this process together, and a laptop that sleeps stops all of them.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._last = time.monotonic()

    def tick(self) -> None:
        """Look at the clock."""
        moment = time.monotonic()
        self.now += min(moment - self._last, _LONGEST_LOOK)
        self._last = moment


def _kill_all(seats: Sequence[_Seat]) -> None:
    for seat in seats:
        if seat.worker is not None:
            seat.worker.kill()
        seat.worker, seat.unit, seat.number = None, None, -1
