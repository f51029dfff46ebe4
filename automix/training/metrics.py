"""Sums that stay on the device during training and are read once per segment."""

import time
from dataclasses import dataclass
from typing import TypedDict

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


class SumsState(TypedDict):
    """What `RunningSums` continue from."""

    sums: Tensor
    num_images: int
    num_steps: int
    num_mixed: int
    seconds: float


class RunningSums:
    """Loss and correct predictions summed on the device, without a host synchronisation.

    Attributes:
        seconds: wall-clock time that whoever adds has counted so far.
    """

    def __init__(self, device: torch.device) -> None:
        """Start at zero on ``device``."""
        self.seconds = 0.0
        self._sums = torch.zeros(2, dtype=torch.float64, device=device)
        self._num_images = 0
        self._num_steps = 0
        self._num_mixed = 0

    @torch.no_grad()
    def add(self, loss: Tensor, logits_BK: Tensor, labels_B: Tensor, *, is_mixed: bool) -> None:
        """Take in the batch of one step; ``loss`` is its mean."""
        batch = len(labels_B)
        correct = (logits_BK.argmax(dim=1) == labels_B).sum()
        self._sums += torch.stack((loss.detach().double() * batch, correct.double()))
        self._num_images += batch
        self._num_steps += 1
        self._num_mixed += is_mixed

    def read(self) -> TrainMetrics:
        """Return the means. This is the segment's one host synchronisation."""
        started = time.perf_counter()
        loss, correct = self._sums.tolist()
        # On an accelerator the steps end here, not where they were launched.
        self.seconds += time.perf_counter() - started
        count = max(self._num_images, 1)
        return TrainMetrics(
            loss=loss / count,
            accuracy=correct / count,
            mixed_share=self._num_mixed / max(self._num_steps, 1),
            num_images=self._num_images,
            seconds=self.seconds,
        )

    def state_dict(self) -> SumsState:
        """Return the state, for a checkpoint in the middle of a stretch."""
        return SumsState(
            sums=self._sums.clone(),
            num_images=self._num_images,
            num_steps=self._num_steps,
            num_mixed=self._num_mixed,
            seconds=self.seconds,
        )

    def load_state_dict(self, state: SumsState) -> None:
        """Continue from a state: further additions give the same bits as without the cut."""
        self._sums = state["sums"].to(self._sums.device, copy=True)
        self._num_images = state["num_images"]
        self._num_steps = state["num_steps"]
        self._num_mixed = state["num_mixed"]
        self.seconds = state["seconds"]
