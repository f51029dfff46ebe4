"""Counter-based randomness: every draw is a function of (seed, stream, rank, epoch, step).

There is no generator state to save or to fast-forward: the same numbers name the same draws
from any resume point. The numbers go through a hash, because a sum such as ``seed + step`` lets
two streams collide.
"""

import hashlib
from enum import StrEnum

import torch


class Stream(StrEnum):
    """What a draw is for; draws of different streams are independent."""

    # The values are hashed into every seed: another spelling draws other numbers.
    INITIALIZATION = "initialisation"
    ORDER = "order"
    AUGMENTATION = "augmentation"
    CROP = "crop"
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
    SELECTION = "selection"
    COMPARISON = "comparison"
    BOOTSTRAP = "bootstrap"
    CORRUPTION = "corruption"
    EVALUATION = "evaluation"


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
