"""The loss whose gradient is a saliency map: that of the network's output, or the user's own.

Shape suffixes: B batch, K classes.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from automix.network_outputs import logits_of

Loss = Callable[[Tensor, Tensor], Tensor]
"""Takes (logits, targets) and returns a tensor of any shape; what it holds is summed."""

# Rounded rows, also in bfloat16, are nearer to 1; rows of several labels sum to 2 or more.
_ROUNDING = 0.05


def classification_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy, summed over the images, in nats.

    Of K logits it is that of their softmax; of a single logit, (B,) or (B, 1), that of its sigmoid,
    the probability of class 1. (The softmax of one logit is 1, whatever the image.)

    Args:
        logits: (B, K), (B, 1) or (B,).
        targets: (B,) integer classes, or rows (B, K) that sum to 1; for one logit classes 0 and 1,
            (B, 1) probabilities of class 1, or rows (B, 2).

    Raises:
        TypeError: (B,) targets that are not integers.
        ValueError: shapes that do not fit; on a CPU, where values can be read without a wait, also
            targets of several labels.
    """
    # A mean would make an image's gradient depend on the size of its batch, and 1/B costs range.
    logits = logits.float()
    if logits.ndim == 1 or (logits.ndim == 2 and logits.shape[1] == 1):
        chances_B = _chances_of_one(targets, logits.shape[0])
        return F.binary_cross_entropy_with_logits(logits.flatten(), chances_B, reduction="sum")
    if targets.ndim == 2 and targets.shape == logits.shape:
        if targets.device.type == "cpu":
            check_sums_to_one(targets)
        return F.cross_entropy(logits, targets.float(), reduction="sum")
    if logits.ndim != 2 or targets.shape != logits.shape[:1]:
        raise ValueError(
            "saliency: expected logits (B, K) for targets (B,) or (B, K), got logits "
            f"{tuple(logits.shape)} for targets {tuple(targets.shape)}; pass loss= for others"
        )
    if targets.is_floating_point() or targets.dtype is torch.bool:
        raise TypeError(
            f"targets: expected integer classes for shape (B,), got {targets.dtype}; give soft "
            "targets the shape (B, K)"
        )
    return F.cross_entropy(logits, targets.long(), reduction="sum")


def label_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the binary cross-entropy of (B, K) labels, summed over images and labels, in nats."""
    return F.binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction="sum")


def _chances_of_one(targets: Tensor, batch: int) -> Tensor:
    """Return the probability of class 1, (B,) float32."""
    if targets.ndim == 2 and targets.shape[1] == 2:
        targets = targets[:, 1]
    if tuple(targets.shape) not in {(batch,), (batch, 1)}:
        raise ValueError(
            f"saliency: expected targets of shape ({batch},), ({batch}, 1) or ({batch}, 2) for a "
            f"network with one logit, got {tuple(targets.shape)}"
        )
    chances_B = targets.flatten().float()
    if chances_B.device.type == "cpu" and not ((chances_B >= 0) & (chances_B <= 1)).all():
        raise ValueError(
            "targets: expected 0 to 1 for a network with one logit, got "
            f"{chances_B.min():g} to {chances_B.max():g}"
        )
    return chances_B


def check_sums_to_one(targets_BK: Tensor) -> None:
    """Refuse rows of targets to which a softmax does not belong; reads from the device.

    Raises:
        ValueError: a row does not sum to 1.
    """
    sums_B = targets_BK.float().sum(1)
    if ((sums_B - 1).abs() <= _ROUNDING).all():
        return
    raise ValueError(
        "targets: expected rows that sum to 1 for the softmax of the saliency's loss, got sums of "
        f"{sums_B.min():g} to {sums_B.max():g}; for several labels per image pass "
        "loss=torch.nn.functional.binary_cross_entropy_with_logits"
    )


def loss_gradient(
    output: object, targets: Tensor, at: Tensor, *, loss: Loss | None = None
) -> Tensor:
    """Return the gradient of the summed loss with respect to ``at``.

    Args:
        output: what the network returned, see `automix.network_outputs.logits_of`.
        targets: what the loss takes second.
        at: a tensor that the output depends on.
        loss: the user's own; `classification_loss` by default.

    Raises:
        TypeError: the loss returned no floating-point tensor, or the network no logits.
        ValueError: the loss does not depend on ``at``, or not in a way that can be followed.
    """
    value = (loss or classification_loss)(logits_of(output), targets)
    if not isinstance(value, Tensor) or not value.is_floating_point():
        got = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"loss: expected a floating-point tensor, got {got}")
    gradient = None
    try:
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(value.sum(), at, allow_unused=True)
    except RuntimeError as error:
        if "use_reentrant" not in str(error):
            raise
        raise ValueError(
            "saliency: expected a network whose gradient can be asked for at the image, got one "
            "with re-entrant checkpoints; call torch.utils.checkpoint with use_reentrant=False"
        ) from None
    if gradient is None:
        raise ValueError(
            "saliency: expected a loss with a gradient to the image, got none: no_grad, "
            "inference_mode, detach or rounding in the network or its loss cuts it; freeze weights "
            "with requires_grad_(False) instead, or take the saliency of the image alone "
            "(automix.saliency.sources.spectral_residual)"
        )
    return gradient
