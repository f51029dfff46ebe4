"""Configuration of an episode: segments, choices, observation and reward.

Free of torch and Gymnasium.
"""

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from automix.configuration.base import Config
from automix.errors import ConfigError
from automix.operator_info import Operator
from envs.rewards import REWARDS, SegmentReward

# Validation and help follow the table; a type checker cannot read names from it.
if TYPE_CHECKING:
    PotentialName = str
else:
    PotentialName = Literal[(*REWARDS, "weighted")]


class ObservationGroup(StrEnum):
    """Features of the observation that are switched together."""

    PROGRESS = "progress"
    """Fraction of the training run completed, as a number and in stages; learning rate."""

    LOSSES = "losses"
    """Losses and accuracies on the reward split and on unmixed training images; the training loss
    of the last segment; the fitted temperature."""

    GAP = "gap"
    """Generalization gap: reward split against unmixed training images, loss and accuracy."""

    SLOPES = "slopes"
    """Change of the two losses over the last segment."""

    PROBE = "probe"
    """Loss on a small batch of training images mixed by each operator at its middle strength: the
    current difficulty of each operator."""

    LAST_DECISION = "last_decision"
    """Operator, strength and probability of the last segment."""

    TASK = "task"
    """Description of the task: classes, training images per class, image size, channels, epochs and
    optimizer steps; for policies that learn from several tasks."""


# Of one task; its description would be the same in every observation.
OF_ONE_TASK = tuple(group for group in ObservationGroup if group is not ObservationGroup.TASK)
# Groups that read metrics on unmixed training images.
CLEAN_GROUPS = frozenset({ObservationGroup.LOSSES, ObservationGroup.GAP, ObservationGroup.SLOPES})


