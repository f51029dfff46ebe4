"""Maps that are computed every few steps and kept in between.

A saliency pass every k steps costs 1/k of one every step. A kept map is right as far as the weights
and the pixels are those it was computed with, and the weights matter: `benchmarks/saliency.py`
measures the agreement by age. Two ways to use it:

* **Hold the batch.** Train k steps on the same augmented images, mixed anew in each, with a
  cache of one row per image of the batch. Maps are at most k - 1 steps old.
* **One row per image of the data set**, refreshed for whole batches every k steps. Maps are about
  k epochs old, and crop and flip have to be moved: pass the images before them, and
  transform the maps along.

The cache is a value that the caller holds and saves with a checkpoint, so that a resumed run
continues with the same maps. Whether to refresh is the caller's choice, made from the step number
on the host, so nothing has to be read back from the device.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from automix.saliency.maps import normalised, resized


@dataclass(frozen=True, slots=True)
class SaliencyCache:
    """The last map of each image.

    Attributes:
        maps: (N, rows, columns) float32, all zero for an image that has none yet; may be coarser
            than the images. Updated in place.
    """

    maps: Tensor

    @classmethod
    def empty(
        cls, num_images: int, rows: int, columns: int, *, device: torch.device | str = "cpu"
    ) -> Self:
        """Return a cache without any map.

        Args:
            num_images: N; 50,000 maps of 32 x 32 take 200 MB.
            rows: of the kept maps; those of the operator's grid are enough.
            columns: of the kept maps.
            device: of the images.
        """
        return cls(torch.zeros(num_images, rows, columns, device=device))

    def store_(self, sample_ids: Tensor, maps_BHW: Tensor) -> None:
        """Keep the maps of some images, at the resolution of the cache.

        Args:
            sample_ids: (B,) int64 without repetition, the row of each image.
            maps_BHW: what a source returned.
        """
        self.maps[sample_ids] = resized(maps_BHW.float(), *self.maps.shape[1:])

    def read(self, sample_ids: Tensor, height: int, width: int) -> Tensor:
        """Return (B, height, width) float32 maps that sum to 1; uniform where none is kept.

        Read also what was just stored: then an image has the same map in the step that refreshes it
        and in those after it.

        Args:
            sample_ids: (B,) int64, the row of each image.
            height: of the images.
            width: of the images.
        """
        return normalised(resized(self.maps[sample_ids], height, width))
