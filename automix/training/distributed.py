"""Several processes that train one classifier together, as torchrun starts them.

Everything here works alone, too: a process that was not started by torchrun is a world of one, and
the collective functions then return what they were given. In a larger world, each of them must be
called by every process, in the same order.
"""

import contextlib
import inspect
import io
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from automix.errors import ConfigError, OtherProcessError
from automix.worker_processes import end_with_parent

T = TypeVar("T")

# `TrainingStep.average` makes buffers equal after the step, for the averaged weights too. Newer
# releases of PyTorch have a new name for the option, and warn of the old one.
_DISTRIBUTED_OPTIONS: dict[str, Any] = (
    {"forward_sync_buffers": False}
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else {"broadcast_buffers": False}
)


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


def distributed_model(model: nn.Module, device: torch.device) -> DistributedDataParallel | None:
    """Wrap a model whose gradients are to be averaged over processes; None for a world of one."""
    if current_world().size == 1:
        return None
    return DistributedDataParallel(
        model,
        device_ids=None if device.type == "cpu" else [device],
        # Gradients live in the buffers that are sent: one copy of all gradients less.
        gradient_as_bucket_view=True,
        **_DISTRIBUTED_OPTIONS,
    )


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
    failure: Exception | None = None
    # The result or, after a failure, what is said of it.
    sent: dict[str, Any] = {}
    if world.is_main:
        try:
            sent = {"result": action()}
        except Exception as error:
            failure, sent = error, {"failure": str(error)}
    content = _broadcast(_packed(sent) if world.is_main else None)
    if failure is not None:
        raise failure
    received = sent if world.is_main else _unpacked(content)
    if "failure" in received:
        raise OtherProcessError(received["failure"])
    return cast("T", received["result"])


def gather_on_main(value: T) -> list[T]:
    """Return the values of all processes by rank, on rank 0; elsewhere an empty list.

    Args:
        value: tensors and plain values, in dicts and lists; gathered tensors are on the CPU.
    """
    world = current_world()
    if world.size == 1:
        return [value]
    content = _packed(value)
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(world.size)]
    dist.all_gather(sizes, torch.tensor([content.numel()]))
    # Equally long, as the collective wants them.
    padded = torch.zeros(int(max(sizes)), dtype=torch.uint8)
    padded[: content.numel()] = content
    gathered = [torch.empty_like(padded) for _ in sizes] if world.is_main else None
    dist.gather(padded, gathered, dst=0)
    return [_unpacked(row[: int(size)]) for row, size in zip(gathered or [], sizes, strict=False)]


def _broadcast(content: Tensor | None) -> Tensor:
    """Return the bytes of rank 0 in every process."""
    size = torch.tensor([0 if content is None else content.numel()])
    dist.broadcast(size, src=0)
    if content is None:
        content = torch.empty(int(size), dtype=torch.uint8)
    dist.broadcast(content, src=0)
    return content


def _packed(value: Any) -> Tensor:
    """Return tensors and plain values as bytes, (N,) uint8 on the CPU."""
    # Not the collectives for objects, which unpickle whatever comes through the open port.
    stream = io.BytesIO()
    torch.save(value, stream)
    return torch.frombuffer(bytearray(stream.getbuffer()), dtype=torch.uint8)


def _unpacked(content: Tensor) -> Any:
    # On the CPU: not on the accelerator that they came from.
    stream = io.BytesIO(content.numpy().tobytes())
    return torch.load(stream, map_location="cpu", weights_only=True)


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
