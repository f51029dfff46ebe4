"""The past of a micro-batch: what a training step hands on to the next."""

from dataclasses import dataclass
from typing import NotRequired, TypedDict

import torch
from torch import Tensor

from automix.data.batches import BatchKey, TrainingBatch
from automix.mixing import StepKey, batch_from_tensors, tensors_of
from automix.operators.types import MixedBatch
from automix.saliency.sources import CachedSource, CacheState
from automix.training.mixers.adversarial import AdversarialMixer
from automix.training.mixers.learned import MixerState


class CarriedState(TypedDict):
    """A checkpoint's entry for one micro-batch: last mixed batch, saliency maps, learned mixer."""

    previous: dict[str, Tensor | None] | None
    saliency: CacheState | None
    # Not in checkpoints of earlier versions, which had no such operator.
    mixer: NotRequired[MixerState | None]


@dataclass(slots=True)
class Carried:
    """The past of one micro-batch: of step t + 1, number m follows number m of step t.

    So two micro-batches have two pasts that never touch, as two processes have.
    """

    saliency: CachedSource
    previous: MixedBatch | None = None
    batch_key: BatchKey | None = None
    batch: TrainingBatch | None = None
    mixer: AdversarialMixer | None = None

    def mixer_for(self, images_BCHW: Tensor, key: StepKey) -> AdversarialMixer:
        """Return the mixer that learns from this micro-batch, a fresh one at its first step."""
        if self.mixer is None:
            self.mixer = AdversarialMixer.fresh(
                images_BCHW.shape[1], seed=key.seed, rank=key.rank, device=images_BCHW.device
            )
        return self.mixer

    def clear(self) -> None:
        """Forget everything."""
        self.previous = self.batch_key = self.batch = self.mixer = None
        self.saliency.clear()

    def state_dict(self) -> CarriedState:
        """Return the state, without copying tensors."""
        # The batch is not saved: its key names it.
        return CarriedState(
            previous=tensors_of(self.previous) if self.previous else None,
            saliency=self.saliency.state_dict(),
            mixer=self.mixer.state_dict() if self.mixer else None,
        )

    def load_state_dict(self, state: CarriedState, *, device: torch.device) -> None:
        """Resume from a state, on ``device``."""
        self.clear()
        self.saliency.load_state_dict(state["saliency"], device=device)
        if state["previous"] is not None:
            # Checkpoints are read into main memory.
            self.previous = batch_from_tensors(state["previous"], device=device)
        if (learned := state.get("mixer")) is not None:
            self.mixer = AdversarialMixer.resumed(learned, device=device)
