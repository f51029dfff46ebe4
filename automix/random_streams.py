"""Counter-based randomness: every draw is a function of (seed, stream, rank, epoch, step).

There is no generator state to save or to fast-forward: the same numbers name the same draws
from any resume point. The numbers go through a hash, because a sum such as ``seed + step`` lets
two streams collide.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from enum import StrEnum

import torch

# `fork_rng` cannot address these by index: the CPU is always forked, MPS has one generator only.
_WITHOUT_INDEXED_GENERATORS = ("cpu", "mps")


class Stream(StrEnum):
    """Purpose of a draw; draws of different streams are independent."""

    # The values are hashed into every seed: another spelling draws other numbers.
    INITIALIZATION = "initialisation"
    ORDER = "order"
    AUGMENTATION = "augmentation"
    CROP = "crop"
    PIXEL_OPERATIONS = "pixel operations"
    MIXING = "mixing"
    MIXING_CHOICE = "mixing choice"
    NETWORK = "network"
    SPLIT = "split"
    STATISTICS = "statistics"
    PROBE = "probe"
    EPISODE = "episode"
    SNAPSHOT = "snapshot"
    POLICY = "policy"
    GREEDY = "greedy"
    RACE = "race"
    SELECTION = "selection"
    FINAL = "final"
    COMPARISON = "comparison"
    BOOTSTRAP = "bootstrap"
    CORRUPTION = "corruption"
    EVALUATION = "evaluation"
    MIXER = "mixer"
    TASK = "task"


def derived_seed(seed: int, stream: Stream, *, rank: int = 0, epoch: int = 0, step: int = 0) -> int:
    """Return a 63-bit seed that is a hash of the arguments."""
    key = f"{seed}/{stream.value}/{rank}/{epoch}/{step}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 1


def stream_generator(
    seed: int,
    stream: Stream,
    *,
    rank: int = 0,
    epoch: int = 0,
    step: int = 0,
    device: torch.device | str = "cpu",
) -> torch.Generator:
    """Return a fresh generator on ``device`` for the draws named by the arguments."""
    generator = torch.Generator(device=device)
    generator.manual_seed(derived_seed(seed, stream, rank=rank, epoch=epoch, step=step))
    return generator


@contextlib.contextmanager
def restored_generators(device: torch.device) -> Iterator[None]:
    """Restore torch's global generators of the CPU and of ``device`` after a block."""
    indexed = [] if device.type in _WITHOUT_INDEXED_GENERATORS else [device]
    with torch.random.fork_rng(devices=indexed, device_type=device.type):
        yield
