"""What a training step is fed: one micro-batch after the other, mixed or not.

Shape suffixes: B images of a micro-batch, C channels, H rows, W columns, K classes.
"""

import dataclasses
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor, nn

from automix.data.training_batches import BatchKey, TrainingBatch, TrainingBatches
from automix.mixing import StepKey, is_mixed, mix_step
from automix.operators.types import MixedBatch
from automix.saliency.cache import CachedSource, CacheState
from automix.schedule import Decision
from automix.training.network import TrainedNetwork
from automix.vocabulary import OPERATOR_FACTS


@dataclass(frozen=True, slots=True, kw_only=True)
class FedBatch:
    """A micro-batch as the network gets it.

    Attributes:
        images: (B, C, H, W) float32.
        targets: (B, K) float32 soft targets.
        labels: (B,) int64, the images' own classes.
        key: names the draws of this step.
        is_mixed: whether anything was mixed.
    """

    images: Tensor
    targets: Tensor
    labels: Tensor
    key: StepKey
    is_mixed: bool


class FeedState(TypedDict):
    """What a micro-batch carries from step to step: the last mixed batch and saliency maps."""

    previous: dict[str, Tensor | None] | None
    saliency: CacheState | None


class MicroBatchFeed:
    """Feeds the micro-batch of one number, step by step.

    Each number has its own line of mixed batches (for operators that mix with the one before) and
    its own saliency maps: what comes before micro-batch 1 of a step is micro-batch 1 of the step
    before. The same holds for the shares of several processes.
    """

    def __init__(
        self,
        batches: TrainingBatches,
        saliency: CachedSource,
        network: TrainedNetwork,
        *,
        number: int,
    ) -> None:
        """Feed micro-batch ``number`` of every step.

        Args:
            batches: where images come from.
            saliency: where operators that need saliency get it from; of this feed alone.
            network: what is fed.
            number: from 0.
        """
        self._batches = batches
        self._saliency = saliency
        self._network = network
        self._number = number
        self._previous: MixedBatch | None = None
        self._held: tuple[BatchKey, TrainingBatch] | None = None

    def next(self, decision: Decision, *, seed: int, step: int) -> FedBatch:
        """Return the micro-batch of optimiser step ``step``, mixed as ``decision`` says."""
        batch_number = step // self._saliency.refresh_every
        self._saliency.hold(batch_number)
        batch_key = self._batches.layout.key(seed, batch_number, self._number)
        images, labels, _ = self._batch(batch_key)
        images = self._network.laid_out(images)
        key = StepKey(seed=seed, step=step, rank=batch_key.share)
        if not is_mixed(decision, key):
            targets = nn.functional.one_hot(labels, self._batches.num_classes).float()
            return FedBatch(images=images, targets=targets, labels=labels, key=key, is_mixed=False)
        mixed = mix_step(
            decision,
            images,
            labels,
            key=key,
            num_classes=self._batches.num_classes,
            model=self._network.model,
            saliency=self._saliency,
            previous=self._previous,
        )
        # Kept only as long as the operator that needs it goes on.
        needs_previous = OPERATOR_FACTS[decision.operator].needs_previous
        self._previous = mixed if needs_previous else None
        return FedBatch(
            images=mixed.images, targets=mixed.targets, labels=labels, key=key, is_mixed=True
        )

    def reset(self) -> None:
        """Forget everything that was carried."""
        self._previous = self._held = None
        self._saliency.clear()

    def state_dict(self) -> FeedState:
        """Return the state, without copying tensors."""
        return FeedState(
            previous=dataclasses.asdict(self._previous) if self._previous else None,
            saliency=self._saliency.state_dict(),
        )

    def load_state_dict(self, state: FeedState, *, device: torch.device) -> None:
        """Continue from a state; checkpoints are read into main memory."""
        self.reset()
        self._previous = _previous_on(device, state["previous"])
        self._saliency.load_state_dict(state["saliency"], device=device)

    def _batch(self, key: BatchKey) -> TrainingBatch:
        if self._saliency.refresh_every == 1:
            return self._batches.batch(key)
        if self._held is None or self._held[0] != key:
            self._held = key, self._batches.batch(key)
        return self._held[1]


def micro_batch_feeds(
    batches: TrainingBatches, saliency: CachedSource, network: TrainedNetwork
) -> list[MicroBatchFeed]:
    """Return the feeds of all micro-batches of a step of this process.

    Args:
        batches: where images come from.
        saliency: names the source and how often it is asked; each feed keeps maps of its own.
        network: what is fed.
    """
    return [
        MicroBatchFeed(
            batches,
            CachedSource(saliency.source, refresh_every=saliency.refresh_every),
            network,
            number=number,
        )
        for number in range(batches.layout.accumulation)
    ]


def _previous_on(
    device: torch.device, values: dict[str, Tensor | None] | None
) -> MixedBatch | None:
    if values is None:
        return None
    moved = {name: None if value is None else value.to(device) for name, value in values.items()}
    return MixedBatch(**moved)  # type: ignore[arg-type]
