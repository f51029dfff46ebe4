"""The one training loop: the environment calls it segment by segment, replay from end to end."""

import copy
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any, TypedDict

import torch
from torch import Generator, Tensor, nn

from automix.data.batches import BatchPreparer
from automix.data.splits import StoredImages
from automix.data.training_batches import TrainingBatches
from automix.evaluation.calibration import accuracy, fit_temperature, nll
from automix.mixing import StepKey, is_mixed, mix_step
from automix.operators.types import MixedBatch
from automix.random_streams import Stream, stream_generator
from automix.saliency.cache import CachedSource, CacheState
from automix.schedule import Decision, Schedule
from automix.training.config import TrainerConfig
from automix.training.loss import smooth_labels, soft_cross_entropy
from automix.training.metrics import EvalMetrics, RunningSums, TrainMetrics
from automix.training.optimization import (
    AveragedWeights,
    learning_rate_at,
    make_optimizer,
    reset_optimizer_,
)
from automix.vocabulary import OPERATOR_FACTS

_EVALUATION_BATCH = 1024


class TrainerState(TypedDict):
    """Everything a training needs to continue bit for bit: tensors and plain values."""

    seed: int
    step: int
    model: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Any]
    previous: dict[str, Tensor | None] | None
    saliency: CacheState | None


