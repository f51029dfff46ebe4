"""The classifier as a training step runs it: precision, memory format, compilation, processes.

Shape suffixes: B batch, C channels, H rows, W columns, K classes.
"""

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from automix.errors import ConfigError
from automix.mixing import StepKey
from automix.random_streams import Stream, derived_seed
from automix.training.config import TrainerConfig
from automix.training.distributed import copy_from_main_, current_world, sum_over_processes_

_AUTOCAST_TYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
# `share_buffers_` does it after the step, for the averaged weights too. Newer releases of PyTorch
# have a new name for the option, and warn of the old one.
_DISTRIBUTED_OPTIONS: dict[str, Any] = (
    {"forward_sync_buffers": False}
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else {"broadcast_buffers": False}
)
# Generators of these devices cannot be addressed by an index.
_WITHOUT_INDEXED_GENERATORS = ("cpu", "mps")


class TrainedNetwork:
    """Runs forward passes whose backward passes train ``model``.

    Attributes:
        model: the raw module, whose weights are initialised, averaged, saved and evaluated, and
            which saliency is asked about.
    """

    def __init__(self, model: nn.Module, config: TrainerConfig) -> None:
        """Wrap ``model``, which is on its device, as ``config`` and the processes ask for.

        Raises:
            ConfigError: the device cannot compute in the precision that is asked for.
        """
        self.model = model
        self._device = next(model.parameters()).device
        self._dtype = _AUTOCAST_TYPES[config.precision]
        self._check_precision(config.precision)
        self._format = torch.channels_last if config.channels_last else torch.contiguous_format
        model.to(memory_format=self._format)
        self._distributed = _distributed(model, self._device)
        forward = self._distributed or model
        self._forward: Callable[..., Tensor] = torch.compile(forward) if config.compile else forward
        self._statistics = _batch_norm_statistics(model)
        statistics = {id(tensor) for tensor in self._statistics}
        self._other_buffers = [b for b in model.buffers() if id(b) not in statistics]

    def laid_out(self, images_BCHW: Tensor) -> Tensor:
        """Return the images in the memory format of the network."""
        return images_BCHW.contiguous(memory_format=self._format)

    def logits(self, images_BCHW: Tensor, *, key: StepKey) -> Tensor:
        """Return (B, K) logits, in the precision of the training.

        Dropout and stochastic depth draw from the global generators. They are seeded for this pass
        and put back after it, so that a pass is a function of its arguments and the weights.

        Args:
            images_BCHW: float32.
            key: names what the network itself draws.
        """
        seed = derived_seed(key.seed, Stream.NETWORK, rank=key.rank, step=key.step)
        with _seeded(self._device, seed), self.autocast():
            return self._forward(images_BCHW)

    @contextlib.contextmanager
    def accumulating(self, *, is_last: bool) -> Iterator[None]:
        """Keep gradients of a micro-batch in this process, unless it is the last of its step."""
        if self._distributed is None or is_last:
            yield
        else:
            with self._distributed.no_sync():
                yield

    @torch.no_grad()
    def share_buffers_(self) -> None:
        """Make the buffers of all processes equal, as the gradients make the weights.

        The statistics of batch norm become their means over the processes, other buffers those of
        rank 0. Between steps every process then holds the same bits, and one can save for all.
        """
        size = current_world().size
        if size == 1:
            return
        if self._statistics:
            flat = torch.cat([tensor.flatten() for tensor in self._statistics])
            means = sum_over_processes_(flat).div_(size)
            parts = torch.split(means, [tensor.numel() for tensor in self._statistics])
            for tensor, part in zip(self._statistics, parts, strict=True):
                tensor.copy_(part.view_as(tensor))
        copy_from_main_(self._other_buffers)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Run a block in the precision of the training."""
        if self._dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, dtype=self._dtype)

    def _check_precision(self, precision: str) -> None:
        # Of some devices torch says so by an exception, of others by a warning and float32.
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            try:
                with self.autocast():
                    return
            except (RuntimeError, UserWarning) as error:
                reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"task.trainer.precision: expected a precision of {self._device}, got {precision!r}: "
            f"{reason}"
        )


def _distributed(model: nn.Module, device: torch.device) -> DistributedDataParallel | None:
    if current_world().size == 1:
        return None
    return DistributedDataParallel(
        model,
        device_ids=None if device.type == "cpu" else [device],
        gradient_as_bucket_view=True,
        **_DISTRIBUTED_OPTIONS,
    )


def _batch_norm_statistics(model: nn.Module) -> list[Tensor]:
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    pairs = [(norm.running_mean, norm.running_var) for norm in norms]
    return [tensor for pair in pairs for tensor in pair if tensor is not None]


@contextlib.contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    # 5 microseconds on a CPU, so there is no need to ask whether the network draws at all.
    indexed = [] if device.type in _WITHOUT_INDEXED_GENERATORS else [device]
    with torch.random.fork_rng(devices=indexed, device_type=device.type):
        torch.default_generator.manual_seed(seed)
        if device.type != "cpu":
            torch.get_device_module(device).manual_seed(seed)
        yield
