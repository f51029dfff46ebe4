"""A pass through a network that is being trained, without a trace of it afterwards."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from automix.saliency.config import Statistics

# fork_rng cannot address these by index: the CPU is always forked, MPS has one generator only.
_WITHOUT_INDEXED_GENERATORS = ("cpu", "mps")


def raw_module(model: nn.Module) -> nn.Module:
    """Return the module inside DistributedDataParallel, DataParallel and `torch.compile`.

    A saliency pass through the wrappers would add compiled graphs, and fails in NCCL's
    reducer from torch 2.6 on (https://github.com/pytorch/pytorch/issues/175024).
    """
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def pass_dtype(model: nn.Module) -> torch.dtype:
    """Return the type of the images that a raw module takes: that of its weights, or float32."""
    types = [parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()]
    return types[0] if types else torch.float32


@contextmanager
def without_trace(
    model: nn.Module, *, device: torch.device, statistics: Statistics
) -> Iterator[None]:
    """Run a block so that ``model`` and the global generators are bit-equal after it.

    Inside, no parameter requires a gradient, batch norm does not track, dropout and stochastic
    depth are off, autocast is off and gradients are recorded. Everything is put back when the
    block raises, too.

    Args:
        model: the raw module.
        device: of the images; its generator is put back as well as the CPU's.
        statistics: what batch norm normalises with.
    """
    indexed = [] if device.type in _WITHOUT_INDEXED_GENERATORS else [device]
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=indexed, device_type=device.type))
        if any(module._compiled_call_impl is not None for module in model.modules()):
            # `model.compile()` compiles in place and leaves no wrapper to take off.
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(torch.autocast(device.type, enabled=False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_frozen_parameters(model))
        stack.enter_context(_frozen_state(model, statistics))
        yield


@contextmanager
def _frozen_parameters(model: nn.Module) -> Iterator[None]:
    """`autograd.grad` skips the weights' gradients anyway; this also spares saving their inputs."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@contextmanager
def _frozen_state(model: nn.Module, statistics: Statistics) -> Iterator[None]:
    modules = list(model.modules())
    modes = [module.training for module in modules]
    tracking: list[_BatchNorm] = []
    buffers: list[tuple[dict[str, Tensor | None], dict[str, Tensor | None]]] = []
    try:
        for module, was_training in zip(modules, modes, strict=True):
            if isinstance(module, _BatchNorm):
                if module.training and module.track_running_stats:
                    # In train mode this alone makes batch norm normalise with the batch and leave
                    # its buffers alone. Momentum 0 would not: 0 * NaN is NaN.
                    tracking.append(module)
                    module.track_running_stats = statistics is Statistics.RUNNING
                module.training = was_training and statistics is Statistics.BATCH
                continue
            module.training = False
            if was_training and module._buffers:
                # Whatever else keeps state in buffers (instance norm, spectral norm) works on
                # copies.
                buffers.append((module._buffers, dict(module._buffers)))
                for name, buffer in module._buffers.items():
                    module._buffers[name] = None if buffer is None else buffer.clone()
        yield
    finally:
        for current, original in buffers:
            current.update(original)
        for norm in tracking:
            norm.track_running_stats = True
        for module, was_training in zip(modules, modes, strict=True):
            module.training = was_training
