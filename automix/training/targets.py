"""Targets of a training step and their cross-entropy, without a row of zeros for each image.

Most batches have one class per image, or two with a weight: their loss gathers one or two numbers
from each row of logits. Only operators that mix more than two images make (B, K) rows.

Shape suffixes: B batch, K classes.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from automix.operators.blend import mix_rows, soft_targets
from automix.training.metrics import smooth_labels, soft_cross_entropy


class LabelPairs(NamedTuple):
    """The soft targets lam * own + (1 - lam) * partner, as the two classes of each image."""

    own_classes: Tensor  # (B,) int64, of the first parents
    partner_classes: Tensor  # (B,) int64
    lam: Tensor  # (B,) float32 in [0, 1], label weight of the own class


Targets = Tensor | LabelPairs
"""(B,) int64 classes, pairs of them, or (B, K) float32 rows."""


def target_rows(targets: Targets, num_classes: int) -> Tensor:
    """Return targets of any form as rows, (B, K) float32.

    Examples:
        >>> pairs = LabelPairs(torch.tensor([0]), torch.tensor([2]), torch.tensor([0.75]))
        >>> target_rows(pairs, 3).tolist()
        [[0.75, 0.0, 0.25]]
    """
    if isinstance(targets, LabelPairs):
        own_BK, partner_BK = (target_rows(classes, num_classes) for classes in targets[:2])
        return mix_rows(own_BK, partner_BK, targets.lam)
    return soft_targets(targets, len(targets), num_classes)


def joined_targets(parts: Sequence[Targets], num_classes: int) -> Targets:
    """Return the targets of several batches as those of one, in the plainest form that fits all."""
    if any(isinstance(part, Tensor) and part.ndim == 2 for part in parts):
        return torch.cat([target_rows(part, num_classes) for part in parts])
    if not any(isinstance(part, LabelPairs) for part in parts):
        return torch.cat([part for part in parts if isinstance(part, Tensor)])
    pairs = [part if isinstance(part, LabelPairs) else _with_itself(part) for part in parts]
    return LabelPairs(*map(torch.cat, zip(*pairs, strict=True)))


def _with_itself(classes_B: Tensor) -> LabelPairs:
    one_B = torch.ones(1, device=classes_B.device).expand(len(classes_B))
    return LabelPairs(classes_B, classes_B, one_B)


def cross_entropy(
    logits_BK: Tensor,
    targets: Targets,
    *,
    smoothing: float = 0.0,
    class_weights_K: Tensor | None = None,
    reduction: Literal["mean", "none"] = "mean",
) -> Tensor:
    """Return the cross-entropy with targets of any form, in nats: float32, a scalar or (B,).

    It equals `soft_cross_entropy` with the rows of the targets after `smooth_labels`, with the
    weight ``smoothing`` of the uniform distribution, in [0, 1). With weights w of the classes, each
    row's loss is - sum_k w_k target_k log softmax(logits)_k, and the mean is over the images.
    """
    # In float32 also under autocast: a float16 softmax over many classes loses the small ones.
    logits_BK = logits_BK.float()
    if class_weights_K is not None:
        rows_BK = smooth_labels(target_rows(targets, logits_BK.shape[1]), smoothing)
        losses_B = -(rows_BK * class_weights_K * logits_BK.log_softmax(dim=1)).sum(dim=1)
        return losses_B.mean() if reduction == "mean" else losses_B
    if isinstance(targets, LabelPairs):
        losses_B = _pair_losses(logits_BK.log_softmax(dim=1), targets, smoothing)
        return losses_B.mean() if reduction == "mean" else losses_B
    if targets.ndim == 2 and reduction == "mean":
        return soft_cross_entropy(logits_BK, smooth_labels(targets, smoothing))
    # With rows of probabilities, too, it smooths as `smooth_labels` does.
    return F.cross_entropy(logits_BK, targets, label_smoothing=smoothing, reduction=reduction)


def _pair_losses(logs_BK: Tensor, pairs: LabelPairs, smoothing: float) -> Tensor:
    classes_B2 = torch.stack((pairs.own_classes, pairs.partner_classes), dim=1)
    weights_B2 = torch.stack((-pairs.lam, pairs.lam - 1), dim=1)
    losses_B = (logs_BK.gather(1, classes_B2) * weights_B2).sum(dim=1)
    if smoothing == 0:
        return losses_B
    return losses_B * (1 - smoothing) - logs_BK.mean(dim=1) * smoothing
