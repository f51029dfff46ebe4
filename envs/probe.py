"""What each operator asks of the network now: a small batch, mixed by each, always alike.

The images and all draws are the same after every segment of every training, so what changes from
one observation to the next is the network. Nothing about the network changes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automix.data.splits import Split, TrainingImages
from automix.mixing import StepKey, mix_step
from automix.operators.types import MixedBatch
from automix.random_streams import Stream, derived_seed, stream_generator
from automix.saliency.types import SaliencySource
from automix.schedule import Decision
from automix.vocabulary import OPERATOR_FACTS, Operator
from envs.similarity import batch_similarity, gradient_cells

_SIMILARITY_CELLS = 8


def fixed_sample(split: TrainingImages, count: int) -> Split:
    """Return at most ``count`` images, the same ones always, of every class alike on average."""
    order = torch.randperm(len(split), generator=stream_generator(0, Stream.PROBE))
    return split.subset(order[:count].to(split.device))


def middle_decision(operator: Operator) -> Decision:
    """Return the operator at the middle one of its levels, on every batch."""
    levels = OPERATOR_FACTS[operator].strength.levels
    return Decision(operator=operator, strength=levels[len(levels) // 2])


class MixedProbe:
    """A batch of training images and how each operator mixes it.

    Where an operator reads no saliency its mixed images are kept; the others share one saliency
    pass.
    """

    def __init__(
        self,
        images_BCHW: Tensor,
        labels_B: Tensor,
        *,
        num_classes: int,
        operators: Sequence[Operator],
        saliency: SaliencySource,
    ) -> None:
        """Keep a batch, normalised and on the device of the network.

        Args:
            images_BCHW: float32.
            labels_B: int64.
            num_classes: K.
            operators: what `losses` mixes with.
            saliency: where operators that need it get it from.
        """
        self._images, self._labels = images_BCHW, labels_B
        self._num_classes = num_classes
        self._saliency = saliency
        self._decisions = [middle_decision(operator) for operator in operators]
        self._kept = {
            decision.operator: self._mix(decision, None)
            for decision in self._decisions
            if not OPERATOR_FACTS[decision.operator].needs_saliency
        }

    @torch.no_grad()
    def losses(self, model: nn.Module) -> tuple[float, ...]:
        """Return the mean loss on the batch as each operator mixes it, in nats.

        Args:
            model: a classifier in eval mode. The host waits for the device once.
        """
        maps = None
        if len(self._kept) < len(self._decisions):
            maps = self._saliency(model, self._images, self._labels)
        mixed = [
            self._kept.get(decision.operator) or self._mix(decision, maps)
            for decision in self._decisions
        ]
        logits = model(torch.cat([batch.images for batch in mixed])).float()
        losses_N = F.cross_entropy(
            logits, torch.cat([batch.targets for batch in mixed]), reduction="none"
        )
        means: list[float] = losses_N.view(len(mixed), -1).mean(dim=1).tolist()
        return tuple(means)

    def similarity(self, model: nn.Module, decision: Decision) -> float:
        """Return the cosine of the input gradients of the batch, clean and as mixed, in [0, 1].

        Batches that ``decision`` leaves unmixed count with their share, and with similarity 1.
        """
        if decision.operator is Operator.NONE:
            return 1.0
        maps = None
        if OPERATOR_FACTS[decision.operator].needs_saliency:
            maps = self._saliency(model, self._images, self._labels)
        mixed = self._mix(decision, maps)
        clean, _ = gradient_cells(model, self._images, self._labels, cells=_SIMILARITY_CELLS)
        other, _ = gradient_cells(model, mixed.images, mixed.targets, cells=_SIMILARITY_CELLS)
        cosine = float(batch_similarity(clean, other))
        return decision.probability * cosine + (1 - decision.probability)

    def _mix(self, decision: Decision, maps_BHW: Tensor | None) -> MixedBatch:
        previous = None
        if OPERATOR_FACTS[decision.operator].needs_previous:
            previous = self._rolled()
        return mix_step(
            decision,
            self._images,
            self._labels,
            key=StepKey(seed=derived_seed(0, Stream.PROBE), step=0),
            num_classes=self._num_classes,
            model=nn.Identity(),
            saliency=None if maps_BHW is None else lambda *_: maps_BHW,
            previous=previous,
        )

    def _rolled(self) -> MixedBatch:
        """Return the batch itself, each image in the place of the next, as the one before."""
        labels_B = self._labels.roll(1)
        return MixedBatch(
            images=self._images.roll(1, dims=0),
            targets=F.one_hot(labels_B, self._num_classes).float(),
            partner=torch.arange(len(labels_B), device=labels_B.device),
            lam=torch.ones(len(labels_B), device=labels_B.device),
            mask=None,
            own_targets=labels_B,
            partner_targets=None,
        )
