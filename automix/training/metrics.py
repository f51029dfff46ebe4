"""Sums that stay on the device during training and are read once per segment."""

import time
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor

from automix.training.distributed import current_world, gather_on_main, sum_over_processes_


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainMetrics:
    """Means over the steps of a segment, and over all processes.

    Predictions are compared with the images' own classes, never with mixed labels, and those on
    mixed images are counted apart: there even a perfect classifier is right only in part.

    Attributes:
        loss: training loss on the batches as they were fed (mixed or not), in nats.
        clean_accuracy: share of the images of unmixed batches that are classified correctly, in
            [0, 1]; None if all batches were mixed.
        mixed_accuracy: share of the images of mixed batches whose predicted class is that of the
            first parent, in [0, 1]; None if no batch was mixed.
        mixed_share: share of the images that were in mixed batches, in [0, 1].
        num_images: how many images were fed.
        seconds: wall-clock time of the segment.
    """

    loss: float
    clean_accuracy: float | None
    mixed_accuracy: float | None
    mixed_share: float
    num_images: int
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Images fed per second of wall-clock time, by all processes together."""
        return self.num_images / self.seconds


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
    """What `RunningSums` continue from.

    Attributes:
        sums: (processes, 5) float64: loss, correct predictions on clean and on mixed images, and
            the numbers of clean and of mixed images.
        seconds: wall-clock time so far.
    """

    sums: Tensor
    seconds: float


class RunningSums:
    """Loss and correct predictions summed on the device, without a host synchronisation.

    Attributes:
        seconds: wall-clock time that whoever adds has counted so far.
    """

    def __init__(self, device: torch.device) -> None:
        """Start at zero on ``device``."""
        self.seconds = 0.0
        self._sums = torch.zeros(3, dtype=torch.float64, device=device)
        self._num_clean = 0
        self._num_mixed = 0

    @torch.no_grad()
    def add(self, loss: Tensor, logits_BK: Tensor, labels_B: Tensor, *, is_mixed: bool) -> None:
        """Take in a batch.

        Args:
            loss: its mean.
            logits_BK: (B, K).
            labels_B: (B,) the images' own classes.
            is_mixed: whether the images were mixed.
        """
        batch = len(labels_B)
        correct = (logits_BK.argmax(dim=1) == labels_B).sum().double()
        self._sums[0] += loss.detach().double() * batch
        self._sums[2 if is_mixed else 1] += correct
        if is_mixed:
            self._num_mixed += batch
        else:
            self._num_clean += batch

    def read(self) -> TrainMetrics:
        """Return the means over all processes, each of which must call this.

        This is the segment's one host synchronisation.
        """
        started = time.perf_counter()
        totals = sum_over_processes_(self._row())
        loss, clean_correct, mixed_correct, num_clean, num_mixed = totals.tolist()
        # On an accelerator the steps end here, not where they were launched.
        self.seconds += time.perf_counter() - started
        num_images = num_clean + num_mixed
        return TrainMetrics(
            loss=loss / max(num_images, 1),
            clean_accuracy=clean_correct / num_clean if num_clean else None,
            mixed_accuracy=mixed_correct / num_mixed if num_mixed else None,
            mixed_share=num_mixed / max(num_images, 1),
            num_images=int(num_images),
            seconds=self.seconds,
        )

    def state_dict(self) -> SumsState:
        """Return the state, for a checkpoint in the middle of a stretch.

        Every process must call this; what rank 0 gets is complete.
        """
        rows = gather_on_main(self._row())
        return SumsState(sums=torch.stack(rows) if rows else torch.empty(0), seconds=self.seconds)

    def load_state_dict(self, state: SumsState) -> None:
        """Continue from a state: further additions give the same bits as without the cut."""
        row = state["sums"][current_world().rank]
        self._sums = row[:3].to(self._sums.device, copy=True)
        self._num_clean, self._num_mixed = (int(count) for count in row[3:].tolist())
        self.seconds = state["seconds"]

    def _row(self) -> Tensor:
        counts = torch.tensor([self._num_clean, self._num_mixed], dtype=torch.float64)
        return torch.cat((self._sums, counts.to(self._sums.device)))
