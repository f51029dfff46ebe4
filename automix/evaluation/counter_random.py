"""Counter-based random numbers that belong to a sample, not to a batch.

Number j of sample i is a hash of (seed, name, i, j). An image therefore meets the same noise alone,
in any batch and on any device, and nothing has to be drawn in order.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from automix.random_streams import Stream, derived_seed

# SplitMix64 (Steele et al. 2014, https://doi.org/10.1145/2660193.2660195): step and multipliers.
_STEP = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_NUM_BITS = 23  # (k + 0.5) / 2^23 is exact in float32, and never 0 or 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SampleRandom:
    """Draws for a batch of samples; draws of different names are independent."""

    seed: int  # names all draws
    indices: Tensor  # (N,) int64, number of each sample in its dataset

    def uniform(self, name: str, shape: tuple[int, ...] = ()) -> Tensor:
        """Return (N, *shape) float32 uniform in (0, 1), on the device of the indices."""
        # The bytes of a short name are a number of its own.
        number = int.from_bytes(name.encode(), "little")
        key = derived_seed(self.seed, Stream.CORRUPTION, step=number)
        # Two rounds: one key per sample, then one number per value of the sample.
        sample_keys_N = _mix(self.indices * _signed(_STEP) + key)
        num_values = torch.Size(shape).numel()
        counters = torch.arange(1, num_values + 1, device=self.indices.device)
        bits = _mix(sample_keys_N[:, None] + counters * _signed(_STEP))
        # The upper bits are the best mixed; half a step up keeps 0 and 1 out.
        fractions = _shift_right(bits, 64 - _NUM_BITS).float().add_(0.5).mul_(0.5**_NUM_BITS)
        return fractions.view(len(self.indices), *shape)

    def normal(self, name: str, shape: tuple[int, ...] = ()) -> Tensor:
        """Return (N, *shape) float32 standard normal values, at most 5.3 in size."""
        # Phi^-1(u) = sqrt(2) erfinv(2 u - 1).
        return torch.erfinv(self.uniform(name, shape).mul_(2).sub_(1)).mul_(2**0.5)

    def integers(self, name: str, shape: tuple[int, ...], *, high: int) -> Tensor:
        """Return (N, *shape) int64 in [0, ``high``), for ``high`` far below 2^23."""
        return (self.uniform(name, shape) * high).long()


def _mix(values: Tensor) -> Tensor:
    """Return SplitMix64's output function of int64 values, modulo 2^64."""
    values = (values ^ _shift_right(values, 30)) * _signed(_MULTIPLIERS[0])
    values = (values ^ _shift_right(values, 27)) * _signed(_MULTIPLIERS[1])
    return values ^ _shift_right(values, 31)


def _shift_right(values: Tensor, num_bits: int) -> Tensor:
    """Shift as if unsigned: torch keeps the sign."""
    return (values >> num_bits) & ((1 << (64 - num_bits)) - 1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
