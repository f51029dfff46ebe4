"""How much the input gradients of a mixed batch are like those of the clean one: RL-Mix's reward.

Random-Mixup, https://arxiv.org/abs/2212.04875. Shape suffixes: B batch, C channels, H rows, W
columns, P cells per side, K classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automix.saliency.config import Statistics
from automix.saliency.isolation import raw_module, without_trace


def gradient_cells(
    model: nn.Module,
    images_BCHW: Tensor,
    targets: Tensor,
    *,
    cells: int,
    statistics: Statistics = Statistics.BATCH,
) -> Tensor:
    """Return the magnitude of the input gradient, averaged over a grid and not normalised.

    Unlike saliency maps, an image whose loss is large has large values here.

    Args:
        model: a classifier, (B, C, H, W) to logits (B, K); nothing about it changes.
        images_BCHW: floating point.
        targets: (B,) class indices or (B, K) soft targets.
        cells: cells per side; an image smaller than that keeps its own size.
        statistics: what batch norm normalises with.

    Returns:
        (B, P, P) float32, not negative, up to one factor for the whole batch.
    """
    raw = raw_module(model)
    with without_trace(raw, device=images_BCHW.device, statistics=statistics):
        images = images_BCHW.detach().float().requires_grad_()
        loss = F.cross_entropy(raw(images).float(), targets, reduction="sum")
        (gradient_BCHW,) = torch.autograd.grad(loss, images)
    return pooled_magnitude(gradient_BCHW, cells=cells)


def pooled_magnitude(gradient_BCHW: Tensor, *, cells: int) -> Tensor:
    """Return the root mean square over channels, averaged over (at most) cells x cells cells."""
    # By the peak of the batch: squares of the gradients of well-fitted images underflow.
    scaled = gradient_BCHW / gradient_BCHW.abs().amax().clamp_min(_tiny(gradient_BCHW))
    maps_B1HW = scaled.square().mean(dim=1, keepdim=True).sqrt()
    height, width = maps_B1HW.shape[2:]
    return F.adaptive_avg_pool2d(maps_B1HW, (min(cells, height), min(cells, width))).squeeze(1)


def batch_similarity(a_BPP: Tensor, b_BPP: Tensor) -> Tensor:
    """Return one cosine over the whole batch, a scalar in [0, 1] for maps that are not negative.

    This is the published reward; one image with a large gradient decides it. 0 where a batch has
    no gradient at all.
    """
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
