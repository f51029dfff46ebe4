"""Several networks of one architecture as one network with a group for each of them.

A convolution of N networks is one convolution with N times the groups, a batch norm one with N
times the channels, whose statistics are per channel and hence per network. On a CPU, where a small
network spends most of its time between kernels, eight of them cost about three times one of them
(`python -m benchmarks.population`).

Shape suffixes: N networks, B batch, C channels, H rows, W columns, F features, K classes.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from automix.models.networks import (
    ConvNormReLU,
    GlobalAveragePool,
    PostActivationBlock,
    PreActivationBlock,
)

# Without weights of their own, and the same for any number of channels. Other modules may compute
# across channels, where the networks would see each other.
_CHANNELWISE = (
    nn.Sequential,
    nn.Identity,
    nn.ReLU,
    nn.MaxPool2d,
    ConvNormReLU,
    GlobalAveragePool,
    PostActivationBlock,
    PreActivationBlock,
)


class StackedNetwork(nn.Module):
    """N networks in one, which hold views of its weights: a change to either is one to both.

    The networks stay usable, saved and restored alone, as long as their tensors are changed in
    place.

    Examples:
        >>> networks = [nn.Sequential(nn.Conv2d(3, 4, 3), GlobalAveragePool()) for _ in range(2)]
        >>> images = torch.rand(2 * 5, 3, 8, 8)  # five for the first network, five for the second
        >>> together = StackedNetwork(networks)(images)
        >>> torch.allclose(together[5:], networks[1](images[5:]), atol=1e-6)
        True
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        """Move the weights of ``networks`` into stacked tensors, of which they get views.

        Raises:
            ValueError: a module has no stacked form; the networks are then as they were.
        """
        super().__init__()
        for module in networks[0].modules():
            if not isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
                _check_channelwise(module)
        self.num_networks = len(networks)
        self.body = _stacked(networks)
        # By number of networks: a smaller stack, and pairs of its tensors and of this one's.
        self._smaller: dict[int, tuple[StackedNetwork, list[tuple[Tensor, Tensor]]]] = {}
        self._networks = tuple(networks)

    @torch.no_grad()
    def only(self, indices: Sequence[int]) -> "StackedNetwork":
        """Return a stack of copies of some of the networks, valid until it is asked for again.

        It is in training mode if this one is. Copying is cheap beside a pass: 17 small tensors of a
        network of three convolutions, whatever the number of networks.
        """
        count = len(indices)
        if count not in self._smaller:
            smaller = StackedNetwork(copy.deepcopy(self._networks[:count]))
            both = zip(_tensors(smaller), _tensors(self), strict=True)
            self._smaller[count] = smaller, list(both)
        smaller, pairs = self._smaller[count]
        for part, whole in pairs:
            by_network(part, count).copy_(by_network(whole, self.num_networks)[list(indices)])
        return smaller if smaller.training == self.training else smaller.train(self.training)

    def forward(self, images_NBCHW: Tensor) -> Tensor:
        """Return (N * B, K) logits of (N * B, C, H, W) images, those of the first network first."""
        count = self.num_networks
        images = by_network(images_NBCHW, count)
        # (N, B, C, H, W) to (B, N C, H, W), in one copy and the memory format of the images.
        if images_NBCHW.is_contiguous(memory_format=torch.channels_last):
            images = images.permute(1, 3, 4, 0, 2).flatten(3).permute(0, 3, 1, 2)
        else:
            images = images.transpose(0, 1).flatten(1, 2)
        logits: Tensor = self.body(images)
        if logits.ndim == 2:
            # A network without a linear head: (B, N K).
            logits = logits.view(len(logits), count, -1).transpose(0, 1)
        return logits.flatten(0, 1)


class StackedLinear(nn.Module):
    """(B, N * F) features to (N, B, K) logits, each network with a matrix of its own."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.num_networks = len(layers)
        self.weight = _joined([layer.weight for layer in layers])
        biases = [layer.bias for layer in layers if layer.bias is not None]
        self.bias = _joined(biases) if biases else None

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits of each network."""
        features_NBF = features.view(len(features), self.num_networks, -1).transpose(0, 1)
        weight_NFK = by_network(self.weight, self.num_networks).transpose(1, 2)
        if self.bias is None:
            return torch.bmm(features_NBF, weight_NFK)
        bias_N1K = self.bias.view(self.num_networks, 1, -1)
        return torch.baddbmm(bias_N1K, features_NBF, weight_NFK)


def by_network(stacked: Tensor, num_networks: int) -> Tensor:
    """Return (N * B, ...) as (N, B, ...)."""
    return stacked.view(num_networks, -1, *stacked.shape[1:])


def _tensors(network: StackedNetwork) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def _check_channelwise(module: nn.Module) -> None:
    if type(module) not in _CHANNELWISE:
        raise ValueError(f"a {type(module).__name__}, which has no stacked form")


def _stacked(modules: Sequence[nn.Module]) -> nn.Module:
    first = modules[0]
    if isinstance(first, nn.Conv2d):
        return _stacked_convolution(modules)  # type: ignore[arg-type]
    if isinstance(first, nn.BatchNorm2d):
        return _stacked_norm(modules)  # type: ignore[arg-type]
    if isinstance(first, nn.Linear):
        return StackedLinear(modules)  # type: ignore[arg-type]
    container = copy.copy(first)
    container._modules = {
        name: _stacked([module._modules[name] for module in modules])  # type: ignore[misc]
        for name in first._modules
    }
    return container


def _stacked_convolution(layers: Sequence[nn.Conv2d]) -> nn.Conv2d:
    first, count = layers[0], len(layers)
    stacked = nn.Conv2d(
        first.in_channels * count,
        first.out_channels * count,
        first.kernel_size,  # type: ignore[arg-type]
        stride=first.stride,  # type: ignore[arg-type]
        padding=first.padding,  # type: ignore[arg-type]
        dilation=first.dilation,  # type: ignore[arg-type]
        groups=first.groups * count,
        bias=False,
        padding_mode=first.padding_mode,
        device="meta",
    )
    stacked.weight = _joined([layer.weight for layer in layers])
    biases = [layer.bias for layer in layers if layer.bias is not None]
    stacked.bias = _joined(biases) if biases else None
    return stacked


def _stacked_norm(layers: Sequence[nn.BatchNorm2d]) -> nn.BatchNorm2d:
    first = layers[0]
    stacked = nn.BatchNorm2d(
        first.num_features * len(layers), eps=first.eps, momentum=first.momentum, device="meta"
    )
    stacked.weight = _joined([layer.weight for layer in layers])
    stacked.bias = _joined([layer.bias for layer in layers])
    for name in ("running_mean", "running_var"):
        joined = torch.cat([layer._buffers[name] for layer in layers])  # type: ignore[misc]
        stacked._buffers[name] = joined
        for layer, part in zip(layers, joined.chunk(len(layers)), strict=True):
            layer._buffers[name] = part
    # Counted by whoever trains the networks: it has no part in the arithmetic.
    stacked.num_batches_tracked = None
    return stacked


def _joined(parameters: Sequence[Tensor]) -> nn.Parameter:
    """Join parameters along the first dimension; they become views of the result."""
    joined = torch.cat([parameter.detach() for parameter in parameters])
    if joined.ndim == 4 and parameters[0].is_contiguous(memory_format=torch.channels_last):
        joined = joined.contiguous(memory_format=torch.channels_last)
    for parameter, part in zip(parameters, joined.chunk(len(parameters)), strict=True):
        parameter.data = part
    return nn.Parameter(joined, requires_grad=parameters[0].requires_grad)
