"""Time and memory of small functions, as ratios that survive a busy machine."""

import ctypes
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping

import torch
from torch.profiler import ProfilerActivity, profile

Call = Callable[[], object]


def keep_freed_memory() -> None:
    """Let the C library keep what is freed for the next call.

    By default it returns large blocks to the system or keeps them, depending on what ran before,
    and fresh pages cost more than the arithmetic: the floor alone took from 0.3 to 1.0 ms. Has no
    effect outside Linux.
    """
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "mallopt"):  # glibc, from <malloc.h>
            trim_threshold, mmap_threshold = -1, -3
            library.mallopt(trim_threshold, 1 << 30)
            library.mallopt(mmap_threshold, 32 << 20)


def median_seconds(
    calls: Mapping[str, Call], *, rounds: int, device: torch.device
) -> dict[str, float]:
    """Return the median time of each function.

    Each round runs all of them, so whatever else the machine does hits all alike: compare the
    figures of one run with one another, not with those of another run. A function is called
    twice in a round and the second call is timed: its inputs are then in the cache, whichever
    function came before. (Otherwise the functions that do least, such as the floor, mostly wait
    for memory, and all ratios look half as large.) One thread on a CPU
    is timed by its own clock, which stands still while another process has the core: on a busy
    machine the wall clock charges that to the slow functions alone.
    """
    clock = clock_for(device)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, call in calls.items():
                call()
                times[name].append(_seconds(call, device, clock))
    finally:
        gc.enable()
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def clock_for(device: torch.device) -> Callable[[], float]:
    """Return the clock of this thread where it does all the work, else that of the wall."""
    is_one_thread = device.type == "cpu" and torch.get_num_threads() == 1
    return time.thread_time if is_one_thread else time.perf_counter


def wait_for(device: torch.device) -> None:
    """Wait until an accelerator has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _seconds(call: Call, device: torch.device, clock: Callable[[], float]) -> float:
    wait_for(device)
    start = clock()
    result = call()
    wait_for(device)
    elapsed = clock() - start
    del result  # freed after the clock has stopped
    return elapsed


def peak_bytes(call: Call, device: torch.device) -> int:
    """Return the most memory in use at once during a call, beyond what was in use before.

    What is returned counts, until the call has ended.
    """
    call()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
        before = torch.accelerator.memory_allocated(device)
        torch.accelerator.reset_peak_memory_stats(device)
        call()
        torch.accelerator.synchronize(device)
        return torch.accelerator.max_memory_allocated(device) - before
    # The profiler reports each start, stop and missing GPU otherwise.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = call()
    del result
    recorded = profiler.profiler
    assert recorded is not None
    assert recorded.kineto_results is not None
    changes = [event for event in recorded.kineto_results.events() if event.name() == "[memory]"]
    in_use = peak = 0
    for event in sorted(changes, key=lambda event: event.start_ns()):
        in_use += event.nbytes()
        peak = max(peak, in_use)
    return peak
