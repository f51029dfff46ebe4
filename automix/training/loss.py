"""Loss functions of soft targets."""

from torch import Tensor


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of (B, K) soft targets, in nats."""
    return -(targets * logits.float().log_softmax(1)).sum(1).mean()


def smooth_labels(targets: Tensor, smoothing: float) -> Tensor:
    """Spread a share of each target evenly over all classes."""
    return targets if not smoothing else targets * (1 - smoothing) + smoothing / targets.shape[1]
