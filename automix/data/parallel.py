"""Work on many items with several threads, results in order, memory bounded."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_MAX_THREADS = 16
# A task of one image costs as much to hand over as a small image costs to decode.
_ITEMS_PER_TASK = 16
_TASKS_AHEAD = 4


def num_threads() -> int:
    """Return how many threads to decode with: one per core this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(cores, _MAX_THREADS)


def in_order(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield ``function(item)`` for each item, in order, computed by several threads.

    At most a few dozen results per thread wait at any time. The first error, in the order of the
    items, is raised; the tasks that have not started are dropped.
    """
    threads = num_threads()
    remaining = iter(items)
    waiting: deque[Future[list[Result]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        try:
            while True:
                while len(waiting) < threads * _TASKS_AHEAD:
                    block = list(islice(remaining, _ITEMS_PER_TASK))
                    if not block:
                        break
                    waiting.append(pool.submit(_results, function, block))
                if not waiting:
                    return
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _results(function: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    return [function(item) for item in items]
