"""Observations: named features that mean the same for any dataset."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from automix.configuration.task import TaskConfig
from automix.data.splits import SearchData
from automix.mixture import Decision, Mixture
from automix.operator_info import OPERATOR_FACTS, Operator
from automix.training.metrics import CleanMetrics
from envs.config import EnvironmentConfig, ObservationGroup
from envs.measurement import Reading

Observation = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFacts:
    """Facts of a task that are known before its first training run."""

    num_classes: int
    images_per_class: float
    # Rows or columns, the longer side, in pixels.
    image_side: int
    channels: int
    epochs: int
    steps: int

    @classmethod
    def of(cls, task: TaskConfig, data: SearchData) -> "TaskFacts":
        """Return the facts of a task and its data."""
        channels, height, width = data.image_shape
        return cls(
            num_classes=data.num_classes,
            images_per_class=len(data.train) / data.num_classes,
            image_side=max(height, width),
            channels=channels,
            epochs=task.trainer.epochs,
            steps=task.trainer.total_steps(len(data.train)),
        )


class ObservationBuilder:
    """Builds observations, and names, bounds and meanings of their features."""

    def __init__(self, config: EnvironmentConfig, task: TaskFacts) -> None:
        self._task = task
        self.features = features_of(config.operators, config.observation)
        self._low = np.array([feature.low for feature in self.features], dtype=np.float32)
        self._high = np.array([feature.high for feature in self.features], dtype=np.float32)
        self.space = spaces.Box(self._low, self._high, dtype=np.float32)

    def build(self, now: Reading, before: Reading | None) -> Observation:
        """Return a fresh (F,) float32 vector within `space`; NaN becomes the upper bound."""
        view = View(now=now, before=before or now, task=self._task)
        vector = np.array([feature.read(view) for feature in self.features], dtype=np.float64)
        # The loss of a run that diverged is NaN: as bad as can be.
        vector = np.where(np.isnan(vector), self._high, vector)
        return np.clip(vector, self._low, self._high).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Source of the features: two readings of a run, and its task.

    ``before`` is one segment earlier than ``now``, or the same before the first segment.
    """

    now: Reading
    before: Reading
    task: TaskFacts

    @property
    def scale(self) -> float:
        """The loss of chance, log K."""
        return math.log(self.task.num_classes)


@dataclass(frozen=True, slots=True)
class Feature:
    """One entry of the observation: ``read`` gives its value, which is clipped to the bounds."""

    name: str
    group: ObservationGroup
    low: float
    high: float
    meaning: str
    read: Callable[[View], float]
    # Where it depends on progress alone.
    at_progress: Callable[[float], float] | None = None


def features_of(
    operators: tuple[Operator, ...], groups: tuple[ObservationGroup, ...]
) -> tuple[Feature, ...]:
    """Return the features of the groups, group after group."""
    features = [
        *_SHARED_FEATURES,
        *(_stage(index) for index in range(_NUM_STAGES)),
        *(_probe(index, operator) for index, operator in enumerate(operators)),
        *(_last_is(operator) for operator in operators),
    ]
    return tuple(feature for group in groups for feature in features if feature.group is group)


def describe_task(facts: TaskFacts) -> NDArray[np.float64]:
    """Return (F,) features of the group `task`."""
    features = features_of((), (ObservationGroup.TASK,))
    # They read nothing else.
    view = View(now=cast("Reading", None), before=cast("Reading", None), task=facts)
    values = [feature.read(view) for feature in features]
    low, high = np.array([(feature.low, feature.high) for feature in features]).T
    return np.clip(values, low, high)


