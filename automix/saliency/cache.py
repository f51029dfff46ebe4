"""Maps that are computed once for a batch of images and kept while it is trained on again.

A kept map is right as far as the weights and the pixels are those it was computed with, and the
weights matter: `benchmarks/saliency.py` measures how fast maps age. So a batch is held: the same
augmented images are trained on for k steps in a row, mixed anew in each. A saliency pass every k
steps costs 1/k of one every step, and no map is older than k - 1 steps. Holding batches is known
as data echoing (Choi et al., https://arxiv.org/abs/1907.05550).
"""

from typing import TypedDict

import torch
from torch import Tensor, nn

from automix.saliency.types import SaliencySource


class CacheState(TypedDict):
    """The maps that are kept, (B, H, W), and the number of the batch they belong to."""

    batch: int
    maps: Tensor


class CachedSource:
    """A source that asks another one once for each batch, and keeps its maps in between.

    Example::

        cache = CachedSource(InputGradient(), refresh_every=4)
        cache.hold(step // cache.refresh_every)
        maps = cache(model, images, labels)

    Attributes:
        source: the source that is asked.
        refresh_every: k, the number of steps that the training loop holds a batch. The loop does
            the holding; with 1 nothing is kept.
    """

    def __init__(self, source: SaliencySource, *, refresh_every: int) -> None:
        """Keep nothing yet.

        Raises:
            ValueError: ``refresh_every`` is below 1.
        """
        if refresh_every < 1:
            raise ValueError(f"refresh_every: expected 1 step or more, got {refresh_every}")
        self.source = source
        self.refresh_every = refresh_every
        self._batch: int | None = None
        self._kept: CacheState | None = None

    def hold(self, batch: int) -> None:
        """Say which images the next calls are about, by a number; maps are kept while it lasts."""
        self._batch = batch

    def __call__(self, model: nn.Module, images_BCHW: Tensor, targets: Tensor) -> Tensor:
        """Return (B, H, W) maps, see `automix.saliency.types.SaliencySource`.

        Until `hold` is called for the first time they are computed in every call.
        """
        if self._batch is None or self.refresh_every == 1:
            return self.source(model, images_BCHW, targets)
        if self._kept is None or self._kept["batch"] != self._batch:
            maps = self.source(model, images_BCHW, targets)
            self._kept = CacheState(batch=self._batch, maps=maps)
        return self._kept["maps"]

    def clear(self) -> None:
        """Forget maps and batch."""
        self._batch = self._kept = None

    def state_dict(self) -> CacheState | None:
        """Return what a checkpoint has to hold, without copying it; None where nothing is kept."""
        return self._kept

    def load_state_dict(self, state: CacheState | None, *, device: torch.device) -> None:
        """Keep the maps of a checkpoint, on ``device``."""
        self.clear()
        if state is not None:
            self._kept = CacheState(batch=state["batch"], maps=state["maps"].to(device))
