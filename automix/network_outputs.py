"""Outputs of networks, understood alike by training, saliency and evaluation.

Shape suffixes: B batch, K classes.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor


class ClassifierOutput(NamedTuple):
    """The logits of a network, those of its auxiliary heads, and attention that was asked for."""

    logits: Tensor
    auxiliary: tuple[Tensor, ...] = ()
    # (B, N, N) among the N tokens in the last layer, averaged over the heads.
    attention: Tensor | None = None


def read_output(output: object) -> ClassifierOutput:
    """Return logits and auxiliary logits in what a network returns.

    Auxiliary logits are the floating-point tensors of the shape of the logits that are named
    ``aux...`` in an object or mapping (torchvision's Inception and GoogLeNet), or that follow the
    logits in a plain tuple or list. Whatever else there is beside the logits is left alone.

    Raises:
        TypeError: there are no logits.

    Examples:
        >>> import torch
        >>> logits = torch.zeros(2, 3)
        >>> len(read_output((logits, logits + 1, torch.zeros(2, 64))).auxiliary)
        1
    """
    logits = logits_of(output)
    if isinstance(output, Tensor):
        return ClassifierOutput(logits)
    auxiliary = tuple(
        value
        for value in _beside_logits(output)
        if isinstance(value, Tensor) and value.is_floating_point() and value.shape == logits.shape
    )
    return ClassifierOutput(logits, auxiliary)


def logits_of(output: object) -> Tensor:
    """Return the logits in what a network returns.

    They are the tensor itself, what is named ``logits`` in an object or mapping (as in
    Transformers, or torchvision's Inception), or the first element of a tuple or list.

    Raises:
        TypeError: there are none.

    Examples:
        >>> import torch
        >>> logits_of({"logits": torch.zeros(2, 3), "hidden": None}).shape
        torch.Size([2, 3])
    """
    logits = output
    if isinstance(output, Mapping):
        logits = output.get("logits")
    elif not isinstance(output, Tensor):
        logits = getattr(output, "logits", None)
        if logits is None and isinstance(output, tuple | list) and output:
            logits = output[0]
    if isinstance(logits, Tensor) and logits.is_floating_point():
        return logits
    keys = f" with {', '.join(map(str, output))}" if isinstance(output, Mapping) else ""
    dtype = f" of {output.dtype}" if isinstance(output, Tensor) else ""
    raise TypeError(
        "network: expected a network that returns floating-point logits, alone, named logits, or "
        f"first in a tuple, got {type(output).__name__}{dtype}{keys}; wrap the network in one that "
        "returns them"
    )


def _beside_logits(output: object) -> Iterator[Any]:
    named: Mapping[Any, Any]
    if isinstance(output, Mapping):
        named = output
    elif isinstance(output, tuple) and hasattr(output, "_asdict"):
        named = output._asdict()
    elif isinstance(output, tuple | list):
        yield from output[1:]
        return
    else:
        named = vars(output) if hasattr(output, "__dict__") else {}
    yield from (value for name, value in named.items() if str(name).startswith("aux"))