def random_observations(
    config: EnvironmentConfig, progress: float, *, count: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Return (count, F) observations at a progress, uniform within their bounds otherwise."""
    features = features_of(config.operators, config.observation)
    low, high = np.array([(feature.low, feature.high) for feature in features]).T
    rows = generator.uniform(low, high, size=(count, len(features)))
    for column, feature in enumerate(features):
        if feature.at_progress:
            rows[:, column] = feature.at_progress(progress)
    return rows


def _clean(reading: Reading) -> CleanMetrics:
    # Measured wherever a group reads it, see `EnvironmentConfig.needs_clean_metrics`.
    assert reading.clean is not None
    return reading.clean


def _log_calibrated(view: View) -> float:
    calibrated = view.now.reward.calibrated_nll / view.scale
    return math.log(max(calibrated, 1e-6)) if math.isfinite(calibrated) else math.nan


def _last_strength(view: View) -> float:
    """Return the mean strength of the last decisions by their weights, each within its levels."""
    if not (mixing := _last_decisions(view)):
        return 0.0
    return _mean([(_relative_strength(decision), weight) for decision, weight in mixing])


def _relative_strength(decision: Decision) -> float:
    levels = OPERATOR_FACTS[decision.operator].strength.levels
    span = levels[-1] - levels[0]
    return (decision.strength - levels[0]) / span if span else 1.0


def _last_probability(view: View) -> float:
    return Mixture.of(view.now.decision).probability if view.now.decision else 0.0


def _last_decisions(view: View) -> list[tuple[Decision, float]]:
    """Return the last decisions that are not ``none``, with their weights; 1 of a single one."""
    decisions = Mixture.of(view.now.decision).decisions if view.now.decision else ()
    named = [decision for decision in decisions if decision.operator is not Operator.NONE]
    return [(it, it.probability if len(named) > 1 else 1.0) for it in named]


def _mean(pairs: list[tuple[float, float]]) -> float:
    return sum(value * weight for value, weight in pairs) / sum(weight for _, weight in pairs)


_PROGRESS, _LOSSES = ObservationGroup.PROGRESS, ObservationGroup.LOSSES
_GAP, _SLOPES = ObservationGroup.GAP, ObservationGroup.SLOPES
_LAST, _TASK = ObservationGroup.LAST_DECISION, ObservationGroup.TASK

# Losses are divided by log K, the loss of chance: a policy learned on ten classes reads them on a
# thousand. The bounds leave room for a run that goes wrong, and no more.
# fmt: off
_SHARED_FEATURES = (
    Feature("progress", _PROGRESS, 0, 1, "fraction of the training run done",
            lambda v: v.now.progress, lambda progress: progress),
    Feature("learning_rate", _PROGRESS, 0, 1, "learning rate over its peak",
            lambda v: v.now.learning_rate_fraction),
    Feature("reward_nll", _LOSSES, 0, 3, "NLL on the reward split / log K",
            lambda v: v.now.reward.nll / v.scale),
    Feature("reward_calibrated_nll", _LOSSES, 0, 1.5, "NLL after one fitted temperature / log K",
            lambda v: v.now.reward.calibrated_nll / v.scale),
    # A late segment changes a small loss by a little: the logarithm still shows it.
    Feature("reward_log_calibrated_nll", _LOSSES, -8, 1, "natural logarithm of the feature before",
            _log_calibrated),
    Feature("reward_accuracy", _LOSSES, 0, 1, "accuracy on the reward split",
            lambda v: v.now.reward.accuracy),
    Feature("log_temperature", _LOSSES, -3, 3,
            "natural logarithm of the fitted temperature; above 0: overconfident",
            lambda v: math.log(v.now.reward.temperature)),
    Feature("clean_nll", _LOSSES, 0, 3, "NLL on unmixed training images / log K",
            lambda v: _clean(v.now).nll / v.scale),
    Feature("clean_accuracy", _LOSSES, 0, 1, "accuracy on unmixed training images",
            lambda v: _clean(v.now).accuracy),
    Feature("train_loss", _LOSSES, 0, 3,
            "training loss of the last segment, as fed / log K; 1 before the first",
            lambda v: v.now.train.loss / v.scale if v.now.train else 1.0),
    Feature("nll_gap", _GAP, -3, 3, "reward NLL minus clean training NLL, / log K",
            lambda v: (v.now.reward.nll - _clean(v.now).nll) / v.scale),
    Feature("accuracy_gap", _GAP, -1, 1, "clean training accuracy minus reward accuracy",
            lambda v: _clean(v.now).accuracy - v.now.reward.accuracy),
    Feature("reward_slope", _SLOPES, -2, 2,
            "change of the calibrated reward NLL over the last segment, / log K",
            lambda v: (v.now.reward.calibrated_nll - v.before.reward.calibrated_nll) / v.scale),
    Feature("clean_slope", _SLOPES, -3, 3,
            "change of the clean training NLL over the last segment, / log K",
            lambda v: (_clean(v.now).nll - _clean(v.before).nll) / v.scale),
    Feature("last_strength", _LAST, 0, 1,
            "last strength within the operator's levels, weak 0 to strong 1", _last_strength),
    Feature("last_probability", _LAST, 0, 1, "last mixing probability", _last_probability),
    # Logarithms, because twice as many is as much of a difference at 10 as at 1,000.
    Feature("task_classes", _TASK, 0, 5, "log10 of the number of classes",
            lambda v: math.log10(v.task.num_classes)),
    Feature("task_images_per_class", _TASK, 0, 6, "log10 of the training images per class",
            lambda v: math.log10(v.task.images_per_class)),
    Feature("task_image_side", _TASK, 0, 4, "log10 of the longer image side in pixels",
            lambda v: math.log10(v.task.image_side)),
    Feature("task_color", _TASK, 0, 1, "1 if images have several channels",
            lambda v: float(v.task.channels > 1)),
    Feature("task_epochs", _TASK, 0, 5, "log10 of the epochs of the training run",
            lambda v: math.log10(v.task.epochs)),
    Feature("task_steps", _TASK, 0, 8, "log10 of the optimizer steps of the training run",
            lambda v: math.log10(v.task.steps)),
)
# fmt: on

# A policy must tell early from late within a few hundred episodes. With progress alone, the
# greedy schedule of 320 episodes of an additive model of the digits had a mean loss of 0.102;
# with these bumps 0.092 (best 0.077, best constant 0.096).
_NUM_STAGES = 5


def _stage(index: int) -> Feature:
    """Return how near progress is to a stage: piecewise linear; all stages sum to 1."""
    meaning = f"nearness of progress to {index / (_NUM_STAGES - 1):g}: 1 there, 0 at the next"

    def nearness(progress: float) -> float:
        return max(0.0, 1 - abs(progress * (_NUM_STAGES - 1) - index))

    return Feature(
        f"stage_{index}", _PROGRESS, 0, 1, meaning, lambda v: nearness(v.now.progress), nearness
    )


def _probe(index: int, operator: Operator) -> Feature:
    name, group = f"probe_{operator.value}", ObservationGroup.PROBE
    meaning = f"loss on a training batch mixed by {operator.value} at middle strength / log K"
    return Feature(name, group, 0, 3, meaning, lambda v: v.now.probe[index] / v.scale)


def _last_is(operator: Operator) -> Feature:
    meaning = f"1 if the last operator was {operator.value}; of a mixture, its part; all 0 at first"

    def read(view: View) -> float:
        if view.now.decision is None:
            return 0.0
        if not (mixing := _last_decisions(view)):
            return float(operator is Operator.NONE)
        return _mean(
            [(float(decision.operator is operator), weight) for decision, weight in mixing]
        )

    return Feature(f"last_is_{operator.value}", _LAST, 0, 1, meaning, read)
