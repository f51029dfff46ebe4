"""Similarity of the gradients of a mixed batch and of the clean one: RL-Mix's reward.

Random-Mixup, https://arxiv.org/abs/2212.04875. Shape suffixes: B batch, C channels, H rows, W
columns, P cells per side, K classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automix.network_outputs import logits_of
from automix.operator_info import Operator, Statistics
from automix.operators.types import MixedBatch
from automix.saliency.gradient import outputs_of, raw_module, without_trace
from automix.saliency.losses import loss_gradient
from automix.schedule import Decision

_CELLS = 8


def decision_similarity(
    model: nn.Module, images_BCHW: Tensor, labels_B: Tensor, mixed: MixedBatch, decision: Decision
) -> float:
    """Return the expected cosine of the input gradients of a batch, clean and as decided."""
    # A decision mixes a batch with probability p: the expectation is p * cosine + (1 - p) * 1,
    # because an unmixed batch is like itself.
    if decision.operator is Operator.NONE:
        return 1.0
    clean, _ = gradient_cells(model, images_BCHW, labels_B, cells=_CELLS)
    other, _ = gradient_cells(model, mixed.images, mixed.targets, cells=_CELLS)
    cosine = float(batch_similarity(clean, other))
    return decision.probability * cosine + (1 - decision.probability)


def gradient_cells(
    model: nn.Module,
    images_BCHW: Tensor,
    targets: Tensor,
    *,
    cells: int,
    layer: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Return gradient magnitudes on a grid, (B, P, P), and logits, (B, K), both float32.

    The gradient is of the loss, (B,) or (B, K) targets, at the image or at the output of ``layer``.
    The magnitudes are right up to one factor for the whole batch: unlike in saliency maps, an image
    whose loss is large has large values. Nothing about the model changes.
    """
    raw = raw_module(model)
    with without_trace(raw, device=images_BCHW.device, statistics=Statistics.BATCH):
        images = images_BCHW.detach().float()
        if layer is None:
            at = images.requires_grad_()
            logits = logits_of(raw(images)).float()
        else:
            with outputs_of(raw, layer, cut=True) as outputs:
                logits = logits_of(raw(images)).float()
            at = outputs[-1]
        gradient_BCHW = loss_gradient(logits, targets, at)
    return pooled_magnitude(gradient_BCHW, cells=cells), logits.detach()


def pooled_magnitude(gradient_BCHW: Tensor, *, cells: int) -> Tensor:
    """Return the root mean square over channels on a grid, (B, P, P)."""
    # By the peak of the batch: squares of the gradients of well-fitted images underflow.
    scaled = gradient_BCHW / gradient_BCHW.abs().amax().clamp_min(_tiny(gradient_BCHW))
    maps_B1HW = scaled.square().mean(dim=1, keepdim=True).sqrt()
    # Larger maps are averaged over the cells, smaller ones enlarged.
    if min(maps_B1HW.shape[2:]) >= cells:
        return F.adaptive_avg_pool2d(maps_B1HW, cells).squeeze(1)
    return F.interpolate(maps_B1HW, size=(cells, cells), mode="bilinear", antialias=True).squeeze(1)


def batch_similarity(a_BPP: Tensor, b_BPP: Tensor) -> Tensor:
    """Return one cosine over the whole batch, a scalar in [0, 1]; 0 without any gradient."""
    # The published reward; one image with a large gradient decides it.
    return _cosine(a_BPP.flatten()[None], b_BPP.flatten()[None])[0]


def image_similarity(a_BPP: Tensor, b_BPP: Tensor) -> Tensor:
    """Return one cosine per image, (B,): every image counts alike in their mean."""
    return _cosine(a_BPP.flatten(1), b_BPP.flatten(1))


def _cosine(a_BN: Tensor, b_BN: Tensor) -> Tensor:
    # By the peak of each row: `F.cosine_similarity` takes vectors shorter than 1e-8 for zero.
    a_BN = a_BN / a_BN.abs().amax(dim=1, keepdim=True).clamp_min(_tiny(a_BN))
    b_BN = b_BN / b_BN.abs().amax(dim=1, keepdim=True).clamp_min(_tiny(b_BN))
    return F.cosine_similarity(a_BN, b_BN, dim=1)


def _tiny(values: Tensor) -> float:
    return torch.finfo(values.dtype).tiny