class ClassifierTrainer:
    """Trains one classifier on one split, mixing batches as it is told.

    Every random draw derives from (seed, epoch, step): calling `train` twice with n steps gives
    the same bits as once with 2n, and there is no generator state to save.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: TrainingBatches,
        preparer: BatchPreparer,
        *,
        initialise: Callable[[nn.Module, Generator], None],
        saliency: CachedSource,
        config: TrainerConfig,
        seed: int,
    ) -> None:
        """Take ownership of ``model``, which is initialised anew from ``seed``.

        Args:
            model: maps (B, C, H, W) float32 images to (B, K) logits; on its device already.
            batches: training batches on the model's device.
            preparer: normalises the uint8 images that the model is evaluated on.
            initialise: gives the model its initial values in place, from a generator.
            saliency: where operators that need saliency get it from; a batch is held for the
                steps from one refresh to the next.
            config: length, optimiser and averaging.
            seed: names the initialisation, the order and all draws.
        """
        self.config = config
        self.model = model
        self.device = next(model.parameters()).device
        self.batch_size = batches.layout.batch_size
        self.steps_per_epoch = batches.layout.steps_per_epoch
        self.total_steps = config.epochs * self.steps_per_epoch
        self._batches = batches
        self._preparer = preparer
        self._num_classes = batches.num_classes
        self._initialise = initialise
        self._saliency = saliency
        self._optimizer = make_optimizer(model, config)
        self._average = (
            AveragedWeights(model, copy.deepcopy(model), decay=config.ema_decay)
            if config.ema_decay
            else None
        )
        self._previous: MixedBatch | None = None
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Start over from ``seed`` in place: nothing is reloaded or allocated again."""
        self.seed = seed
        self.step = 0
        self._previous = None
        self._saliency.clear()
        self._initialise(self.model, stream_generator(seed, Stream.INITIALISATION))
        reset_optimizer_(self._optimizer)
        if self._average:
            self._average.copy_()

    @property
    def progress(self) -> float:
        """Share of the training done, in [0, 1]."""
        return self.step / self.total_steps

    @property
    def evaluated_model(self) -> nn.Module:
        """The module that is evaluated: averaged weights if there are any."""
        return self._average.model if self._average else self.model

    def train(self, decision: Decision, *, num_steps: int) -> TrainMetrics:
        """Run ``num_steps`` optimiser steps, mixing as ``decision`` says.

        The host waits for the device once, at the end.

        Raises:
            ValueError: the training would run past its end.
        """
        sums = RunningSums(self.device)
        self.run(decision, sums, num_steps=num_steps)
        return sums.read()

    def run(self, decision: Decision, sums: RunningSums, *, num_steps: int) -> None:
        """Do as `train`, but add to ``sums``: the host does not wait for the device at all.

        Raises:
            ValueError: the training would run past its end.
        """
        if self.step + num_steps > self.total_steps:
            left = self.total_steps - self.step
            raise ValueError(f"expected at most {left} more steps, got {num_steps}")
        started = time.perf_counter()
        self.model.train()
        for _ in range(num_steps):
            self._train_step(decision, sums)
        sums.seconds += time.perf_counter() - started

    def replay(
        self, schedule: Schedule, *, longest: int | None = None
    ) -> Iterator[tuple[Decision, TrainMetrics]]:
        """Train to the end as ``schedule`` says, stretch by stretch.

        A stretch ends where the decision changes, or after ``longest`` steps; where it ends
        changes what is reported, not what is trained.

        Yields:
            The decision of each stretch and the means over it.
        """
        while self.step < self.total_steps:
            decision = schedule.at(self.progress)
            limit = min(self.total_steps, self.step + (longest or self.total_steps))
            stop = self.step + 1
            while stop < limit and schedule.at(stop / self.total_steps) == decision:
                stop += 1
            yield decision, self.train(decision, num_steps=stop - self.step)

    @torch.no_grad()
    def logits(self, split: StoredImages) -> Tensor:
        """Return (N, K) float32 logits of the evaluated weights on ``split``, in order."""
        model = self.evaluated_model
        model.eval()
        parts = [
            model(self._preparer.evaluation(split.read(start, start + _EVALUATION_BATCH))).float()
            for start in range(0, len(split), _EVALUATION_BATCH)
        ]
        return torch.cat(parts)

    def evaluate(self, split: StoredImages) -> EvalMetrics:
        """Evaluate on ``split``; the host waits for the device once."""
        logits = self.logits(split)
        labels = split.labels.to(self.device)
        temperature = fit_temperature(logits, labels)
        values = torch.stack(
            (
                nll(logits, labels),
                nll(logits / temperature, labels),
                accuracy(logits, labels),
                temperature,
            )
        ).tolist()
        return EvalMetrics(
            nll=values[0],
            calibrated_nll=values[1],
            accuracy=values[2],
            temperature=values[3],
            num_images=len(split),
        )

    def saliency_of(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        """Return (B, H, W) maps of stored uint8 images under the current weights."""
        images = self._preparer.evaluation(images_BCHW)
        return self._saliency.source(self.model, images, labels_B.to(self.device))

    def state_dict(self) -> TrainerState:
        """Return the state, without copying tensors: copy it before training on."""
        return TrainerState(
            seed=self.seed,
            step=self.step,
            model=self.model.state_dict(),
            average=self._average.model.state_dict() if self._average else {},
            optimizer=self._optimizer.state_dict(),
            previous=dataclasses.asdict(self._previous) if self._previous else None,
            saliency=self._saliency.state_dict(),
        )

    def load_state_dict(self, state: TrainerState) -> None:
        """Continue from a state of a trainer with the same configuration and data."""
        self.seed, self.step = state["seed"], state["step"]
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        if self._average:
            self._average.model.load_state_dict(state["average"])
        self._previous = _previous_on(self.device, state["previous"])
        self._saliency.load_state_dict(state["saliency"], device=self.device)

    def _train_step(self, decision: Decision, sums: RunningSums) -> None:
        held = self.step // self._saliency.refresh_every
        self._saliency.hold(held)
        batch_key = self._batches.layout.key(self.seed, held)
        images, labels, _ = self._batches.batch(batch_key)
        key = StepKey(seed=self.seed, step=self.step, rank=batch_key.share)
        with_mixing = is_mixed(decision, key)
        if with_mixing:
            mixed = self._mix(decision, key, images, labels)
            images, targets = mixed.images, mixed.targets
        else:
            targets = nn.functional.one_hot(labels, self._num_classes).float()
        logits = self.model(images)
        loss = soft_cross_entropy(logits, smooth_labels(targets, self.config.label_smoothing))
        torch.autograd.backward(loss)
        self._update_weights()
        sums.add(loss, logits, labels, is_mixed=with_mixing)
        self.step += 1

    def _mix(self, decision: Decision, key: StepKey, images: Tensor, labels: Tensor) -> MixedBatch:
        mixed = mix_step(
            decision,
            images,
            labels,
            key=key,
            num_classes=self._num_classes,
            model=self.model,
            saliency=self._saliency,
            previous=self._previous,
        )
        # Kept only as long as the operator that needs it goes on.
        needs_previous = OPERATOR_FACTS[decision.operator].needs_previous
        self._previous = mixed if needs_previous else None
        return mixed

    def _update_weights(self) -> None:
        if self.config.max_gradient_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_gradient_norm)
        rate = learning_rate_at(self.config, self.progress)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self._average:
            self._average.update_(self.step)


def _previous_on(
    device: torch.device, values: dict[str, Tensor | None] | None
) -> MixedBatch | None:
    """Return a saved batch on ``device``: checkpoints are read into main memory."""
    if values is None:
        return None
    moved = {name: None if value is None else value.to(device) for name, value in values.items()}
    return MixedBatch(**moved)  # type: ignore[arg-type]


def segment_steps(total_steps: int, num_segments: int, index: int) -> tuple[int, int]:
    """Return the first step of segment ``index`` and the first step after it.

    A step belongs to the segment whose share of the training it lies in, which is the rule that
    `Schedule.at(step / total_steps)` follows: both give the same bits in search and replay.
    """
    return -(-index * total_steps // num_segments), -(-(index + 1) * total_steps // num_segments)
