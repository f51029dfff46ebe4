"""Functions run by several processes that have joined one world, as torchrun would start them."""

import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from automix.training.distributed import joined_world

LARGEST_WORLD = 3
_PATIENCE_IN_SECONDS = 300

RunWorld = Callable[..., list[Any]]
"""Takes (size, function, *arguments); returns what each process returned, by rank."""


@contextmanager
def world_runner() -> Iterator[RunWorld]:
    """Start processes when they are first needed, and keep them for the worlds that follow."""
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["automix.training.trainer", "torch._dynamo"])
    with ProcessPoolExecutor(LARGEST_WORLD, mp_context=context) as pool:

        def run(size: int, function: Callable[..., Any], *arguments: object) -> list[Any]:
            port = _free_port()
            processes = [
                pool.submit(_in_world, _environment(rank, size, port), function, arguments)
                for rank in range(size)
            ]
            return [process.result(_PATIENCE_IN_SECONDS) for process in processes]

        yield run


def _in_world(
    environment: dict[str, str], function: Callable[..., Any], arguments: tuple[object, ...]
) -> Any:
    torch.set_num_threads(1)
    os.environ.update(environment)
    try:
        with joined_world():
            # One that fails at once must not hang up on others that still connect.
            if dist.is_initialized():
                dist.barrier()
            return function(*arguments)
    finally:
        # After an exception a process would end; this one is used again.
        if dist.is_initialized():
            dist.destroy_process_group()


def _environment(rank: int, size: int, port: int) -> dict[str, str]:
    return {
        "TORCHELASTIC_RUN_ID": "test",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port
