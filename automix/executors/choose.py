"""The executor that a configuration names."""

from collections.abc import Sequence

from automix.configuration.task import ComputeConfig
from automix.executors.processes import ProcessWorker
from automix.executors.supervisor import Events, Limits, Supervised, Worker
from automix.executors.units import Executor, InProcess, Maker


def limits_of(compute: ComputeConfig) -> Limits:
    """Return how long workers may take, and how many may be lost."""
    silence = Limits().silence
    return Limits(
        timeout=compute.timeout,
        silence=silence if compute.timeout is None else min(silence, compute.timeout),
        per_unit=compute.max_failures,
        in_all=compute.max_failures_in_all,
    )


def make_executor(
    makers: Sequence[Maker], compute: ComputeConfig, *, kind: str, method: str
) -> Executor:
    """Return an executor with a worker for each of ``makers``; nothing starts before it is needed.

    Args:
        makers: functions that make what each worker holds, there.
        compute: limits, and where Ray is.
        kind: ``in_process`` or ``processes``.
        method: how multiprocessing starts a process.
    """
    if kind == "in_process":
        return InProcess(makers)
    limits = limits_of(compute)

    def spawn(seat: int, number: int, events: Events) -> Worker:
        return ProcessWorker(
            number, makers[seat], events, method=method, heartbeat=limits.heartbeat
        )

    return Supervised(spawn, num_seats=len(makers), limits=limits)
