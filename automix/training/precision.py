"""Precision, products and choice of kernels of a training run, by its device.

On a CPU nothing here has an effect: same seed, same bits.
"""

import contextlib
import warnings
from collections.abc import Iterator

import torch

from automix.configuration.trainer import Precision
from automix.errors import ConfigError

_AUTOCAST_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolved_precision(precision: Precision | None, device: torch.device) -> Precision:
    """Return ``precision``, or for None the fast one: bf16 where the device computes in it.

    Raises:
        ConfigError: the device cannot compute in ``precision``.
    """
    if precision is None:
        return "bf16" if _computes_in_bfloat16(device) else "fp32"
    # Of some devices torch says so by an exception, of others by a warning and float32.
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        try:
            with passes_in(precision, device):
                return precision
        except (RuntimeError, UserWarning) as error:
            reason = str(error).partition("\n")[0]
    raise ConfigError(
        f"task.trainer.precision: expected a precision of {device}, got {precision!r}: {reason}"
    )


def _computes_in_bfloat16(device: torch.device) -> bool:
    # Not on a CPU: bfloat16 took 0.96 of a step there, for other bits. Emulated, it is slower.
    if device.type == "cpu":
        return False
    is_supported = getattr(torch.get_device_module(device), "is_bf16_supported", None)
    return is_supported is not None and bool(is_supported(including_emulation=False))


def passes_in(
    precision: Precision, device: torch.device
) -> contextlib.AbstractContextManager[object]:
    """Return a context for the forward pass of a training step."""
    if precision == "fp32":
        return fast_products(device)
    return torch.autocast(device.type, dtype=_AUTOCAST_TYPES[precision])


@contextlib.contextmanager
def fast_products(device: torch.device) -> Iterator[None]:
    """Let float32 matrix products on an accelerator use TF32, which has 10 bits of mantissa.

    For the passes of a training step only, because operators, saliency and evaluation are to be
    exact. PyTorch's own default for convolutions is TF32 already, for products it is not.
    """
    if device.type == "cpu":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def time_convolutions(device: torch.device) -> None:
    """Let cuDNN time its kernels for each new shape: those of a training run hardly change."""
    if device.type != "cpu":
        torch.backends.cudnn.benchmark = True
