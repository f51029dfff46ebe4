"""Loss and correct predictions of several training runs that are trained at once.

Shape suffixes: N runs, B batch, K classes.
"""

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from automix.training.metrics import TrainMetrics


class PopulationSums:
    """`RunningSums` of every run, taken in at once."""

    def __init__(self, count: int, device: torch.device) -> None:
        """Start at zero for ``count`` runs on ``device``."""
        # Per run: loss times images, correct predictions on clean and on mixed images.
        self._sums_N3 = torch.zeros(count, 3, dtype=torch.float64, device=device)
        self._num_images = [[0, 0] for _ in range(count)]

    @torch.no_grad()
    def add(
        self,
        active: Sequence[int],
        losses_N: Tensor,
        logits_NBK: Tensor,
        labels_NB: Tensor,
        mixed: Sequence[bool],
    ) -> None:
        """Take in a step of the runs ``active``, with whether each of their batches was mixed."""
        batch = labels_NB.shape[1]
        correct_N = (logits_NBK.argmax(dim=2) == labels_NB).sum(dim=1).double()
        is_mixed_N = torch.tensor(mixed, dtype=torch.float64, device=losses_N.device)
        rows = (losses_N.double() * batch, correct_N * (1 - is_mixed_N), correct_N * is_mixed_N)
        if len(active) == len(self._sums_N3):
            self._sums_N3 += torch.stack(rows, dim=1)
        else:
            self._sums_N3[list(active)] += torch.stack(rows, dim=1)
        for index, is_mixed_batch in zip(active, mixed, strict=True):
            self._num_images[index][is_mixed_batch] += batch

    def read(self, steps: Sequence[int], *, started: float) -> list[TrainMetrics]:
        """Return the means of each run; the segment's one host synchronization."""
        rows = self._sums_N3.tolist()
        per_step = (time.perf_counter() - started) / sum(steps)
        metrics = []
        for (loss, clean_correct, mixed_correct), (num_clean, num_mixed), count in zip(
            rows, self._num_images, steps, strict=True
        ):
            metrics.append(
                TrainMetrics(
                    loss=loss / max(num_clean + num_mixed, 1),
                    clean_accuracy=clean_correct / num_clean if num_clean else None,
                    mixed_accuracy=mixed_correct / num_mixed if num_mixed else None,
                    mixed_fraction=num_mixed / max(num_clean + num_mixed, 1),
                    num_images=num_clean + num_mixed,
                    seconds=per_step * count,
                )
            )
        return metrics
