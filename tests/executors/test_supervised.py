"""Workers that die, stop or hang are replaced; outcomes are those of workers that did not."""

import functools
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from automix.configuration.task import ComputeConfig
from automix.errors import WorkerError
from automix.executors.choose import Kind, make_executor
from automix.executors.supervisor import Event, Limits, Supervised
from automix.executors.units import Executor, InProcess, Unit, unit_name
from automix.training.distributed import start_method
from tests.executors import toy
from tests.test_worker_processes import is_running

# The one that all tests share: the first to start the fork server says what it imports.
METHOD = start_method("automix.executors.processes")


def unit(function: Any, *arguments: Any, name: str = "", **others: Any) -> Unit:
    name = name or unit_name(function.__name__, repr(arguments))
    return Unit(name=name, kind=function.__name__, call=(function, arguments), **others)


def executor_of(num_workers: int = 2, kind: Kind = "processes", **compute: Any) -> Executor:
    return make_executor(
        [functools.partial(toy.Held, 10 * seat) for seat in range(num_workers)],
        ComputeConfig(**compute),
        kind=kind,
        method=METHOD,
    )


def outcomes(executor: Executor, units: Sequence[Unit]) -> list[Any]:
    for one in units:
        executor.submit(one)
    return [executor.outcome(one.name) for one in units]


def children() -> set[int | None]:
    return {child.pid for child in multiprocessing.active_children()}


@pytest.fixture
def executor() -> Iterator[Executor]:
    before = children()
    made = executor_of()
    yield made
    made.stop()
    made.stop()
    assert children() <= before


@pytest.mark.parametrize("kind", ["in_process", "processes"])
def test_outcomes_are_those_of_the_units_whatever_the_kind(kind: Kind) -> None:
    executor = executor_of(kind=kind)
    units = [unit(toy.square, value) for value in range(5)]
    assert outcomes(executor, units) == [0, 1, 4, 9, 16]
    # Submitted again, because its outcome was collected; twice, and done once.
    for _ in range(2):
        executor.submit(units[3])
    assert executor.outcome(units[3].name) == 9
    with pytest.raises(KeyError):
        executor.outcome(units[3].name)
    with pytest.raises(ValueError, match="expected another value, got 3"):
        outcomes(executor, [unit(toy.refuse, 3)])
    assert outcomes(executor, units[:1]) == [0]
    assert executor.lost == []
    executor.stop()


@pytest.mark.parametrize("kind", ["in_process", "processes"])
def test_a_seat_keeps_what_it_holds(kind: Kind) -> None:
    executor = executor_of(kind=kind)
    for seat, call in [(0, "a"), (1, "b"), (0, "c"), (1, "d")]:
        executor.submit(unit(toy.count, name=call), seat=seat)
    assert [executor.outcome(call) for call in "abcd"] == [1, 11, 2, 12]
    executor.stop()


def test_an_answer_that_cannot_be_sent_is_an_error_and_not_a_lost_worker(
    executor: Executor,
) -> None:
    with pytest.raises(RuntimeError, match="pickle"):
        outcomes(executor, [unit(toy.unreadable)])
    with pytest.raises(Exception, match="pickle"):
        executor.submit(Unit(name="local", kind="", call=(lambda held: None, ())))
    assert outcomes(executor, [unit(toy.square, 3)]) == [9]
    assert executor.lost == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_units_whose_workers_die_stop_or_hang_are_done_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before, temporary = children(), set(Path(tempfile.gettempdir()).iterdir())
    executor = executor_of(timeout=2.0)
    fates = {1: "dies", 3: "stops", 4: "hangs"}
    units = [unit(toy.meet, tmp_path, value, fates) for value in range(6)]
    with caplog.at_level(logging.WARNING):
        assert outcomes(executor, units) == [0, 1, 4, 9, 16, 25]
    executor.stop()
    assert {loss.unit for loss in executor.lost} == {units[value].name for value in fates}
    reasons = " ".join(loss.reason for loss in executor.lost)
    assert "ended by SIGKILL" in reasons
    assert "no sign of life for 2 s" in reasons
    assert "no result within 2 s" in reasons
    assert "its last lines: no memory for 1" in caplog.text
    assert children() <= before
    assert set(Path(tempfile.gettempdir()).iterdir()) <= temporary | {tmp_path}


