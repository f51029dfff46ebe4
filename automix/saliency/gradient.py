"""Saliency from the gradient of the loss with respect to the image or to a hidden layer.

PuzzleMix, Co-Mixup, R-Mix and Saliency Grafting use it; first described in
https://arxiv.org/abs/1312.6034.
"""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automix.saliency.config import Statistics
from automix.saliency.isolation import pass_dtype, raw_module, without_trace
from automix.saliency.maps import gradient_magnitude, normalised, resized


def input_gradient(
    model: nn.Module,
    images_BCHW: Tensor,
    targets: Tensor,
    *,
    statistics: Statistics = Statistics.BATCH,
) -> Tensor:
    """Return the root mean square over channels of d cross-entropy / d image, per pixel.

    One forward pass and the half of a backward pass that does not concern the weights: about
    two thirds of a training step. In float32 whatever autocast says, because bfloat16 changes
    which cells are the most salient; a model whose weights are of another type gets images of it.

    Args:
        model: a classifier, (B, C, H, W) to logits (B, K). Its raw module is used, and nothing
            about it has changed afterwards, also when the pass raises: parameters, ``.grad``,
            buffers, flags, and the global random generators.
        images_BCHW: floating point; not modified.
        targets: (B,) class indices or (B, K) soft targets.
        statistics: what batch norm normalises with.

    Returns:
        (B, H, W) float32 on the images' device, not negative, sums to 1 per image; uniform where
        the gradient is zero or not finite.
    """
    raw = raw_module(model)
    with without_trace(raw, device=images_BCHW.device, statistics=statistics):
        images = images_BCHW.detach().to(pass_dtype(raw)).requires_grad_()
        gradient = _loss_gradient(raw(images), targets, images)
    return normalised(gradient_magnitude(gradient))


def layer_gradient(
    model: nn.Module,
    images_BCHW: Tensor,
    targets: Tensor,
    *,
    layer: str,
    statistics: Statistics = Statistics.BATCH,
) -> Tensor:
    """Return the root mean square over channels of d cross-entropy / d output of a layer.

    The backward pass ends at the layer, so a late layer costs little more than a forward pass; its
    map is as coarse as the layer and is enlarged bilinearly.

    Args:
        model: as in `input_gradient`.
        images_BCHW: floating point; not modified.
        targets: (B,) class indices or (B, K) soft targets.
        layer: name of a module of the raw model whose output is (B, channels, rows, columns); of
            a module that is called several times, the last call counts.
        statistics: what batch norm normalises with.

    Returns:
        (B, H, W) maps as of `input_gradient`.

    Raises:
        ValueError: there is no such module, it is not called, or its output is not of that shape.
    """
    raw = raw_module(model)
    with (
        without_trace(raw, device=images_BCHW.device, statistics=statistics),
        _cut_at(raw, layer) as outputs,
    ):
        logits = raw(images_BCHW.detach().to(pass_dtype(raw)))
        if not outputs:
            raise ValueError(f"expected a layer that the model calls, got {layer!r}")
        gradient = _loss_gradient(logits, targets, outputs[-1])
    height, width = images_BCHW.shape[2:]
    return normalised(resized(gradient_magnitude(gradient), height, width))


def reduced_gradient(
    model: nn.Module,
    images_BCHW: Tensor,
    targets: Tensor,
    *,
    scale: float = 0.5,
    statistics: Statistics = Statistics.BATCH,
) -> Tensor:
    """Return the input gradient of the shrunken images, enlarged bilinearly.

    Costs ``scale`` squared of `input_gradient`; the model must take images of that size.

    Args:
        model: as in `input_gradient`.
        images_BCHW: floating point; not modified.
        targets: (B,) class indices or (B, K) soft targets.
        scale: side of the shrunken images as a share of the images', in (0, 1).
        statistics: what batch norm normalises with.

    Returns:
        (B, H, W) maps as of `input_gradient`.
    """
    if not 0 < scale < 1:
        raise ValueError(f"expected a scale between 0 and 1, got {scale}")
    height, width = images_BCHW.shape[2:]
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    small = F.interpolate(images_BCHW.detach().float(), size=size, mode="bilinear", antialias=True)
    maps = input_gradient(model, small, targets, statistics=statistics)
    return normalised(resized(maps, height, width))


@dataclass(frozen=True, slots=True, kw_only=True)
class InputGradient:
    """`input_gradient` as a source.

    Attributes:
        statistics: what batch norm normalises with.
    """

    statistics: Statistics = Statistics.BATCH

    def __call__(self, model: nn.Module, images_BCHW: Tensor, targets: Tensor) -> Tensor:
        """Return (B, H, W) maps, see `automix.saliency.types.SaliencySource`."""
        return input_gradient(model, images_BCHW, targets, statistics=self.statistics)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerGradient:
    """`layer_gradient` as a source.

    Attributes:
        layer: name of the module.
        statistics: what batch norm normalises with.
    """

    layer: str
    statistics: Statistics = Statistics.BATCH

    def __call__(self, model: nn.Module, images_BCHW: Tensor, targets: Tensor) -> Tensor:
        """Return (B, H, W) maps, see `automix.saliency.types.SaliencySource`."""
        return layer_gradient(
            model, images_BCHW, targets, layer=self.layer, statistics=self.statistics
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReducedGradient:
    """`reduced_gradient` as a source.

    Attributes:
        scale: side of the shrunken images as a share of the images'.
        statistics: what batch norm normalises with.
    """

    scale: float = 0.5
    statistics: Statistics = Statistics.BATCH

    def __call__(self, model: nn.Module, images_BCHW: Tensor, targets: Tensor) -> Tensor:
        """Return (B, H, W) maps, see `automix.saliency.types.SaliencySource`."""
        return reduced_gradient(
            model, images_BCHW, targets, scale=self.scale, statistics=self.statistics
        )


def _loss_gradient(logits_BK: Tensor, targets: Tensor, at: Tensor) -> Tensor:
    # Summed, not averaged: the factor cancels in the normalised map, and 1/B costs range.
    loss = F.cross_entropy(logits_BK.float(), targets, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, at)
    return gradient


@contextmanager
def _cut_at(model: nn.Module, layer: str) -> Iterator[list[Tensor]]:
    """Make the outputs of a layer leaves of the graph, and collect them."""
    modules = dict(model.named_modules())
    if layer not in modules:
        close = difflib.get_close_matches(layer, modules, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"expected the name of a module of the model, got {layer!r}{hint}")
    outputs: list[Tensor] = []

    def cut(module: nn.Module, inputs: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"expected layer {layer!r} to give (B, channels, rows, columns), got {got}"
            )
        outputs.append(output.detach().requires_grad_())
        return outputs[-1]

    handle = modules[layer].register_forward_hook(cut)
    try:
        yield outputs
    finally:
        handle.remove()
