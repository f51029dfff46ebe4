"""A strength per image, learned by advantage actor-critic (A2C), as in AdaAugment.

Yang et al. 2025, https://arxiv.org/abs/2405.11467. A small network sees the state of each image and
gives a Beta distribution, from which the amount m_i in (0, 1) is drawn: the image lies between the
unmixed one (0) and the batch as the decision mixed it (1), and so does its label. With the losses
l(0), l(m), l(1) of the three and k falling from 1 to 0 over the training run, an image is paid

    r_i = (1 - k) (l(m) - l(0)) + k (l(1) - l(m)),

easy images at first, hard ones later; standardized over the batch. The losses are divergences from
the soft targets, which mixing alone does not raise. The next state is one of another batch, so the
return of an amount is its own reward, and its advantage r_i - V(s_i).

The authors take the losses of one class, features of the classifier as the state, and gamma 0.99.
"""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Beta
from torch.nn import functional as F

from automix.mixing import StepKey
from automix.operators.sampling import draw_beta_each
from automix.operators.types import MixedBatch
from automix.random_streams import Stream, stream_generator
from automix.training.mixers.gate import gated
from automix.training.mixers.learned import (
    descend,
    divergences,
    image_states,
    looked_at,
    pairs_of,
    policy_network,
)

_LEARNING_RATE = 1e-2
_VALUE_WEIGHT = 0.5
_ENTROPY_WEIGHT = 0.01
# Beta is taken no narrower than this, and amounts no nearer to the ends: its density is finite.
_MOST = 30.0
_EDGE = 1e-3


class ActorCritic:
    """Decides for each image how far it is mixed.

    Attributes:
        network: from the state of an image to the two parameters of Beta and the value.
    """

    def __init__(self, num_classes: int, *, seed: int, device: torch.device) -> None:
        generator = stream_generator(seed, Stream.MIXER)
        inputs = 2 * num_classes + 2
        self.network = policy_network(inputs, 3, generator=generator).to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=_LEARNING_RATE)

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
        """Mix each image as far as is drawn for it, and learn from it; see `LearnedMixer`."""
        device = images_BCHW.device
        generator = stream_generator(
            key.seed, Stream.MIXER, rank=key.rank, step=key.step + 1, device=device
        )
        with looked_at(model, device) as raw:
            with torch.no_grad():
                logits = raw(images_BCHW)
                states = image_states(logits, labels_B, progress=progress)
                amount_B = self.draw(states, generator)
                reworked = gated(images_BCHW, mixed, amount_B)
                full_B, drawn_B = (
                    divergences(raw(it.images), pairs_of(labels_B, it.partner, it.lam))
                    for it in (mixed, reworked)
                )
                unmixed_B = F.cross_entropy(logits.float(), labels_B, reduction="none")
            ease = 1 - progress
            reward_B = (1 - ease) * (drawn_B - unmixed_B) + ease * (full_B - drawn_B)
            self.learn(states, amount_B, standardized(reward_B))
        return reworked

    @torch.no_grad()
    def draw(self, states_BF: Tensor, generator: torch.Generator) -> Tensor:
        """Return an amount per image, (B,) in (0, 1)."""
        shapes = self._shapes(self.network(states_BF))
        return draw_beta_each(*shapes, generator).clamp(_EDGE, 1 - _EDGE)

    def learn(self, states_BF: Tensor, amount_B: Tensor, reward_B: Tensor) -> None:
        """Do one step of A2C on the amounts of a batch and their rewards."""
        outputs_B3 = self.network(states_BF)
        policy, value_B = Beta(*self._shapes(outputs_B3), validate_args=False), outputs_B3[:, 2]
        advantage_B = reward_B - value_B.detach()
        logs_B: Tensor = policy.log_prob(amount_B)  # type: ignore[no-untyped-call]
        entropy_B: Tensor = policy.entropy()  # type: ignore[no-untyped-call]
        loss = (
            -(logs_B * advantage_B).mean()
            + _VALUE_WEIGHT * F.mse_loss(value_B, reward_B)
            - _ENTROPY_WEIGHT * entropy_B.mean()
        )
        descend(self.network, self.optimizer, loss)

    def _shapes(self, outputs_B3: Tensor) -> tuple[Tensor, Tensor]:
        # Softplus moved so that outputs of 0 give Beta(1, 1), which is uniform.
        shapes = F.softplus(outputs_B3[:, :2] + math.log(math.e - 1)).clamp(0.1, _MOST)
        return shapes[:, 0], shapes[:, 1]


def standardized(reward_B: Tensor) -> Tensor:
    """Return rewards with mean 0 and deviation 1 over the batch."""
    centered = reward_B - reward_B.mean()
    return centered / centered.square().mean().sqrt().clamp_min(1e-8)
