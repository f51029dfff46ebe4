"""Measurements of a classifier after each segment; the classifier stays as it was."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automix.configuration.operators import OperatorOptions
from automix.configuration.task import TaskConfig
from automix.data.batches import BatchPreparer
from automix.data.splits import SearchData, Split, TrainingImages
from automix.mixing import StepKey, mix_step
from automix.models.build import build_model
from automix.models.patches import options_for
from automix.network_outputs import logits_of
from automix.operator_info import OPERATOR_FACTS, Operator
from automix.operators.types import MixedBatch
from automix.random_streams import Stream, derived_seed, stream_generator
from automix.saliency.sources import SaliencySource, build_source
from automix.schedule import Decision, Mixing, Mixture
from automix.training.criterion import saliency_loss
from automix.training.metrics import CleanMetrics, EvalMetrics, TrainMetrics
from automix.training.population import Population
from automix.training.trainer import ClassifierTrainer, training_device
from envs.config import EnvironmentConfig, ObservationGroup
from envs.rewards import SegmentReward


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Knowledge of a training run after a segment (or before the first)."""

    progress: float
    # Over its peak, so that it means the same for any optimizer.
    learning_rate_fraction: float
    reward: EvalMetrics
    # On unmixed training images; None if nothing reads them.
    clean: CleanMetrics | None
    # Of the last segment; None before the first.
    train: TrainMetrics | None
    decision: Mixing | None
    # Loss on the probe batch as each operator mixes it, in nats; empty if not observed.
    probe: tuple[float, ...] = ()
    # Over the segments so far, of `Reward.of_segment`; 0 for other rewards.
    segment_sum: float = 0.0

    def to_plain(self) -> dict[str, Any]:
        """Return nested dicts of numbers and text; `from_plain` is the inverse."""
        return dataclasses.asdict(self) | {
            "decision": self.decision.model_dump(mode="json") if self.decision else None,
            "probe": list(self.probe),
        }

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> "Reading":
        """Return the reading whose `to_plain` is ``values``."""
        decision, clean, train = values["decision"], values["clean"], values["train"]
        return cls(
            progress=values["progress"],
            learning_rate_fraction=values["learning_rate_fraction"],
            reward=EvalMetrics(**values["reward"]),
            clean=CleanMetrics(**clean) if clean else None,
            train=TrainMetrics(**train) if train else None,
            decision=_mixing_of(decision) if decision else None,
            probe=tuple(values["probe"]),
            segment_sum=values["segment_sum"],
        )


def _mixing_of(values: dict[str, Any]) -> Mixing:
    kind = Mixture if "decisions" in values else Decision
    return kind.model_validate(values)


def fixed_sample(split: TrainingImages, count: int) -> Split:
    """Return at most ``count`` images, the same ones in every run."""
    # Of every class alike on average, by the order that a constant seed draws.
    order = torch.randperm(len(split), generator=stream_generator(0, Stream.PROBE))
    return split.subset(order[:count].to(split.device))


