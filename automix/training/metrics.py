"""Sums that stay on the device during training and are read once per segment."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainMetrics:
    """Means over the steps of a segment.

    Attributes:
        loss: training loss on the batches as they were fed (mixed or not), in nats.
        accuracy: share of images whose predicted class is their own label, in [0, 1]; on mixed
            images the own label is that of the first parent.
        mixed_share: share of the batches that were mixed, in [0, 1].
        num_images: how many images were fed.
        seconds: wall-clock time of the segment.
    """

    loss: float
    accuracy: float
    mixed_share: float
    num_images: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalMetrics:
    """What a classifier is worth on a split.

    Attributes:
        nll: mean negative log-likelihood of the labels, in nats.
        calibrated_nll: the same after the one temperature that fits the split best. Mixing makes
            a network underconfident, which plain NLL punishes and a temperature repairs.
        accuracy: share of images classified correctly, in [0, 1].
        temperature: the fitted temperature.
        num_images: size of the split.
    """

    nll: float
    calibrated_nll: float
    accuracy: float
    temperature: float
    num_images: int


class RunningSums:
    """Loss and correct predictions summed on the device, without a host synchronisation."""

    def __init__(self, device: torch.device) -> None:
        """Start at zero on ``device``."""
        self._sums = torch.zeros(2, dtype=torch.float64, device=device)
        self._num_images = 0

    @torch.no_grad()
    def add(self, loss: Tensor, logits_BK: Tensor, labels_B: Tensor) -> None:
        """Take in one batch; ``loss`` is its mean."""
        batch = len(labels_B)
        correct = (logits_BK.argmax(dim=1) == labels_B).sum()
        self._sums += torch.stack((loss.detach().double() * batch, correct.double()))
        self._num_images += batch

    def read(self, *, mixed_share: float, seconds: float) -> TrainMetrics:
        """Return the means. This is the segment's one host synchronisation."""
        loss, correct = self._sums.tolist()
        count = max(self._num_images, 1)
        return TrainMetrics(
            loss=loss / count,
            accuracy=correct / count,
            mixed_share=mixed_share,
            num_images=self._num_images,
            seconds=seconds,
        )
