"""Predictions of a trained classifier on many images, a batch at a time.

Shape suffixes: N images, B batch, C channels, H rows, W columns, K classes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

Preparation = Callable[[Tensor], Tensor]
"""Makes what the network takes, (B, C, H, W) float32, of stored images, (B, C, H, W) uint8."""

Predictor = Callable[[Tensor], Tensor]
"""Returns (B, K) logits of (B, C, H, W) uint8 images."""

EVALUATION_BATCH = 500
"""Images at a time: enough to keep a device busy, 100 MB of activations for 32-pixel images."""


class ImageBatch(NamedTuple):
    """A part of `EvaluationImages`, on its device: images, labels and numbers in the dataset."""

    images: Tensor
    labels: Tensor
    indices: Tensor


Change = Callable[[ImageBatch], Tensor]
"""Returns the images of a batch, changed."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvaluationImages:
    """Labeled images that are read a batch at a time."""

    images: Tensor  # (N, C, H, W) uint8; may be a file mapped into memory
    labels: Tensor  # (N,) int64 class numbers, or (N, K) rows of several labels
    # (N,) int64 number of each image in its dataset; draws for an image depend on it, so that a
    # part of a dataset meets the same ones as the whole.
    indices: Tensor
    # Images at a time, at least 1; it does not change any result.
    batch_size: int = EVALUATION_BATCH
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))  # where batches go

    def __post_init__(self) -> None:
        check_stored(self.images)
        shapes = (self.labels.shape[:1], self.indices.shape)
        if set(shapes) != {self.images.shape[:1]} or not len(self.images):
            raise ValueError(
                f"expected one label and one index for each of at least one image, "
                f"got {len(self.images)} images, {shapes[0].numel()} and {shapes[1].numel()}"
            )
        if self.batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {self.batch_size}")

    @classmethod
    def whole(cls, images_NCHW: Tensor, labels_N: Tensor) -> "EvaluationImages":
        """Return a whole dataset, numbered from 0."""
        return cls(images=images_NCHW, labels=labels_N, indices=torch.arange(len(images_NCHW)))

    def __len__(self) -> int:
        return len(self.images)

    def batches(self) -> Iterator[ImageBatch]:
        """Yield all images in order."""
        for start in range(0, len(self), self.batch_size):
            part = self.part(start, start + self.batch_size)
            rows = (part.images, part.labels, part.indices)
            yield ImageBatch(*(row.to(self.device) for row in rows))

    def part(self, start: int, stop: int) -> "EvaluationImages":
        """Return the images from position ``start`` to before ``stop``, without a copy."""
        return self.subset(slice(start, stop))

    def subset(self, rows: Tensor | slice) -> "EvaluationImages":
        """Return the images at positions, (M,) int64 or a slice; they keep their numbers."""
        return replace(
            self, images=self.images[rows], labels=self.labels[rows], indices=self.indices[rows]
        )


def check_stored(images_NCHW: Tensor) -> None:
    """Refuse images that are not bytes of shape (N, C, H, W)."""
    if images_NCHW.ndim != 4 or images_NCHW.dtype != torch.uint8:
        raise ValueError(
            "images: expected uint8 of shape (N, C, H, W), "
            f"got {images_NCHW.dtype} of shape {tuple(images_NCHW.shape)}"
        )


@torch.no_grad()
def count_correct(
    predict: Predictor,
    images: EvaluationImages,
    *,
    change: Change = lambda batch: batch.images,
) -> int:
    """Return how many images are classified correctly after ``change``, made batch by batch."""
    correct = 0
    for batch in images.batches():
        logits_BK = predict(change(batch))
        hits = logits_BK.argmax(dim=1) == batch.labels.to(logits_BK.device)
        # The argmax of NaN is some class: a prediction that is not a number is never correct.
        correct += int((hits & logits_BK.isfinite().all(dim=1)).sum())
    return correct
