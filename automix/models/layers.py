"""Order of the layers of a network, from the image to the head, and what is done layer by layer."""

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from automix.errors import ConfigError

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def layer_numbers(model: nn.Module) -> dict[str, int]:
    """Return the number of the layer of each parameter, from 0 at the image to the head's.

    A layer is what a pretrained network is thawed by: the stem, each residual or transformer block,
    a single convolution or matrix in between, and the head. Norms and tokens belong to the layer
    before them, those at the very beginning to the stem, as in BEiT (https://arxiv.org/abs/2106.08254)
    and timm, whose networks know their own order. Other networks are read in the order in which
    their modules are registered, and the last one with a matrix is the head.

    Examples:
        >>> block = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
        >>> layer_numbers(nn.Sequential(block, nn.Linear(2, 3, bias=False)))
        {'0.0.weight': 0, '0.0.bias': 0, '0.1.weight': 0, '0.1.bias': 0, '1.weight': 1}
    """
    network: Any = model
    if hasattr(network, "group_matcher"):
        # Such a network is timm's own.
        from timm.models import group_parameters  # noqa: PLC0415

        groups: dict[str, int] = group_parameters(
            network, network.group_matcher(coarse=False), reverse=True
        )
        return {name: groups[name] for name, _ in model.named_parameters()}
    numbers: dict[str, int] = {}
    number, has_matrix = 0, False
    for names, starts_layer in _parts(model, ""):
        # A token before the first matrix is no layer of its own.
        number += starts_layer and has_matrix
        has_matrix = has_matrix or starts_layer
        numbers |= dict.fromkeys(names, number)
    # Shared weights have the name, and the layer, under which they come first.
    return {name: numbers[name] for name, _ in model.named_parameters()}


def _parts(module: nn.Module, prefix: str) -> Iterator[tuple[list[str], bool]]:
    """Yield names of parameters, in order, and whether they begin a layer."""
    if names := [prefix + name for name, _ in module.named_parameters(recurse=False)]:
        yield names, not isinstance(module, _NORMS) and not any(module.children())
    for name, child in module.named_children():
        path = f"{prefix}{name}."
        if type(child) in _CONTAINERS or any(map(_repeats_blocks, child.modules())):
            yield from _parts(child, path)
        elif names := [path + inner for inner, _ in child.named_parameters()]:
            yield names, _num_matrices(child) > 0


def _repeats_blocks(module: nn.Module) -> bool:
    """Whether it is a list with two blocks of a class, which hold at least two matrices each."""
    # One convolution with its norm and activation is part of a block.
    if not isinstance(module, _CONTAINERS):
        return False
    kinds = [type(child) for child in module.children() if _num_matrices(child) > 1]
    return len(kinds) > len(set(kinds))


def _num_matrices(module: nn.Module) -> int:
    return sum(
        any(parameter.ndim > 1 for parameter in part.parameters(recurse=False))
        for part in module.modules()
        if not isinstance(part, _NORMS)
    )


def checkpoint_gradients_(model: nn.Module) -> None:
    """Make a network of timm or Transformers compute activations again in the backward pass.

    Raises:
        ConfigError: it has no such mode.
    """
    for module in model.modules():
        candidate: Any = module
        if hasattr(candidate, "set_grad_checkpointing"):
            try:
                candidate.set_grad_checkpointing(True)
            except AssertionError:
                break
            return
        if getattr(candidate, "supports_gradient_checkpointing", False):
            # Without a trace for the backward pass, its older form would find no gradient to pass.
            candidate.gradient_checkpointing_enable({"use_reentrant": False})
            return
    raise ConfigError(
        "task.trainer.gradient_checkpointing: expected false for a network without such a mode, "
        f"got true for {type(model).__name__}"
    )
