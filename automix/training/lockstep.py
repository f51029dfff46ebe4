"""Several classifiers trained in lock-step: one forward and one backward pass for all of them.

Small networks leave most of an accelerator idle. Here the weights of N of them are stacked, and
`torch.vmap` runs all N on their own batches at once. Each keeps its own decisions, draws,
optimizer and averages, and can be saved, restored and evaluated alone.

Sums run in another order than in a training run of its own, so the last bits differ. On a CPU it
does not pay (`python -m benchmarks.environment`).

Shape suffixes: N classifiers, B batch, C channels, H rows, W columns, K classes.
"""

import dataclasses
import logging
import time
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import functional_call

from automix.schedule import Decision
from automix.training.distributed import current_world
from automix.training.metrics import RunningSums, TrainMetrics
from automix.training.step import MicroBatch
from automix.training.trainer import ClassifierTrainer

_LOG = logging.getLogger(__name__)

Plan = tuple[Decision, int]
"""How a classifier is trained next: a decision, and the number of optimizer steps."""


class LockstepTrainers:
    """Trains classifiers of one architecture and configuration together.

    Networks that `torch.vmap` does not take (those that draw random numbers, for example) are
    trained one after the other instead; one line in the log says why.

    Attributes:
        obstacle: why they are trained one after the other; None if they are not.
    """

    def __init__(
        self, trainers: Sequence[ClassifierTrainer], *, image_shape: tuple[int, int, int]
    ) -> None:
        """Train ``trainers``, which share a task and a device, on (C, H, W) images together."""
        self._trainers = list(trainers)
        models = [trainer.model for trainer in trainers]
        parameters = [dict(model.named_parameters()) for model in models]
        buffers = [dict(model.named_buffers()) for model in models]
        self._parameters: dict[str, list[Tensor]] = {
            name: [of_one[name] for of_one in parameters] for name in parameters[0]
        }
        self._buffers = {name: [of_one[name] for of_one in buffers] for name in buffers[0]}
        self._forward = torch.vmap(self._one, randomness="error")
        self.obstacle = self._find_obstacle(image_shape)
        if self.obstacle is not None:
            _LOG.warning(
                "lockstep: expected classifiers that can be trained at once, got %s; they are "
                "trained one after the other",
                self.obstacle,
            )

    def train(self, plans: Sequence[Plan]) -> list[TrainMetrics]:
        """Train each classifier as its plan says; those with fewer steps stop earlier.

        The time is divided among them by their steps.
        """
        if self.obstacle is not None:
            pairs = zip(self._trainers, plans, strict=True)
            return [
                trainer.train(decision, num_steps=steps) for trainer, (decision, steps) in pairs
            ]
        started = time.perf_counter()
        sums = [RunningSums(trainer.device) for trainer in self._trainers]
        for trainer in self._trainers:
            trainer.model.train()
        for step in range(max(steps for _, steps in plans)):
            self._step([i for i, (_, steps) in enumerate(plans) if step < steps], plans, sums)
        metrics = [total.read() for total in sums]
        per_step = (time.perf_counter() - started) / sum(steps for _, steps in plans)
        return [
            _with_seconds(result, per_step * steps)
            for result, (_, steps) in zip(metrics, plans, strict=True)
        ]

    def _step(
        self, active: Sequence[int], plans: Sequence[Plan], sums: Sequence[RunningSums]
    ) -> None:
        trainers = [self._trainers[index] for index in active]
        batches = []
        for index, trainer in zip(active, trainers, strict=True):
            stages = trainer.training_step
            images, labels, key = stages.fetch(seed=trainer.seed, step=trainer.step)
            batches.append(stages.mix(plans[index][0], images, labels, key=key))
        logits_NBK = self._logits(active, batches)
        losses = [
            trainer.training_step.loss(logits, batch)
            for trainer, logits, batch in zip(trainers, logits_NBK, batches, strict=True)
        ]
        # Each loss depends on the weights of one network alone: the sum has its gradient.
        torch.autograd.backward(torch.stack(losses).sum())
        for index, logits, loss, batch in zip(active, logits_NBK, losses, batches, strict=True):
            trainer = self._trainers[index]
            trainer.training_step.update(trainer.step)
            trainer.training_step.average(trainer.step)
            trainer.step += 1
            sums[index].add(loss, logits, batch.labels, is_mixed=batch.is_mixed)

    def _logits(self, active: Sequence[int], batches: Sequence[MicroBatch]) -> Tensor:
        """Return (N, B, K) logits, and let the buffers take in the batches."""
        weights = {
            name: torch.stack([tensors[index] for index in active])
            for name, tensors in self._parameters.items()
        }
        buffers = {
            name: torch.stack([tensors[index] for index in active])
            for name, tensors in self._buffers.items()
        }
        with self._trainers[0].training_step.autocast():
            logits_NBK = self._forward(
                weights, buffers, torch.stack([batch.images for batch in batches])
            )
        originals = [tensors[index] for tensors in self._buffers.values() for index in active]
        if originals:
            updated = [value for stacked in buffers.values() for value in stacked.unbind()]
            torch._foreach_copy_(originals, updated)
        return logits_NBK

    def _one(
        self, weights: dict[str, Tensor], buffers: dict[str, Tensor], images_BCHW: Tensor
    ) -> Tensor:
        logits: Tensor = functional_call(
            self._trainers[0].model, (weights, buffers), (images_BCHW,)
        )
        return logits

    def _find_obstacle(self, image_shape: tuple[int, int, int]) -> str | None:
        config = self._trainers[0].config
        refused = {
            "several processes": current_world().size > 1,
            f"accumulation {config.accumulation}": config.accumulation > 1,
            "precision fp16": config.precision == "fp16",
            "compile": config.compile,
        }
        for name, is_set in refused.items():
            if is_set:
                return name
        try:
            self._try(image_shape)
        except RuntimeError as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            return f"a network that vmap does not take: {reason}"
        return None

    def _try(self, image_shape: tuple[int, int, int]) -> None:
        """Pass zeros through copies of the networks, without a trace."""
        model = self._trainers[0].model
        was_training = model.training
        weights = {
            name: torch.stack(tensors).detach() for name, tensors in self._parameters.items()
        }
        buffers = {name: torch.stack(tensors) for name, tensors in self._buffers.items()}
        device = self._trainers[0].device
        images = torch.zeros(len(self._trainers), 2, *image_shape, device=device)
        try:
            model.train()
            with torch.no_grad():
                self._forward(weights, buffers, images)
        finally:
            model.train(was_training)


def _with_seconds(metrics: TrainMetrics, seconds: float) -> TrainMetrics:
    return dataclasses.replace(metrics, seconds=seconds)
