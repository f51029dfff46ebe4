"""The loss of a training run: what its configuration makes of logits and targets.

Shape suffixes: B batch, K classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from automix.configuration.trainer import TrainerConfig
from automix.errors import ConfigError
from automix.saliency.losses import Loss, label_loss
from automix.training.metrics import decoupled_terms
from automix.training.targets import LabelPairs, Targets, cross_entropy, target_rows


class Criterion:
    """Cross-entropy with smoothed labels, class weights, adjusted logits and Decoupled Mixup.

    Attributes:
        class_weights: (K,) float32, or None for equal ones.
        adjustment: (K,) float32 that is added to the logits, or None.
    """

    def __init__(
        self, config: TrainerConfig, class_counts_K: Tensor, *, device: torch.device
    ) -> None:
        """Read the configuration, with the training images of each class, (K,) int64.

        Raises:
            ConfigError: there is not one weight for each class.
        """
        self._config = config
        weights = _class_weights(config, class_counts_K)
        self.class_weights = None if weights is None else weights.to(device)
        self.adjustment: Tensor | None = None
        if config.logit_adjustment:
            # The logits learn log p(class | image) - tau log p(class): Menon et al. 2020,
            # equation 10, https://arxiv.org/abs/2007.07314.
            prior = log_prior(class_counts_K)
            self.adjustment = (config.logit_adjustment * prior).to(device)

    def __call__(self, logits_BK: Tensor, targets: Targets, *, decoupled_eta: float = 0) -> Tensor:
        """Return the mean loss of a batch in nats, a float32 scalar.

        Above 0, ``decoupled_eta`` is the weight of Decoupled Mixup's term, for pairs of labels.
        """
        if self._config.loss == "binary_cross_entropy":
            rows_BK = target_rows(targets, logits_BK.shape[1])
            return F.binary_cross_entropy_with_logits(logits_BK.float(), rows_BK)
        if self.adjustment is not None:
            logits_BK = logits_BK.float() + self.adjustment
        loss = cross_entropy(
            logits_BK,
            targets,
            smoothing=self._config.label_smoothing,
            class_weights_K=self.class_weights,
        )
        if decoupled_eta:
            loss = loss + self.decoupled(logits_BK, targets, eta=decoupled_eta)
        return loss

    def decoupled(self, logits_BK: Tensor, targets: Targets, *, eta: float) -> Tensor:
        """Return the weighted term of Decoupled Mixup, a float32 scalar in nats."""
        assert isinstance(targets, LabelPairs)
        mode = self._config.decoupled_mode or "both"
        return eta * decoupled_terms(logits_BK, *targets, mode=mode).mean()


def saliency_loss(config: TrainerConfig) -> Loss | None:
    """Return the loss whose gradient a saliency map is; None for that of a softmax."""
    return label_loss if config.loss == "binary_cross_entropy" else None


def balancing_weights(counts_K: Tensor) -> Tensor:
    """Return N / (K n_k) of the n_k images of each class, (K,) float32; 0 for a class without any.

    Over the images their mean is 1, as of scikit-learn's `compute_class_weight("balanced")`.

    Examples:
        >>> balancing_weights(torch.tensor([10, 30])).tolist()
        [2.0, 0.6666666865348816]
    """
    weights = counts_K.sum() / (len(counts_K) * counts_K.clamp(min=1)).double()
    return torch.where(counts_K > 0, weights, 0).float()


def log_prior(counts_K: Tensor) -> Tensor:
    """Return the log of each class's fraction of the images, (K,) float32, at least one each."""
    counts = counts_K.clamp(min=1).double()
    return (counts / counts.sum()).log().float()


def _class_weights(config: TrainerConfig, counts_K: Tensor) -> Tensor | None:
    if config.class_weights is None:
        return None
    if config.class_weights == "balanced":
        return balancing_weights(counts_K)
    if len(config.class_weights) != len(counts_K):
        raise ConfigError(
            f"task.trainer.class_weights: expected {len(counts_K)} numbers, one for each class, "
            f"got {len(config.class_weights)}"
        )
    return torch.tensor(config.class_weights)
