"""Random initial values from an explicit generator.

The constructors and `reset_parameters` of `torch.nn` draw from the global generator. Here the
global generator is neither read nor advanced, and the same generator state gives the same
values on every device, because everything is drawn on the generator's device in float32.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

_WITHOUT_DRAWS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


@runtime_checkable
class _Resettable(Protocol):
    def reset_parameters(self) -> None: ...


@torch.no_grad()
def initialise_(module: nn.Module, generator: Generator) -> None:
    """Give every parameter and every batch-norm buffer of ``module`` a new value, in place.

    Convolutions: Kaiming normal, fan out, zero bias (https://arxiv.org/abs/1502.01852). Linear:
    uniform within 1 / sqrt(inputs), weight and bias. Normalisation: scale 1, shift 0, running
    statistics reset. Any other module: its own ``reset_parameters``.

    Args:
        module: any module; storage, dtype, device and memory format of its tensors stay.
        generator: advanced; the global generators are not.

    Raises:
        TypeError: a parameter belongs to a module without ``reset_parameters``, such as the
            class token of a vision transformer; `automix.models.registry.reinitialise_` can
            initialise those.
    """
    done: set[int] = set()
    for part in module.modules():
        if isinstance(part, _ConvNd):
            _initialise_convolution(part, generator)
        elif isinstance(part, nn.Linear):
            _initialise_linear(part, generator)
        elif isinstance(part, _WITHOUT_DRAWS):
            part.reset_parameters()
        elif isinstance(part, _Resettable):
            _reset_with_drawn_seed(part, generator)
        else:
            continue
        done.update(id(parameter) for parameter in part.parameters())
    left = [name for name, parameter in module.named_parameters() if id(parameter) not in done]
    if left:
        raise TypeError(f"expected modules with reset_parameters, got the bare parameter {left[0]}")


@contextmanager
def global_generator_seeded(seed: int) -> Iterator[None]:
    """Seed torch's global CPU generator for a block of code, and put its state back after it."""
    # Not torch.manual_seed, which would also reseed every accelerator and not put that back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def drawn_seed(generator: Generator) -> int:
    """Draw a 63-bit seed."""
    high = torch.iinfo(torch.int64).max
    return int(torch.randint(high, (), generator=generator, device=generator.device))


def _initialise_convolution(convolution: _ConvNd, generator: Generator) -> None:
    drawn = _empty_for(convolution.weight, generator)
    nn.init.kaiming_normal_(drawn, mode="fan_out", nonlinearity="relu", generator=generator)
    convolution.weight.copy_(drawn)
    if convolution.bias is not None:
        convolution.bias.zero_()


def _initialise_linear(linear: nn.Linear, generator: Generator) -> None:
    bound = max(linear.in_features, 1) ** -0.5
    for parameter in (linear.weight, linear.bias):
        if parameter is not None:
            drawn = _empty_for(parameter, generator)
            parameter.copy_(drawn.uniform_(-bound, bound, generator=generator))


def _empty_for(parameter: Tensor, generator: Generator) -> Tensor:
    return torch.empty(parameter.shape, dtype=torch.float32, device=generator.device)


def _reset_with_drawn_seed(part: _Resettable, generator: Generator) -> None:
    assert isinstance(part, nn.Module)
    # `reset_parameters` takes no generator. A twin on the CPU needs only the CPU's global
    # generator to be put back, and draws the same values for every device.
    twin = copy.deepcopy(part).cpu()
    with global_generator_seeded(drawn_seed(generator)):
        twin.reset_parameters()
    copy_values_(part, twin)


@torch.no_grad()
def copy_values_(target: nn.Module, source: nn.Module) -> None:
    """Copy every parameter and buffer of ``source`` into the same-named tensor of ``target``."""
    for mine, theirs in (
        (dict(target.named_parameters()), dict(source.named_parameters())),
        (dict(target.named_buffers()), dict(source.named_buffers())),
    ):
        assert mine.keys() == theirs.keys()
        for name, tensor in mine.items():
            tensor.copy_(theirs[name])
