"""Saliency from the gradient of the loss with respect to the images.

PuzzleMix, Co-Mixup, R-Mix and Saliency Grafting use it, first described in
https://arxiv.org/abs/1312.6034.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automix.saliency.isolation import raw_module, without_trace
from automix.saliency.maps import gradient_magnitude, normalised
from automix.saliency.types import Statistics


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
    which cells are the most salient.

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
        images = images_BCHW.detach().float().requires_grad_()
        gradient = loss_gradient(raw(images), targets, images)
    return normalised(gradient_magnitude(gradient))


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


def loss_gradient(logits_BK: Tensor, targets: Tensor, at: Tensor) -> Tensor:
    """Return the gradient of the summed cross-entropy with respect to ``at``.

    Args:
        logits_BK: a function of ``at``.
        targets: (B,) class indices or (B, K) soft targets.
        at: a tensor that requires a gradient.
    """
    # Summed, not averaged: the factor cancels in the normalised map, and 1/B costs range.
    loss = F.cross_entropy(logits_BK.float(), targets, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, at)
    return gradient
