"""Several processes that train one classifier together, as torchrun starts them.

Everything here works alone, too: a process that was not started by torchrun is a world of one, and
the collective functions then return what they were given. In a larger world, each of them must be
called by every process, in the same order.
"""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from automix.errors import ConfigError, OtherProcessError
from automix.worker_processes import end_with_parent

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The processes that train together."""

    rank: int = 0  # number of this process, from 0
    size: int = 1  # how many there are

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and talks to people."""
        return self.rank == 0


def current_world() -> World:
    """Return the world this process has joined; a world of one if none."""
    if not (dist.is_available() and dist.is_initialized()):
        return World()
    return World(rank=dist.get_rank(), size=dist.get_world_size())


@contextlib.contextmanager
def joined_world() -> Iterator[World]:
    """Join the processes that torchrun started together with this one, for a block.

    Each process of a machine takes the accelerator with its local rank; without accelerators they
    share the CPU. Collectives on the host go through gloo, those on an accelerator through its own
    library.

    Raises:
        ConfigError: torchrun started more processes on this machine than it has accelerators.
    """
    if not dist.is_available() or not dist.is_torchelastic_launched():
        yield World()
        return
    backends = "cpu:gloo"
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None:
        local_rank, count = int(os.environ["LOCAL_RANK"]), torch.accelerator.device_count()
        if int(os.environ["LOCAL_WORLD_SIZE"]) > count:
            raise ConfigError(
                f"torchrun: expected at most {count} processes on this machine, one for each "
                f"accelerator, got {os.environ['LOCAL_WORLD_SIZE']}"
            )
        torch.accelerator.set_device_index(local_rank)
        backends += f",{accelerator.type}:{dist.get_default_backend_for_device(accelerator)}"
    dist.init_process_group(backends)
    yield current_world()
    # After an exception the others may wait in a collective for this process: it must end, not wait
    # for them. torchrun then ends them.
    dist.destroy_process_group()


def sum_over_processes_(tensor: Tensor) -> Tensor:
    """Replace ``tensor`` by its sum over all processes: the same bits in each."""
    if current_world().size > 1:
        dist.all_reduce(tensor)
    return tensor


def highest_of_processes(*values: int) -> list[int]:
    """Return the largest of each of the values over all processes. Goes through the host."""
    if current_world().size == 1:
        return list(values)
    tensor = torch.tensor(values)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    highest: list[int] = tensor.tolist()
    return highest


def copy_from_main_(tensors: Sequence[Tensor]) -> None:
    """Replace ``tensors`` by those of rank 0."""
    if current_world().size > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def on_main(action: Callable[[], T]) -> T:
    """Do something on rank 0 alone, and return its result in every process.

    Args:
        action: returns tensors on the CPU and plain values.

    Raises:
        Exception: whatever ``action`` raised, on rank 0.
        OtherProcessError: ``action`` failed on rank 0, elsewhere.
    """
    world = current_world()
    if world.size == 1:
        return action()
    outcome: list[Any] = [None, None]
    failure: Exception | None = None
    if world.is_main:
        try:
            outcome[0] = action()
        except Exception as error:
            failure, outcome[1] = error, str(error)
    dist.broadcast_object_list(outcome, src=0)
    if failure is not None:
        raise failure
    if outcome[1] is not None:
        raise OtherProcessError(outcome[1])
    return cast("T", outcome[0])


def gather_on_main(value: T) -> list[T]:
    """Return the values of all processes by rank, on rank 0; elsewhere an empty list.

    Args:
        value: tensors and plain values, in dicts and lists; gathered tensors are on the CPU.
    """
    world = current_world()
    if world.size == 1:
        return [value]
    gathered: list[Any] | None = [None] * world.size if world.is_main else None
    dist.gather_object(_on_host(value), gathered, dst=0)
    return gathered or []


def _on_host(value: Any) -> Any:
    # A tensor on an accelerator would be unpacked on the accelerator it came from.
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, dict):
        return {name: _on_host(entry) for name, entry in value.items()}
    return [_on_host(entry) for entry in value] if isinstance(value, list) else value


def part_of(count: int) -> slice:
    """Return which of ``count`` items this process works on: neighbors, each item once."""
    world = current_world()
    return slice(count * world.rank // world.size, count * (world.rank + 1) // world.size)


def join_parts(part: Tensor, count: int) -> Tensor:
    """Return the rows of all processes in order; no row is sent twice or padded.

    Args:
        part: (n, ...) rows of this process, as many as `part_of` gives it, perhaps none.
        count: rows of all processes together.
    """
    world = current_world()
    if world.size == 1:
        return part
    rows = part.new_empty(count, *part.shape[1:])
    for rank in range(world.size):
        here = rows[count * rank // world.size : count * (rank + 1) // world.size]
        if len(here):
            if rank == world.rank:
                here.copy_(part)
            dist.broadcast(here, src=rank)
    return rows


def start_method(module: str) -> Literal["forkserver", "spawn"]:
    """Return how worker processes that run the code of ``module`` are started.

    Never by plain fork, which an accelerator forbids. A worker that imports torch and
    scikit-learn by itself takes about six seconds; the fork server, which all systems but Windows
    have, imports them once for all workers.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return "spawn"
    # The first optimizer step imports `torch._dynamo`, which takes as long as torch itself.
    modules = [module, "automix.training.trainer", "torch._dynamo"]
    multiprocessing.get_context("forkserver").set_forkserver_preload(modules)
    return "forkserver"


def prepare_worker(num_threads: int) -> None:
    """Set up a worker process: its threads, and that only its parent reacts to Ctrl-C.

    It ends when its parent does: a killed parent cannot end it, and workers of a pool would
    otherwise wait for their next job for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(num_threads)
    end_with_parent()
