"""How processes that train behave: few threads, deaf to Ctrl-C."""

import signal

import torch


def prepare_worker(num_threads: int) -> None:
    """Set up a worker process: its threads, and that only its parent reacts to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(num_threads)
