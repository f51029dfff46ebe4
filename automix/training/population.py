"""Several training runs of one task at once, as one network with a group for each of them.

Each run keeps its own seed, images, decisions and draws, and its `ClassifierTrainer`, whose tensors
are views of the population's: between two calls it can be evaluated, saved, restored and reset as
if it were alone. Sums run in another order than in a run of its own, so the last bits differ; with
the same number of runs they repeat.

Shape suffixes: N runs, B batch, C channels, H rows, W columns, K classes, M images of a split.
"""

import contextlib
import functools
import logging
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from automix.configuration.base import shown
from automix.configuration.trainer import TrainerConfig
from automix.data.splits import Split
from automix.mixing import IMAGEWISE_OPERATORS, StepKey, draw_decision, mix_steps
from automix.mixture import Decision, Mixing, Mixture
from automix.models.stacked import StackedNetwork, by_network
from automix.operator_info import OPERATOR_FACTS, Operator
from automix.operators.types import MixedBatch
from automix.saliency.gradient import evaluation_mode, layer_gradient
from automix.saliency.sources import SaliencySource
from automix.schedule import Schedule
from automix.training.distributed import current_world
from automix.training.metrics import CleanMetrics, EvalMetrics, TrainMetrics
from automix.training.population_sums import PopulationSums
from automix.training.precision import fast_products
from automix.training.scores import both_metrics, eval_metrics, evaluation_scores
from automix.training.stacked_blend import stacked_features_blended
from automix.training.step import MicroBatch
from automix.training.targets import cross_entropy, joined_targets
from automix.training.trainer import ClassifierTrainer
from automix.training.updates import make_optimizer, set_learning_rates_

_LOG = logging.getLogger(__name__)

Plan = tuple[Mixing, int]
"""How a classifier is trained next: a decision or mixture, and the number of optimizer steps."""

_TRAINED_ALONE = (
    "accumulation",
    "clean_loss",
    "class_weights",
    "logit_adjustment",
    "head_learning_rate",
    "layer_decay",
    "freeze_body",
    "freeze_batch_norm",
    "gradient_checkpointing",
    "compile",
)
_Fetched = tuple[Tensor, Tensor, StepKey]


