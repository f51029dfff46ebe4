"""The executor that a configuration names."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from automix.configuration.task import ComputeConfig
from automix.executors.processes import ProcessWorker
from automix.executors.supervisor import Events, Limits, Supervised, Worker
from automix.executors.units import Executor, InProcess, Maker
from automix.worker_processes import num_cores

Kind = Literal["in_process", "processes", "ray"]


def kind_of(compute: ComputeConfig) -> Kind:
    """Return where the training runs of ``compute`` are done."""
    if compute.executor != "auto":
        return compute.executor
    # Another process takes twelve seconds to start: longer than many a small command.
    return "in_process" if compute.workers == 1 else "processes"


def room(compute: ComputeConfig, kind: Kind) -> int:
    """Return how many workers of a kind there is room for.

    Raises:
        AutoMixError: there is no Ray, or no room for one.
    """
    if kind != "ray":
        return num_cores() if kind == "processes" else 1
    # Imported here: most commands do without.
    from automix.executors.ray_actors import capacity  # noqa: PLC0415

    return capacity(compute)


def limits_of(compute: ComputeConfig) -> Limits:
    """Return limits on the time of workers, and on their losses."""
    silence = Limits().silence
    return Limits(
        timeout=compute.timeout,
        silence=silence if compute.timeout is None else min(silence, compute.timeout),
        per_unit=compute.max_failures,
        in_all=compute.max_failures_in_all,
    )


def make_executor(
    makers: Sequence[Maker],
    compute: ComputeConfig,
    *,
    kind: Kind,
    method: str,
    is_fresh: bool = False,
) -> Executor:
    """Return an executor with a worker for each of ``makers``; nothing starts before it is needed.

    Args:
        makers: functions that make what each worker holds, there.
        compute: limits and, on Ray, what a worker reserves.
        kind: see `kind_of`.
        method: how multiprocessing starts a process.
        is_fresh: whether each unit has a worker of its own.
    """
    if kind == "in_process":
        return InProcess(makers)
    limits = replace(limits_of(compute), is_start_steady=kind == "processes")

    def spawn(seat: int, number: int, is_replacement: bool, events: Events) -> Worker:
        maker, heartbeat = makers[seat], limits.heartbeat
        if kind == "processes":
            return ProcessWorker(number, maker, events, method=method, heartbeat=heartbeat)
        from automix.executors.ray_actors import RayWorker  # noqa: PLC0415

        return RayWorker(
            number,
            maker,
            events,
            compute=compute,
            heartbeat=heartbeat,
            is_replacement=is_replacement,
        )

    return Supervised(spawn, num_seats=len(makers), limits=limits, is_fresh=is_fresh)
