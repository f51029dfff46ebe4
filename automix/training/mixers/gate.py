"""A gate per image, learned from the gradient of a validation loss, as in MADAug.

Hou et al. 2023, https://arxiv.org/abs/2309.04747. A small network gives each image the probability
p_i that it is mixed at all; the others stay as they are. With the weights w of the classifier and
v = grad L_validation(w), a training step of rate r on the loss of image i changes the validation
loss by -r v . grad l_i, to first order. Mixing image i rather than not is therefore worth

    a_i = v . grad l_i(mixed) - v . grad l_i(unmixed),

two directional derivatives, taken as central differences. The network descends -mean p_i a_i, which
is the straight-through gradient of the drawn gate.

Unlike the authors, who look ahead by a real step and let the probability rise along a curve, this
one is of first order, learns at every fourth mixed batch, and has no curve.
"""

import dataclasses
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from automix.mixing import StepKey
from automix.operators.types import MixedBatch
from automix.random_streams import Stream, stream_generator
from automix.training.mixers.learned import (
    descend,
    image_states,
    looked_at,
    pairs_of,
    policy_network,
)
from automix.training.targets import Targets, cross_entropy

_LEARNING_RATE = 1e-2
_LEARN_EVERY = 4
# Of the weights, as a fraction of their norm: a compromise between curvature and rounding.
_DIFFERENCE = 1e-3

Validation = Callable[[int], tuple[Tensor, Tensor]]
"""Returns images, (M, C, H, W), and labels, (M,), for the gate's step number."""


class Gate:
    """Decides for each image whether it is mixed.

    Attributes:
        network: from the state of an image to the log-odds of being mixed.
    """

    def __init__(
        self, num_classes: int, validation: Validation, *, seed: int, device: torch.device
    ) -> None:
        generator = stream_generator(seed, Stream.MIXER)
        inputs = 2 * num_classes + 2
        self.network = policy_network(inputs, 1, generator=generator).to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=_LEARNING_RATE)
        self._validation = validation

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
        """Leave some images unmixed, after a step of learning; see `LearnedMixer`."""
        device = images_BCHW.device
        with looked_at(model, device) as raw:
            with torch.no_grad():
                logits = raw(images_BCHW)
            states = image_states(logits, labels_B, progress=progress)
            if key.step % _LEARN_EVERY == 0:
                worth_B = self.worth(raw, images_BCHW, labels_B, mixed, number=key.step)
                self.learn(states, worth_B)
        generator = stream_generator(
            key.seed, Stream.MIXER, rank=key.rank, step=key.step + 1, device=device
        )
        draws = torch.rand(len(images_BCHW), generator=generator, device=device)
        is_open_B = draws < self.probabilities(states)
        return gated(images_BCHW, mixed, is_open_B.float())

    @torch.no_grad()
    def probabilities(self, states_BF: Tensor) -> Tensor:
        """Return the probability that each image is mixed, (B,)."""
        return self.network(states_BF)[:, 0].sigmoid()  # type: ignore[no-any-return]

    def learn(self, states_BF: Tensor, worth_B: Tensor) -> None:
        """Open the gate of images that are worth mixing, and close that of the others."""
        scale = worth_B.abs().mean().clamp_min(torch.finfo(worth_B.dtype).tiny)
        open_B = self.network(states_BF)[:, 0].sigmoid()
        descend(self.network, self.optimizer, -(open_B * worth_B / scale).mean())

    def worth(
        self,
        model: nn.Module,
        images_BCHW: Tensor,
        labels_B: Tensor,
        mixed: MixedBatch,
        *,
        number: int,
    ) -> Tensor:
        """Return by how much mixing each image lowers the validation loss, (B,), times 1 / rate."""
        weights = {name: value.detach() for name, value in model.named_parameters()}
        direction = _validation_gradient(model, weights, *self._validation(number))
        soft = pairs_of(labels_B, mixed.partner, mixed.lam)
        of_mixed, of_unmixed = (
            _slopes(model, weights, direction, images, targets)
            for images, targets in ((mixed.images, soft), (images_BCHW, labels_B))
        )
        return of_mixed - of_unmixed


def gated(images_BCHW: Tensor, mixed: MixedBatch, amount_B: Tensor) -> MixedBatch:
    """Return images between the unmixed (0) and the mixed ones (1), and their label weights."""
    amount_B111 = amount_B.view(-1, 1, 1, 1)
    return dataclasses.replace(
        mixed,
        images=torch.lerp(images_BCHW, mixed.images, amount_B111.to(images_BCHW.dtype)),
        lam=1 - amount_B * (1 - mixed.lam),
        mask=None if mixed.mask is None else mixed.mask * amount_B111,
    )


def _validation_gradient(
    model: nn.Module, weights: Mapping[str, Tensor], images: Tensor, labels: Tensor
) -> dict[str, Tensor]:
    leaves = {name: value.clone().requires_grad_() for name, value in weights.items()}
    loss = cross_entropy(functional_call(model, leaves, (images,)), labels)
    # A layer that takes no part in the loss has no gradient.
    gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    return dict(zip(leaves, gradients, strict=True))


@torch.no_grad()
def _slopes(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    direction: Mapping[str, Tensor],
    images_BCHW: Tensor,
    targets: Targets,
) -> Tensor:
    """Return the derivative of each image's loss along a direction of the weights, (B,)."""
    lengths = [
        torch.stack(torch._foreach_norm(list(part.values()))).norm()
        for part in (weights, direction)
    ]
    step = _DIFFERENCE * lengths[0] / lengths[1].clamp_min(1e-12)
    ahead, behind = (
        cross_entropy(
            functional_call(
                model,
                {name: value + sign * step * direction[name] for name, value in weights.items()},
                (images_BCHW,),
            ),
            targets,
            reduction="none",
        )
        for sign in (1, -1)
    )
    return torch.div(ahead - behind, 2 * step)