def group_sizes(count: int, largest: int, *, fewest: int = 1) -> list[int]:
    """Return the sizes of the populations in which ``count`` runs are trained.

    They are as even as they can be, none above ``largest``, and at least ``fewest`` if there are as
    many runs. Nothing else decides them, because the last bits of a run depend on the number of
    runs beside it.

    Examples:
        >>> group_sizes(20, 8), group_sizes(6, 8, fewest=2), group_sizes(1, 8, fewest=2)
        ([7, 7, 6], [3, 3], [1])
    """
    number = max(-(-count // largest), min(fewest, count))
    return [count // number + (index < count % number) for index in range(number)] if count else []


class Population:
    """Trains and evaluates classifiers of one architecture and configuration together.

    Networks that have no stacked form, and configurations that need a step of another kind, are
    trained one after the other instead; one line in the log says why.

    Attributes:
        trainers: of the runs; their tensors are changed in place only.
        obstacle: why they are trained one after the other; None if they are not.
    """

    def __init__(self, trainers: Sequence[ClassifierTrainer]) -> None:
        """Join ``trainers``, which share a task and a device."""
        self.trainers = list(trainers)
        self._steps = [trainer.training_step for trainer in trainers]
        self._config = trainers[0].config
        self.obstacle = self._join()
        if self.obstacle is not None:
            _LOG.warning(
                "population: expected classifiers that can be trained at once, got %s; they are "
                "trained one after the other",
                self.obstacle,
            )

    def _join(self) -> str | None:
        if (obstacle := _obstacle(self.trainers[0])) is not None:
            return obstacle
        try:
            self._network = StackedNetwork([trainer.model for trainer in self.trainers])
        except ValueError as error:
            return f"a network with {error}"
        averages = [step.averaged for step in self._steps if step.averaged is not None]
        self._averaged: StackedNetwork | None = None
        if averages:
            self._averaged = StackedNetwork([average.model for average in averages])
            for average, trainer in zip(averages, self.trainers, strict=True):
                average.track(trainer.model)
            # Weights and batch-norm statistics; the counters of batches are not stacked.
            self._pairs = (
                list(self._averaged.state_dict().values()),
                list(self._network.state_dict().values()),
            )
        self._counters = [
            [value for value in trainer.model.buffers() if not value.is_floating_point()]
            for trainer in self.trainers
        ]
        self._optimizer = make_optimizer(self._network, self._config)
        members = [dict(trainer.model.named_parameters()) for trainer in self.trainers]
        # Each stacked parameter, and those of the runs that are views of it.
        self._parameters = [
            (stacked, [member[name] for member in members])
            for name, stacked in self._network.body.named_parameters()
        ]
        return None

    def train(self, plans: Sequence[Plan]) -> list[TrainMetrics]:
        """Train each classifier as its plan says; those with fewer steps stop earlier.

        The time is divided among them by their steps.
        """
        if self.obstacle is not None:
            pairs = zip(self.trainers, plans, strict=True)
            return [trainer.train(mixing, num_steps=steps) for trainer, (mixing, steps) in pairs]
        started = time.perf_counter()
        mixtures = [Mixture.of(mixing) for mixing, _ in plans]
        self._join_momentum()
        self._network.train()
        for trainer in self.trainers:
            trainer.model.train()
        sums = PopulationSums(len(plans), self.trainers[0].device)
        for step in range(max(steps for _, steps in plans)):
            self._step([i for i, (_, steps) in enumerate(plans) if step < steps], mixtures, sums)
        for counters, step_of, (_, steps) in zip(self._counters, self._steps, plans, strict=True):
            for counter in counters:
                counter.add_(steps)
            if step_of.averaged is not None:
                step_of.averaged.copy_counts_()
        return sums.read([steps for _, steps in plans], started=started)

    def _step(
        self, active: Sequence[int], mixtures: Sequence[Mixture], sums: PopulationSums
    ) -> None:
        # 1. Fetch and mix: each run its own images, draws and decision. A run that is over passes
        # zeros, whose gradients and statistics are dropped.
        fetched = [
            stages.fetch(seed=trainer.seed, step=trainer.step)
            for stages, trainer in ((self._steps[i], self.trainers[i]) for i in active)
        ]
        batches = self._mix([mixtures[index] for index in active], active, fetched)
        # 2. Forward, loss, backward: of the sum over runs, each of which depends on its own
        # weights alone.
        with self._others_untouched(active):
            logits_NBK = self._logits(active, batches)
            losses_N = self._losses(logits_NBK, batches)
            with fast_products(self.trainers[0].device):
                torch.autograd.backward(losses_N.sum())
        # 3. Update, and average.
        self._update(active)
        labels_NB = torch.stack([batch.labels for batch in batches])
        sums.add(active, losses_N, logits_NBK, labels_NB, [batch.is_mixed for batch in batches])
        for index in active:
            self.trainers[index].step += 1

    def _logits(self, active: Sequence[int], batches: Sequence[MicroBatch]) -> Tensor:
        images = self._images(active, [batch.images for batch in batches])
        blends = {
            index: batch.blend for index, batch in zip(active, batches, strict=True) if batch.blend
        }
        with self._steps[0].autocast(), stacked_features_blended(self._network, blends):
            logits = self._network(images)
        logits_NBK = by_network(logits, len(self.trainers))
        return logits_NBK if len(active) == len(self.trainers) else logits_NBK[list(active)]

    def _losses(self, logits_NBK: Tensor, batches: Sequence[MicroBatch]) -> Tensor:
        """Return the training loss of each run, (N,)."""
        losses = cross_entropy(
            logits_NBK.flatten(0, 1),
            joined_targets([batch.targets for batch in batches], logits_NBK.shape[2]),
            smoothing=self._config.label_smoothing,
            reduction="none",
        )
        losses_N = losses.view(logits_NBK.shape[:2]).mean(dim=1)
        if not any(batch.decoupled_eta for batch in batches):
            return losses_N
        zero = losses_N.new_zeros(())
        terms = [
            self._steps[0].criterion.decoupled(logits_BK, batch.targets, eta=batch.decoupled_eta)
            if batch.decoupled_eta
            else zero
            for logits_BK, batch in zip(logits_NBK, batches, strict=True)
        ]
        return losses_N + torch.stack(terms)

    def _mix(
        self, mixtures: Sequence[Mixture], active: Sequence[int], fetched: Sequence[_Fetched]
    ) -> list[MicroBatch]:
        # Of its mixture each run draws for itself, as if it were alone.
        drawn = [
            draw_decision(mixture, key)
            for mixture, (_, _, key) in zip(mixtures, fetched, strict=True)
        ]
        maps = self._maps(drawn, active, fetched)
        # A batch that is kept for the next needs targets, which those of one call do not have.
        joinable = [
            None if mixture.keeps_batches or self._has_options(decision) else decision
            for mixture, decision in zip(mixtures, drawn, strict=True)
        ]
        mixed = self._mixed_at_once(joinable, active, fetched, maps)
        return [
            self._steps[index].mix(
                mixture,
                images,
                labels,
                key=key,
                maps_BHW=maps.get(index),
                mixed=mixed.get(index),
            )
            for index, mixture, (images, labels, key) in zip(active, mixtures, fetched, strict=True)
        ]

    def _has_options(self, decision: Decision | None) -> bool:
        return decision is not None and self._steps[0].options.changes(decision.operator)

    def _mixed_at_once(
        self,
        drawn: Sequence[Decision | None],
        active: Sequence[int],
        fetched: Sequence[_Fetched],
        maps: dict[int, Tensor],
    ) -> dict[int, MixedBatch]:
        """Return the mixed batches of runs that use the same operator, one call for each operator.

        A call for eight batches of 50 digits takes a fifth of the time of eight calls.
        """
        alike: dict[Operator, list[tuple[int, Decision]]] = {}
        for position, (index, decision) in enumerate(zip(active, drawn, strict=True)):
            if decision is None or decision.operator not in IMAGEWISE_OPERATORS:
                continue
            if index in maps or not OPERATOR_FACTS[decision.operator].needs_saliency:
                alike.setdefault(decision.operator, []).append((position, decision))
        mixed: dict[int, MixedBatch] = {}
        for operator, drawers in alike.items():
            if len(drawers) == 1:
                continue
            positions = [position for position, _ in drawers]
            members = [active[position] for position in positions]
            batches = mix_steps(
                [decision for _, decision in drawers],
                [fetched[position][0] for position in positions],
                keys=[fetched[position][2] for position in positions],
                maps_BHW=(
                    [maps[index] for index in members]
                    if OPERATOR_FACTS[operator].needs_saliency
                    else None
                ),
            )
            mixed.update(zip(members, batches, strict=True))
        return mixed

    def _maps(
        self,
        drawn: Sequence[Decision | None],
        active: Sequence[int],
        fetched: Sequence[_Fetched],
    ) -> dict[int, Tensor]:
        """Return the maps of the runs that need them, from one pass for all runs.

        Sources that keep maps, or that name a layer of the network, are asked run by run instead.
        """
        source = self._steps[0].saliency
        needing = [
            index
            for index, decision in zip(active, drawn, strict=True)
            if decision is not None and OPERATOR_FACTS[decision.operator].needs_saliency
        ]
        # The pass of one run is cheaper without the others.
        if _names_a_layer(source) or self._steps[0].refresh_every > 1 or len(needing) < 2:
            return {}
        by_run = dict(zip(active, fetched, strict=True))
        network = self._network
        if len(needing) < len(self.trainers):
            network = self._network.only(needing)
        images = torch.cat([by_run[index][0] for index in needing])
        labels = torch.cat([by_run[index][1] for index in needing])
        maps_NBHW = by_network(source(network, images, labels), len(needing))
        return dict(zip(needing, maps_NBHW, strict=True))

    def _images(self, active: Sequence[int], images: Sequence[Tensor]) -> Tensor:
        """Return (N * B, C, H, W), zeros for runs that are not active."""
        if len(active) == len(self.trainers):
            return torch.cat(list(images))
        everybody = [torch.zeros_like(images[0])] * len(self.trainers)
        for index, images_BCHW in zip(active, images, strict=True):
            everybody[index] = images_BCHW
        return torch.cat(everybody)

    @contextlib.contextmanager
    def _others_untouched(self, active: Sequence[int]) -> Iterator[None]:
        """Put the batch-norm statistics of the runs that are over back after a forward pass."""
        over = [trainer for i, trainer in enumerate(self.trainers) if i not in active]
        buffers = [b for trainer in over for b in trainer.model.buffers() if b.is_floating_point()]
        kept = [buffer.clone() for buffer in buffers]
        yield
        for buffer, value in zip(buffers, kept, strict=True):
            buffer.copy_(value)

    def _update(self, active: Sequence[int]) -> None:
        first = self.trainers[active[0]]
        if self._is_in_step(active):
            set_learning_rates_(self._optimizer, self._config.learning_rate_at(first.progress))
            self._optimizer.step()
            if self._averaged is not None:
                assert self._steps[0].averaged is not None
                decay = self._steps[0].averaged.decay_at(first.step)
                torch._foreach_lerp_(*self._pairs, 1 - decay)
        else:
            for stacked, members in self._parameters:
                assert stacked.grad is not None
                for member, gradient in zip(members, stacked.grad.chunk(len(members)), strict=True):
                    member.grad = gradient
            for index in active:
                self._steps[index].update(self.trainers[index].step)
                self._steps[index].average(self.trainers[index].step)
        self._optimizer.zero_grad()

    def _is_in_step(self, active: Sequence[int]) -> bool:
        """Whether one update of the stacked tensors is that of every run."""
        steps = {self.trainers[index].step for index in active}
        # AdamW counts its steps, and a norm to clip is that of one run.
        return (
            len(active) == len(self.trainers)
            and len(steps) == 1
            and self._config.optimizer == "sgd"
            and self._config.max_grad_norm is None
        )

    def _join_momentum(self) -> None:
        """Make the momentum of each run a view of the stacked one, also after a restored state."""
        if self._config.optimizer != "sgd" or self._config.momentum == 0:
            return
        for stacked, members in self._parameters:
            state = self._optimizer.state[stacked]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(stacked)
            parts = state["momentum_buffer"].chunk(len(members))
            for step, member, part in zip(self._steps, members, parts, strict=True):
                current = step.optimizer.state[member].get("momentum_buffer")
                if current is None or current.data_ptr() != part.data_ptr():
                    # The first step of zero momentum is that of none.
                    part.zero_() if current is None else part.copy_(current)
                    step.optimizer.state[member]["momentum_buffer"] = part

    def replay(self, schedules: Sequence[Schedule]) -> list[float]:
        """Train every run from where it is to the end as its schedule says; return the seconds."""
        seconds = [0.0] * len(self.trainers)
        while True:
            # To the next step at which any run changes its mixture.
            stretches = [
                schedule.holds_until(
                    trainer.step, limit=trainer.total_steps, num_steps=trainer.total_steps
                )
                - trainer.step
                for schedule, trainer in zip(schedules, self.trainers, strict=True)
                if trainer.step < trainer.total_steps
            ]
            if not stretches:
                return seconds
            plans = [
                (
                    schedule.mixture_at(trainer.progress),
                    min(*stretches, trainer.total_steps - trainer.step),
                )
                for schedule, trainer in zip(schedules, self.trainers, strict=True)
            ]
            for index, metrics in enumerate(self.train(plans)):
                seconds[index] += metrics.seconds

    def evaluate(
        self, split: Split, *, temperatures: Sequence[float] | None = None
    ) -> list[EvalMetrics]:
        """Evaluate every classifier on ``split``; the host waits for the device once.

        Args:
            split: at least one image.
            temperatures: one per classifier, as in `ClassifierTrainer.evaluate`.
        """
        if self.obstacle is not None:
            fitted: Sequence[float | None] = temperatures or [None] * len(self.trainers)
            return [
                trainer.evaluate(split, temperature=temperature)
                for trainer, temperature in zip(self.trainers, fitted, strict=True)
            ]
        logits, labels = self.logits(split), split.labels.to(self.trainers[0].device)
        fitted_N = None if temperatures is None else logits.new_tensor(temperatures)
        scores_N4 = evaluation_scores(logits, labels, temperature=fitted_N)
        return [eval_metrics(scores, num_images=len(split)) for scores in scores_N4.tolist()]

    def evaluate_both(
        self, split: Split, training: Split | None
    ) -> list[tuple[EvalMetrics, CleanMetrics | None]]:
        """Evaluate every classifier on ``split`` and on unmixed training images."""
        if self.obstacle is not None:
            return [trainer.evaluate_both(split, training) for trainer in self.trainers]
        splits = [split, training] if training is not None else [split]
        return both_metrics(self.logits(*splits), splits)

    def logits(self, *splits: Split) -> Tensor:
        """Return (N, M, K) float32 logits of the evaluated weights on ``splits``, in order."""
        # Network by network: in large batches there are no fixed costs to share, and on a CPU
        # grouped convolutions of 550 digits took 1.2 times as long.
        return torch.stack([trainer.logits(*splits) for trainer in self.trainers])

    def saliency(
        self, network: StackedNetwork, images_BCHW: Tensor, labels_B: Tensor, source: SaliencySource
    ) -> Tensor | list[Tensor]:
        """Return (N, B, H, W) maps of the same images under the evaluated weights of every run."""
        count = len(self.trainers)
        if _names_a_layer(source):
            models = [trainer.evaluated_model for trainer in self.trainers]
            return [source(model, images_BCHW, labels_B) for model in models]
        maps = source(network, torch.cat([images_BCHW] * count), labels_B.repeat(count))
        return by_network(maps, count)

    @contextlib.contextmanager
    def evaluated(self) -> Iterator[StackedNetwork]:
        """Yield the stacked network of the weights that are evaluated, in evaluation mode."""
        network = self._averaged or self._network
        with evaluation_mode(network):
            yield network


def _names_a_layer(source: SaliencySource) -> bool:
    # The output of a layer of the stacked network has the channels of all networks.
    return isinstance(source, functools.partial) and source.func is layer_gradient


def _obstacle(trainer: ClassifierTrainer) -> str | None:
    config = trainer.config
    if current_world().size > 1:
        return "several processes"
    if config.loss == "binary_cross_entropy":
        return f"the loss {config.loss}"
    for name in _TRAINED_ALONE:
        value = getattr(config, name)
        if value != TrainerConfig.model_fields[name].default:
            return f"{name} {shown(value)}"
    if trainer.training_step.options.attention_labels:
        return "attention_labels"
    return "precision fp16" if trainer.training_step.precision == "fp16" else None