class PotentialWeights(Config):
    """Weights of the potentials in their sum; losses count negatively."""

    calibrated_nll: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the negative calibrated NLL, in nats."""

    nll: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the negative NLL, in nats."""

    accuracy: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the accuracy, from 0 to 1."""


_POTENTIAL_HELP = (
    "Quantity whose gain over a segment is the segment's reward, on the reward split. "
    + "; ".join(f"{name}: {reward.help}" for name, reward in REWARDS.items())
    + "; weighted: the sum that potential_weights says."
)


class EnvironmentConfig(Config):
    """The decision process that wraps one training run of a classifier."""

    num_segments: Annotated[int, Field(ge=1, le=1000)] = 8
    """Decisions per episode; each holds for an equal part of the training run."""

    segment_starts: Annotated[tuple[float, ...], Field(max_length=1000)] = ()
    """Fractions of the training run at which the segments begin, from 0 on, where they are not
    equal: [0, 0.5, 0.75, 0.875, 0.9375] is finer at the end, where effects are the largest. As many
    as num_segments."""

    actions: Literal["decisions", "mixtures"] = "decisions"
    """What an action can say of a segment. decisions: an operator, its strength, how often it
    mixes; mixtures: one of these, or two or three of the operators, of which each batch draws
    one."""

    operators: Annotated[tuple[Operator, ...], Field(min_length=1)] = (
        Operator.NONE,
        Operator.MIXUP,
        Operator.CUTMIX,
        Operator.SALIENCYMIX,
        Operator.BERNOULLI_GRAFTING,
    )
    """Operators the policy chooses between."""

    num_strengths: Annotated[int, Field(ge=1, le=3)] = 3
    """Number of levels of each operator, from weak to strong, that the policy chooses between."""

    probabilities: Annotated[tuple[float, ...], Field(min_length=1)] = (0.5, 1.0)
    """Mixing probabilities (fractions of mixed batches) that the policy chooses between. Each in
    (0, 1]; rising."""

    potential: PotentialName = Field(default="calibrated_nll", description=_POTENTIAL_HELP)

    potential_weights: PotentialWeights = Field(default_factory=PotentialWeights)
    """Weights of the sum; with potential weighted only."""

    observation: Annotated[tuple[ObservationGroup, ...], Field(min_length=1)] = OF_ONE_TASK
    """Groups of features that the policy observes: progress, losses, gap, slopes, probe,
    last_decision, and task, the description of the task, where there are several."""

    probe_images: Annotated[int, Field(ge=1)] = 500
    """Largest number of unmixed training images on which the generalization gap is measured."""

    probe_batch: Annotated[int, Field(ge=2, le=4096)] = 32
    """Largest number of training images on which the loss under each operator is measured."""

    snapshot_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of episodes that start from a snapshot of an earlier episode, taken after a random
    segment: the agent sees late stages of training more often, at less cost."""

    snapshot_capacity: Annotated[int, Field(ge=1, le=1024)] = 16
    """Snapshots of recent episodes that each environment keeps; a snapshot is the weights, their
    average and the state of the optimizer."""

    @field_validator("segment_starts")
    @classmethod
    def _starts_rise_from_0(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        is_inside = all(0 <= start < 1 for start in value)
        if value and (value[0] != 0 or not is_inside or list(value) != sorted(set(value))):
            raise ValueError(f"expected rising fractions from 0 to below 1, got {list(value)}")
        return value

    @field_validator("operators")
    @classmethod
    def _no_operator_twice(cls, value: tuple[Operator, ...]) -> tuple[Operator, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"expected each operator once, got {', '.join(value)}")
        return value

    @field_validator("probabilities")
    @classmethod
    def _probabilities_rise(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        in_range = all(0 < probability <= 1 for probability in value)
        if not in_range or list(value) != sorted(set(value)):
            raise ValueError(f"expected rising probabilities in (0, 1], got {list(value)}")
        return value

    @field_validator("observation")
    @classmethod
    def _groups_in_order(cls, value: tuple[ObservationGroup, ...]) -> tuple[ObservationGroup, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"expected each group once, got {', '.join(value)}")
        # The order of the features is part of what a saved policy was trained on.
        return tuple(group for group in ObservationGroup if group in value)

    @model_validator(mode="after")
    def _options_have_an_effect(self) -> Self:
        if self.segment_starts and len(self.segment_starts) != self.num_segments:
            raise ValueError(
                f"expected num_segments {len(self.segment_starts)} with as many segment_starts, "
                f"got {self.num_segments}"
            )
        if self.actions == "mixtures" and self.segment_reward:
            raise ValueError(
                f"expected actions decisions with potential {self.potential}, got mixtures"
            )
        is_weighted = self.potential == "weighted"
        has_weights = any(weight for _, weight in self.potential_weights)
        if is_weighted and not has_weights:
            raise ValueError("expected potential_weights above 0 with potential weighted, got none")
        if not is_weighted and has_weights:
            raise ValueError(
                f"expected no potential_weights with potential {self.potential}, got some"
            )
        # An option that changes nothing is refused: whoever sets it expects a difference.
        if not self.snapshot_fraction:
            self._refuse_unless_default("snapshot_capacity", "snapshot_fraction above 0")
        elif self.num_segments < 2:
            raise ValueError("expected at least 2 segments with snapshot_fraction, got 1")
        if not self.needs_clean_metrics:
            self._refuse_unless_default("probe_images", "losses, gap or slopes in observation")
        if not self.needs_mixed_probe:
            by_segment = [name for name, reward in REWARDS.items() if reward.of_segment]
            self._refuse_unless_default(
                "probe_batch", f"probe in observation or potential {' or '.join(by_segment)}"
            )
        return self

    def _refuse_unless_default(self, name: str, needed: str) -> None:
        value, default = getattr(self, name), type(self).model_fields[name].default
        if value != default:
            raise ValueError(f"expected {name} {default} without {needed}, got {value}")

    @property
    def starts(self) -> tuple[float, ...]:
        """Fractions of the training run at which the segments begin."""
        count = self.num_segments
        return self.segment_starts or tuple(index / count for index in range(count))

    @property
    def reward_weights(self) -> Mapping[str, float]:
        """Weights of the rewards of the table in the potential."""
        if self.potential == "weighted":
            return dict(self.potential_weights)
        return {self.potential: 1.0}

    @property
    def segment_reward(self) -> SegmentReward | None:
        """Function that rewards each segment by itself; None where the reward split does."""
        reward = REWARDS.get(self.potential)
        return reward.of_segment if reward else None

    @property
    def needs_mixed_probe(self) -> bool:
        """Whether a batch of training images is mixed after each segment."""
        return ObservationGroup.PROBE in self.observation or self.segment_reward is not None

    @property
    def needs_clean_metrics(self) -> bool:
        """Whether unmixed training images are evaluated after each segment."""
        return bool(CLEAN_GROUPS & set(self.observation))

    def check_length(self, total_steps: int) -> None:
        """Raise `ConfigError` where a segment would have no optimizer step."""
        if self.segment_starts:
            firsts = [math.ceil(start * total_steps) for start in (*self.segment_starts, 1.0)]
            if len(set(firsts)) < len(firsts):
                raise ConfigError(
                    f"environment.segment_starts: expected segments of at least one of the "
                    f"{total_steps} optimizer steps of a training run, got "
                    f"{list(self.segment_starts)}"
                )
            return
        if self.num_segments > total_steps:
            raise ConfigError(
                f"environment.num_segments: expected at most {total_steps} (the optimizer steps of "
                f"a training run), got {self.num_segments}"
            )
