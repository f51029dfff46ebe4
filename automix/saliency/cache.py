"""Maps that are computed every few steps and kept in between.

A saliency pass every k steps costs 1/k of one every step. In between, an image gets the map it
had last, so the maps are as good as the weights and the images are unchanged: how far they
drift is in docs/saliency.md. The state is a value that the caller holds and saves with a
checkpoint, so that a resumed run continues with the same maps.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from automix.saliency.maps import normalised, resized
from automix.saliency.spectral import spectral_residual
from automix.saliency.types import SaliencySource


@dataclass(frozen=True, slots=True, kw_only=True)
class SaliencyCache:
    """The last map of each image of a data set. Its tensors are updated in place.

    Attributes:
        maps: (N, rows, columns) float32; may be coarser than the images.
        refreshed_at: (N,) int64, the step of the last refresh, -1 if there was none.
    """

    maps: Tensor
    refreshed_at: Tensor

    @classmethod
    def empty(
        cls, num_images: int, rows: int, columns: int, *, device: torch.device | str = "cpu"
    ) -> Self:
        """Return a cache without any map.

        Args:
            num_images: N; 50,000 maps of 32 x 32 take 200 MB.
            rows: of the kept maps; the grid of the operator is enough.
            columns: of the kept maps.
            device: of the images.
        """
        return cls(
            maps=torch.zeros(num_images, rows, columns, device=device),
            refreshed_at=torch.full((num_images,), -1, dtype=torch.int64, device=device),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedSaliency:
    """A source that is asked every ``refresh_every`` steps only.

    Whether to ask it depends on the step alone, so nothing has to be read back from the device.

    Attributes:
        source: gives the maps.
        refresh_every: steps from one saliency pass to the next, at least 1.
    """

    source: SaliencySource
    refresh_every: int

    def __post_init__(self) -> None:
        if self.refresh_every < 1:
            raise ValueError(f"expected refresh_every of at least 1, got {self.refresh_every}")

    def is_due(self, step: int) -> bool:
        """Return whether step number ``step`` makes a saliency pass."""
        return step % self.refresh_every == 0

    def maps(
        self,
        model: nn.Module,
        images_BCHW: Tensor,
        targets: Tensor,
        *,
        cache: SaliencyCache,
        sample_ids: Tensor,
        step: int,
    ) -> Tensor:
        """Return the maps of a batch, from the source when a pass is due, else from ``cache``.

        An image that has no map yet gets its spectral residual. A map belongs to the pixels it
        was computed on. So keep crop and flip of an image while its map is kept, or pass the
        images before crop and flip and move the maps with them afterwards.

        Args:
            model: see `automix.saliency.types.SaliencySource`.
            images_BCHW: floating point.
            targets: (B,) class indices or (B, K) soft targets.
            cache: holds all images of the data set; updated in place when a pass is due.
            sample_ids: (B,) int64, the row of each image in ``cache``.
            step: number of the training step.

        Returns:
            (B, H, W) float32 maps that sum to 1.
        """
        if self.is_due(step):
            fresh = self.source(model, images_BCHW, targets)
            cache.maps[sample_ids] = resized(fresh, *cache.maps.shape[1:])
            cache.refreshed_at[sample_ids] = step
        # Read back also when just written: the same map whether this step or a later one reads it.
        kept = normalised(resized(cache.maps[sample_ids], *images_BCHW.shape[2:]))
        if self.is_due(step):
            return kept
        known = (cache.refreshed_at[sample_ids] >= 0).view(-1, 1, 1)
        return torch.where(known, kept, spectral_residual(images_BCHW))
