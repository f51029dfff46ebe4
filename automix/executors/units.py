"""Units of work, and the one interface through which they are done, wherever that is."""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from automix.files import sha256_of

Call = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function of a module, and its arguments after the object that a worker holds."""

Maker = Callable[[], Any]
"""Makes the object that a worker holds, in the worker: a trainer with its data, environments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A piece of work: ``function(held, *arguments)``, with the object that its worker holds.

    Attributes:
        name: the hash of its job, see `unit_name`: equal names have equal outcomes.
        kind: units of one kind take about as long as each other.
        call: the function and its arguments.
        again: what a worker that replaces a lost one is asked for instead; None: the same.
    """

    name: str
    kind: str
    call: Call
    again: Call | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A worker that was lost in the middle of a unit."""

    unit: str
    worker: str  # where it ran
    reason: str


class Executor(Protocol):
    """Does units; an outcome is the same wherever and however often its unit was begun.

    Attributes:
        lost: workers that were lost so far, in order.
    """

    lost: list[Loss]

    def submit(self, unit: Unit, *, seat: int | None = None) -> None:
        """Queue a unit, unless one of its name is there; ``seat``: the only worker that may do it.

        A unit that was finished and not collected is not done again.
        """

    def outcome(self, name: str) -> Any:
        """Wait for a unit, and return what its function did, once.

        Raises:
            Exception: what the function raised.
            WorkerError: more workers were lost than is allowed, in this unit or in all.
        """

    def first(self, names: Collection[str], *, seconds: float) -> str | None:
        """Return one of the units that has an outcome; None if ``seconds`` pass without one.

        Raises:
            WorkerError: more workers were lost in all than is allowed.
        """

    def cancel(self, name: str) -> None:
        """Forget a unit; a worker that does it is ended, and another takes its place."""

    def stop(self, *, patience: float = 0.0) -> None:
        """End all workers; processes are asked to, and made to after ``patience`` in seconds.

        Once more does no harm.
        """


def unit_name(*parts: str) -> str:
    """Return the name of a unit, a hash of what its outcome depends on."""
    return sha256_of(*(part.encode() for part in parts))[:16]


class InProcess:
    """Does units in this process, in order, when their outcomes are asked for."""

    def __init__(self, makers: Sequence[Maker]) -> None:
        """Hold what each of ``makers`` makes once a unit needs it; one without a seat: the first.

        Nothing is made before: a command whose units are finished needs no data in memory.
        """
        self.lost: list[Loss] = []
        self._makers = list(makers)
        self._held: dict[int, Any] = {}
        self._waiting: dict[str, tuple[Unit, int]] = {}

    def submit(self, unit: Unit, *, seat: int | None = None) -> None:
        """Queue a unit."""
        self._waiting.setdefault(unit.name, (unit, seat or 0))

    def outcome(self, name: str) -> Any:
        """Do a unit now, and return what its function did."""
        unit, seat = self._waiting.pop(name)
        if seat not in self._held:
            self._held[seat] = self._makers[seat]()
        function, arguments = unit.call
        return function(self._held[seat], *arguments)

    def first(self, names: Collection[str], *, seconds: float) -> str | None:
        """Return the first of the units; it is done when its outcome is asked for."""
        if not names:
            time.sleep(seconds)
        return next(iter(names), None)

    def cancel(self, name: str) -> None:
        """Forget a unit."""
        self._waiting.pop(name, None)

    def stop(self, *, patience: float = 0.0) -> None:
        """Let go of what is held."""
        self._held.clear()
