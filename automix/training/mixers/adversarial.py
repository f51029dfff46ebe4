"""Adversarial AutoMixup's other half: the mask network is trained against the classifier.

Qin et al. 2024, https://arxiv.org/abs/2312.11954. The network ascends, one step per mixed batch,

    mean KL(y~ || p(x~)) - weight * mean (1 - lam~ - w)^2,

where x~ is the batch that its masks mix, y~ has the label weights lam~ that the masks leave, p are
the probabilities of the classifier and w = 1 - lam is the part of the partner that was drawn. The
divergence and not the cross-entropy, which is high already where the labels are even; the second
term keeps the part of each image, without which the hardest mask is that of a fixed part.

The authors alternate with a cosine term and an averaged teacher, and mix three images.
"""

import copy
import dataclasses
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from automix.mixing import StepKey
from automix.operators.adautomix import AdAutoMixDraws, MaskNetwork, apply_adautomix
from automix.operators.types import MixedBatch
from automix.random_streams import Stream, stream_generator
from automix.training.mixers.learned import (
    MixerState,
    descend,
    divergences,
    looked_at,
    pairs_of,
)

_LEARNING_RATE = 1e-2
_AREA_WEIGHT = 10.0


class AdversarialMixer:
    """The mask network, its optimizer, and the steps against the classifier.

    Attributes:
        network: draws the masks.
    """

    # Against the classifier; -1 would make its batches easy.
    direction: ClassVar[float] = 1.0

    def __init__(self, network: MaskNetwork) -> None:
        self.network = network
        self.optimizer = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE)

    @classmethod
    def fresh(cls, channels: int, *, seed: int, rank: int, device: torch.device) -> Self:
        """Return a mixer whose network is initialized from the seed of the training run."""
        generator = stream_generator(seed, Stream.MIXER, rank=rank)
        return cls(MaskNetwork(channels, generator=generator).to(device))

    def rework(
        self,
        model: nn.Module,
        images_BCHW: Tensor,
        labels_B: Tensor,
        mixed: MixedBatch,
        *,
        key: StepKey,
        progress: float,
    ) -> MixedBatch:
        """Train the network on the batch, then mix the batch by it; see `LearnedMixer`."""
        del key, progress  # nothing is drawn here
        draws = AdAutoMixDraws(mixed.partner, mixed.lam)
        with looked_at(model, images_BCHW.device) as raw:
            loss = -self.objective(raw, images_BCHW, labels_B, draws)
            descend(self.network, self.optimizer, loss)
        with torch.no_grad():
            no_targets = images_BCHW.new_empty((len(images_BCHW), 0), dtype=torch.float32)
            masked = apply_adautomix(
                images_BCHW, no_targets, draws, num_classes=0, network=self.network
            )
        return dataclasses.replace(mixed, images=masked.images, lam=masked.lam, mask=masked.mask)

    def objective(
        self, model: nn.Module, images_BCHW: Tensor, labels_B: Tensor, draws: AdAutoMixDraws
    ) -> Tensor:
        """Return what the network ascends, a scalar."""
        partner_BCHW = images_BCHW.index_select(0, draws.partner)
        mask_B1HW = self.network(images_BCHW, partner_BCHW, draws.lam)
        weight_B = mask_B1HW.mean(dim=(1, 2, 3))
        logits = model(torch.lerp(images_BCHW, partner_BCHW, mask_B1HW))
        pairs = pairs_of(labels_B, draws.partner, 1 - weight_B)
        area = (weight_B - (1 - draws.lam)).square().mean()
        hardness = divergences(logits, pairs).mean()
        return torch.sub(self.direction * hardness, area, alpha=_AREA_WEIGHT)

    def state_dict(self) -> MixerState:
        """Return the state, without copying tensors."""
        return MixerState(network=self.network.state_dict(), optimizer=self.optimizer.state_dict())

    @classmethod
    def resumed(cls, state: MixerState, *, device: torch.device) -> Self:
        """Return a mixer that resumes from a state."""
        weights = state["network"]
        channels = weights["body.0.weight"].shape[1] // 2
        mixer = cls(MaskNetwork(channels, generator=torch.Generator()).to(device))
        mixer.network.load_state_dict(weights)
        # The optimizer keeps the tensors that it is given.
        mixer.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        return mixer