def middle_decision(operator: Operator) -> Decision:
    """Return the operator at the middle one of its levels, on every batch."""
    levels = OPERATOR_FACTS[operator].strength.levels
    return Decision(operator=operator, strength=levels[len(levels) // 2])


class MixedProbe:
    """A batch of training images and how each operator mixes it."""

    def __init__(
        self,
        images_BCHW: Tensor,
        labels_B: Tensor,
        *,
        num_classes: int,
        operators: Sequence[Operator],
        saliency: SaliencySource,
        options: OperatorOptions | None = None,
    ) -> None:
        """Keep a float32 batch that is normalized and on the device of the network."""
        self._images, self._labels = images_BCHW, labels_B
        self._num_classes = num_classes
        self._saliency = saliency
        self._options = options
        self._decisions = [middle_decision(operator) for operator in operators]
        # Mixed once: without saliency, the mixed images do not depend on the network. The other
        # operators share one saliency pass after each segment.
        self._kept = {
            decision.operator: self._mix(decision, None)
            for decision in self._decisions
            if not OPERATOR_FACTS[decision.operator].needs_saliency
        }

    @torch.no_grad()
    def losses(self, model: nn.Module) -> tuple[float, ...]:
        """Return the mean loss, in nats, of a model in eval mode on the batch per operator."""
        maps = self._maps(model, self._decisions)
        mixed = [
            self._kept.get(decision.operator) or self._mix(decision, maps)
            for decision in self._decisions
        ]
        # One pass through the network for all operators.
        logits = logits_of(model(torch.cat([batch.images for batch in mixed]))).float()
        targets = torch.cat([batch.targets for batch in mixed])
        losses_N = self._losses(logits, targets)
        # The host waits for the device here, once.
        means: list[float] = losses_N.view(len(mixed), -1).mean(dim=1).tolist()
        return tuple(means)

    @torch.no_grad()
    def losses_of_all(self, population: Population) -> list[tuple[float, ...]]:
        """Return `losses` of every run of a population, from two passes for all of them."""
        count = len(population.trainers)
        with population.evaluated() as network:
            maps = (
                population.saliency(network, self._images, self._labels, self._saliency)
                if self._needs_maps(self._decisions)
                else [None] * count
            )
            mixed = [
                self._kept.get(decision.operator) or self._mix(decision, maps_BHW)
                for maps_BHW in maps
                for decision in self._decisions
            ]
            logits = network(torch.cat([batch.images for batch in mixed])).float()
        targets = torch.cat([batch.targets for batch in mixed])
        losses = self._losses(logits, targets)
        means = losses.view(count, len(self._decisions), -1).mean(dim=2)
        return [tuple(row) for row in means.tolist()]

    def _losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self._labels.ndim == 2:
            return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)
        return F.cross_entropy(logits, targets, reduction="none")

    def segment_reward(
        self, function: SegmentReward, model: nn.Module, decision: Decision
    ) -> float:
        """Return what ``function`` says of a model in eval mode and the batch as decided."""
        mixed = self._mix(decision, self._maps(model, [decision]))
        return function(model, self._images, self._labels, mixed, decision)

    def _maps(self, model: nn.Module, decisions: Sequence[Decision]) -> Tensor | None:
        if self._needs_maps(decisions):
            return self._saliency(model, self._images, self._labels)
        return None

    def _needs_maps(self, decisions: Sequence[Decision]) -> bool:
        return any(OPERATOR_FACTS[decision.operator].needs_saliency for decision in decisions)

    def _mix(self, decision: Decision, maps_BHW: Tensor | None) -> MixedBatch:
        needs_previous = OPERATOR_FACTS[decision.operator].needs_previous
        return mix_step(
            decision,
            self._images,
            self._labels,
            # The same draws after every segment of every run: only the network changes.
            key=StepKey(seed=derived_seed(0, Stream.PROBE), step=0),
            num_classes=self._num_classes,
            model=nn.Identity(),
            saliency=None if maps_BHW is None else lambda *_: maps_BHW,
            previous=self._rolled() if needs_previous else None,
            options=self._options,
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


class Measurement:
    """Takes readings of a training run: as much as observation and reward need, and no more."""

    def __init__(self, task: TaskConfig, config: EnvironmentConfig, data: SearchData) -> None:
        """Choose the training images that are evaluated, and mix those that are probed."""
        self._config = config
        self._reward = data.reward
        self._clean = (
            fixed_sample(data.train, config.probe_images) if config.needs_clean_metrics else None
        )
        self._probe = _make_probe(task, config, data) if config.needs_mixed_probe else None

    def reading(
        self,
        trainer: ClassifierTrainer,
        *,
        train: TrainMetrics | None,
        decision: Mixing | None,
        before: Reading | None,
    ) -> Reading:
        """Return what is known of a run now, of its averaged weights if there are any."""
        # Host waits: one for the evaluated images, and one for the probe.
        reward, clean = trainer.evaluate_both(self._reward, self._clean)
        losses: tuple[float, ...] = ()
        if self._probe is not None and ObservationGroup.PROBE in self._config.observation:
            losses = self._probe.losses(trainer.evaluated_model.eval())
        return self._joined(trainer, reward, clean, losses, train, decision, before)

    def readings(
        self,
        population: Population,
        *,
        train: Sequence[TrainMetrics],
        decisions: Sequence[Mixing],
        before: Sequence[Reading],
    ) -> list[Reading]:
        """Return `reading` of every run of a population, from passes for all at once."""
        config = self._config
        scores = population.evaluate_both(self._reward, self._clean)
        losses: Sequence[tuple[float, ...]] = [()] * len(scores)
        if self._probe is not None and ObservationGroup.PROBE in config.observation:
            losses = self._probe.losses_of_all(population)
        parts = zip(population.trainers, scores, losses, train, decisions, before, strict=True)
        return [
            self._joined(trainer, reward, clean, *others)
            for trainer, (reward, clean), *others in parts
        ]

    def _joined(
        self,
        trainer: ClassifierTrainer,
        reward: EvalMetrics,
        clean: CleanMetrics | None,
        losses: tuple[float, ...],
        train: TrainMetrics | None,
        decision: Mixing | None,
        before: Reading | None,
    ) -> Reading:
        config = self._config
        segment_sum = before.segment_sum if before else 0.0
        if config.segment_reward is not None and decision is not None:
            # Refused of mixtures by the configuration.
            assert self._probe is not None
            assert isinstance(decision, Decision)
            model = trainer.evaluated_model.eval()
            segment_sum += self._probe.segment_reward(config.segment_reward, model, decision)
        rate = trainer.config.learning_rate_at(trainer.progress)
        return Reading(
            progress=trainer.progress,
            learning_rate_fraction=rate / trainer.config.learning_rate,
            reward=reward,
            clean=clean,
            train=train,
            decision=decision,
            probe=losses,
            segment_sum=segment_sum,
        )


def _make_probe(task: TaskConfig, config: EnvironmentConfig, data: SearchData) -> MixedProbe:
    preparer = BatchPreparer(data.statistics, task.data.augment, device=training_device())
    batch = fixed_sample(data.train, config.probe_batch)
    is_observed = ObservationGroup.PROBE in config.observation
    return MixedProbe(
        preparer.evaluation(batch.images),
        batch.labels.to(preparer.device),
        num_classes=data.num_classes,
        operators=config.operators if is_observed else (),
        saliency=build_source(task.saliency, loss=saliency_loss(task.trainer)),
        options=_options(task, data),
    )


def _options(task: TaskConfig, data: SearchData) -> OperatorOptions:
    if task.operators.patch_size != "network":
        return task.operators
    channels, *size = data.image_shape
    model = build_model(
        task.model,
        num_classes=data.num_classes,
        channels=channels,
        image_size=(size[0], size[1]),
        generator=stream_generator(0, Stream.INITIALIZATION),
    )
    return options_for(task.operators, model, image_size=(size[0], size[1]))