def test_over_the_limit_one_line_names_the_unit_and_the_last_error(tmp_path: Path) -> None:
    executor = executor_of(max_failures=1)
    always = unit(toy.meet, tmp_path, 5, {5: "always dies"})
    with pytest.raises(WorkerError) as caught:
        outcomes(executor, [always])
    message = str(caught.value)
    assert message.startswith(
        f"unit {always.name} (meet): expected at most 1 lost workers in a unit, got 2: worker proc"
    )
    assert message.endswith("ended by SIGKILL; its last line: no memory for 5")
    assert len(executor.lost) == 2
    # Others are done.
    assert outcomes(executor, [unit(toy.square, 3)]) == [9]
    executor.stop()
    assert not [child for child in multiprocessing.active_children() if child.is_alive()]


def test_losses_of_different_units_count_in_all(tmp_path: Path) -> None:
    executor = executor_of(max_failures_in_all=1)
    fates = dict.fromkeys(range(4), "dies")
    with pytest.raises(
        WorkerError, match="expected at most 1 lost workers in all, got 2: worker proc"
    ):
        outcomes(executor, [unit(toy.meet, tmp_path, value, fates) for value in range(4)])


def test_who_replaces_a_lost_worker_is_told_where_it_was(executor: Executor) -> None:
    executor.submit(unit(toy.count, name="first"), seat=1)
    assert executor.outcome("first") == 11
    executor.submit(unit(toy.process_of, name="who"), seat=1)
    os.kill(executor.outcome("who"), signal.SIGKILL)
    # The worker is gone between two units; the next one begins where the last ended.
    again = (toy.resumed_count, (11,))
    executor.submit(unit(toy.count, name="second", again=again), seat=1)
    assert executor.outcome("second") == 12
    executor.submit(unit(toy.count, name="third", again=(toy.resumed_count, (99,))), seat=1)
    assert executor.outcome("third") == 13
    assert [loss.unit for loss in executor.lost] == ["second"]


def test_a_unit_that_is_canceled_is_no_loss(tmp_path: Path, executor: Executor) -> None:
    hanging = unit(toy.meet, tmp_path, 1, {1: "hangs"})
    executor.submit(hanging)
    executor.submit(unit(toy.square, 2))
    executor.submit(unit(toy.square, 3))
    executor.cancel(hanging.name)
    executor.cancel(unit(toy.square, 3).name)
    assert outcomes(executor, [unit(toy.square, 2)]) == [4]
    assert executor.lost == []


def test_workers_end_with_an_executor_that_is_forgotten() -> None:
    executor = executor_of(num_workers=1)
    [process] = outcomes(executor, [unit(toy.process_of)])
    assert is_running(process)
    del executor
    deadline = time.monotonic() + 30
    while is_running(process) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(process)


class Silent:
    """A worker that does nothing, and knows whether it was killed."""

    name = "silent worker"

    def __init__(self) -> None:
        self.is_killed = False

    def start(self, call: Any) -> None:
        pass

    def terminate(self) -> None:
        pass

    def kill(self, *, patience: float = 0.0) -> None:
        self.is_killed = True

    def obituary(self) -> str:
        return "gone"

    def last_lines(self) -> list[str]:
        return []


def test_time_in_which_the_driver_was_stopped_itself_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moments = iter([0.0, 1.0, 10_000.0, 10_001.0, 10_002.0])
    monkeypatch.setattr("automix.executors.supervisor.time.monotonic", lambda: next(moments))
    worker = Silent()
    executor = Supervised(
        lambda seat, number, is_replacement, events: worker,
        num_seats=1,
        limits=Limits(silence=5.0),
    )
    executor.submit(unit(toy.square, 1))
    for _ in range(3):
        executor._advance()
    assert not worker.is_killed


@pytest.mark.parametrize("is_start_steady", [False, True])
def test_a_worker_that_stops_while_it_starts_is_found_by_how_quickly_others_started(
    is_start_steady: bool,
) -> None:
    limits = Limits(silence=5.0, is_start_steady=is_start_steady)
    executor = Supervised(
        lambda seat, number, is_replacement, events: Silent(),
        num_seats=1,
        limits=limits,
        is_fresh=True,
    )
    executor.submit(unit(toy.square, 1))
    executor._take(Event(0, "result", 1))
    executor.submit(unit(toy.square, 2))
    executor._clock.now += 6
    executor._advance()
    assert len(executor.lost) == is_start_steady


def test_in_process_holds_nothing_before_it_is_needed() -> None:
    made: list[toy.Held] = []

    def make() -> toy.Held:
        made.append(toy.Held())
        return made[-1]

    executor = InProcess([make])
    executor.submit(unit(toy.square, 2))
    assert made == []
    assert executor.outcome(unit(toy.square, 2).name) == 4
    assert len(made) == 1
