"""One interface of the systems that learn how to mix, and what they share.

Shape suffixes: B batch, C channels, H rows, W columns, K classes, F features of an image.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypedDict

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from automix.mixing import StepKey
from automix.operator_info import Statistics
from automix.operators.types import MixedBatch
from automix.saliency.gradient import raw_module, without_trace
from automix.training.targets import LabelPairs, cross_entropy


class MixerState(TypedDict):
    """State that a mixer resumes from: tensors and plain values."""

    network: dict[str, Tensor]
    optimizer: dict[str, Any]


class LearnedMixer(Protocol):
    """Reworks a mixed batch of two parents, and learns from what it does to the classifier."""

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
        """Return the batch as this system mixes it, after a step of learning.

        Args:
            model: the classifier; nothing about it changes.
            images_BCHW: the batch before it was mixed.
            labels_B: its classes.
            mixed: the batch as the decision mixed it: images, partner, `lam` and mask.
            key: names the draws.
            progress: fraction of the training run done, in [0, 1].
        """
        ...


@contextmanager
def looked_at(model: nn.Module, device: torch.device) -> Iterator[nn.Module]:
    """Yield the raw module for passes as in training, after which it is as it was, bit for bit."""
    raw = raw_module(model)
    with without_trace(raw, device=device, statistics=Statistics.BATCH):
        yield raw


def pairs_of(labels_B: Tensor, partner_B: Tensor, lam_B: Tensor) -> LabelPairs:
    """Return the targets of a mixed batch."""
    return LabelPairs(labels_B, labels_B.index_select(0, partner_B), lam_B)


def divergences(logits_BK: Tensor, pairs: LabelPairs) -> Tensor:
    """Return the KL divergence of the prediction from each soft target, (B,), in nats.

    It is the cross-entropy less the entropy of the target, so that images are not hard merely
    because their labels are even.
    """
    if pairs.own_classes.is_floating_point():
        return _divergences_of_labels(logits_BK, pairs)
    lam_B = pairs.lam.clamp(1e-6, 1 - 1e-6)
    entropy_B = -(lam_B * lam_B.log() + (1 - lam_B) * (1 - lam_B).log())
    # Of one class there is no entropy, however it is divided.
    entropy_B = torch.where(pairs.own_classes == pairs.partner_classes, 0.0, entropy_B)
    return cross_entropy(logits_BK, pairs, reduction="none") - entropy_B


def _divergences_of_labels(logits_BK: Tensor, pairs: LabelPairs) -> Tensor:
    """Return the mean over labels of the divergence of each, (B,), where images have several."""
    lam_B1 = pairs.lam[:, None]
    targets_BK = lam_B1 * pairs.own_classes + (1 - lam_B1) * pairs.partner_classes
    losses_BK = F.binary_cross_entropy_with_logits(logits_BK.float(), targets_BK, reduction="none")
    # The slope of an entropy is infinite at 0 and 1.
    inner_BK = targets_BK.clamp(1e-6, 1 - 1e-6)
    entropies_BK = torch.special.entr(inner_BK) + torch.special.entr(1 - inner_BK)
    result: Tensor = (losses_BK - entropies_BK).mean(dim=1)
    return result


def image_states(logits_BK: Tensor, labels_B: Tensor, *, progress: float) -> Tensor:
    """Return what a policy sees of each image, (B, 2 K + 2).

    The probabilities of the classifier for the unmixed image, its class, its loss, and the
    progress of the training run.
    """
    logs_BK = logits_BK.float().log_softmax(dim=1)
    class_BK = torch.zeros_like(logs_BK).scatter_(1, labels_B[:, None], 1.0)
    loss_B1 = -(logs_BK * class_BK).sum(dim=1, keepdim=True)
    progress_B1 = torch.full_like(loss_B1, progress)
    return torch.cat((logs_BK.exp(), class_BK, loss_B1, progress_B1), dim=1)


def policy_network(
    inputs: int, outputs: int, *, generator: Generator, width: int = 32
) -> nn.Module:
    """Return a network with one hidden layer whose outputs are 0 at first."""
    with torch.device("meta"):
        network = nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, outputs))
    network.to_empty(device="cpu")
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    nn.init.normal_(network[0].weight, std=inputs**-0.5, generator=generator)  # type: ignore[arg-type]
    return network


def descend(network: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Do one optimizer step on the parameters of a network, and on nothing else."""
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(loss, parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()
    optimizer.zero_grad()
