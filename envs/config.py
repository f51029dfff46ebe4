"""What an episode is: segments, choices and reward. Free of torch and Gymnasium."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from automix.config import Config
from automix.errors import ConfigError
from automix.vocabulary import Operator

PotentialName = Literal["calibrated_nll", "nll", "accuracy"]


class EnvironmentConfig(Config):
    """The decision process that wraps one training of a classifier."""

    num_segments: Annotated[int, Field(ge=1, le=1000)] = 8
    """Decisions per episode; each holds for an equal share of the training."""

    operators: Annotated[tuple[Operator, ...], Field(min_length=1)] = (
        Operator.NONE,
        Operator.MIXUP,
        Operator.CUTMIX,
        Operator.SALIENCYMIX,
        Operator.SALIENCY_GRAFTING,
    )
    """Operators the policy chooses between."""

    num_strengths: Annotated[int, Field(ge=1, le=3)] = 3
    """How many of each operator's levels, from weak to strong, the policy chooses between."""

    probabilities: Annotated[tuple[float, ...], Field(min_length=1)] = (0.5, 1.0)
    """Shares of mixed batches the policy chooses between. Each in (0, 1]; rising."""

    potential: PotentialName = "calibrated_nll"
    """What a segment's reward is the gain of, on the reward split: the negative NLL after one
    fitted temperature (in nats), the negative NLL (in nats), or the accuracy."""

    probe_images: Annotated[int, Field(ge=1)] = 500
    """At most this many training images, unmixed, tell the generalisation gap."""

    @field_validator("operators")
    @classmethod
    def _no_operator_twice(cls, value: tuple[Operator, ...]) -> tuple[Operator, ...]:
        if len(set(value)) < len(value):
            names = ", ".join(operator.value for operator in value)
            raise ValueError(f"expected each operator once, got {names}")
        return value

    @field_validator("probabilities")
    @classmethod
    def _probabilities_rise(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < share <= 1 for share in value) or list(value) != sorted(set(value)):
            raise ValueError(f"expected rising shares in (0, 1], got {list(value)}")
        return value

    def check_length(self, total_steps: int) -> None:
        """Refuse more segments than a training has optimiser steps: some would be empty.

        Raises:
            ConfigError: there are more.
        """
        if self.num_segments > total_steps:
            raise ConfigError(
                f"environment.num_segments: expected at most {total_steps} (the optimiser steps of "
                f"a training), got {self.num_segments}"
            )
