"""How processes that train behave: quick to start, few threads, deaf to Ctrl-C, no orphans."""

import multiprocessing
import signal
from typing import Literal

import torch

from automix.data.config import DataSource
from automix.training.task import TaskConfig
from automix.worker_processes import end_with_parent


def start_method(task: TaskConfig, *, module: str) -> Literal["forkserver", "spawn"]:
    """Return how worker processes are started; never plain fork, which an accelerator forbids.

    A worker that imports torch and scikit-learn by itself takes about six seconds. The fork
    server, which all systems but Windows have, imports them once for all workers.

    Args:
        task: what the workers train.
        module: name of the module whose code they run.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return "spawn"
    # The first optimiser step imports `torch._dynamo`, which takes as long as torch itself.
    modules = [module, "automix.training.build", "torch._dynamo"]
    if task.data.source is DataSource.DIGITS:
        modules.append("automix.data.digits")
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
