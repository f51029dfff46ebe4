"""How a classifier is trained. Free of torch, so that help texts load quickly."""

import itertools
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from automix.config import Config

Share = Annotated[float, Field(gt=0, lt=1)]
DecayRate = Annotated[float, Field(ge=0, lt=1)]


class TrainerConfig(Config):
    """Length, optimiser, precision and averaging of one training."""

    epochs: Annotated[int, Field(ge=1)] = 80
    """Passes over the training split."""

    batch_size: Annotated[int, Field(ge=1)] = 50
    """Images per optimiser step, over all processes and micro-batches. Incomplete last batches are
    dropped, unless the training split is smaller than one batch."""

    accumulation: Annotated[int, Field(ge=1)] = 1
    """Micro-batches per optimiser step, one after the other, each mixed for itself: as many times
    less memory. Must divide batch_size."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd: with Nesterov momentum. adamw: Adam with decoupled weight decay; wants a
    peak_learning_rate of about 1e-3."""

    peak_learning_rate: Annotated[float, Field(gt=0)] = 0.2
    """Largest learning rate of the training."""

    learning_rate_schedule: Literal["one_cycle", "cosine", "multi_step", "constant"] = "one_cycle"
    """Learning rate as a function of progress: up and linearly down (one_cycle), down along a
    cosine, down in steps at milestones (multi_step), or flat (constant)."""

    warm_up: DecayRate | None = None
    """Share of the training in which the learning rate rises linearly; not for constant.
    Default: 0.2 for one_cycle and cosine, 0 for multi_step."""

    milestones: Annotated[tuple[Share, ...], Field(min_length=1)] | None = Field(
        default=None, validate_default=True
    )
    """Shares of the training at which the learning rate drops, rising; for multi_step only."""

    milestone_factor: Share | None = None
    """What the learning rate is multiplied by at each milestone; for multi_step only.
    Default: 0.1."""

    momentum: DecayRate | None = None
    """Nesterov momentum; for sgd only. Default: 0.9."""

    betas: tuple[DecayRate, DecayRate] | None = None
    """Decay per step of the running means of gradients and of their squares; for adamw only.
    Default: 0.9 and 0.999."""

    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """sgd: L2 penalty on weights. adamw: share of the learning rate by which weights shrink per
    step. Norms and biases are spared."""

    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.98
    """Decay per step of the averaged weights that are evaluated; 0 evaluates the raw weights."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each target that is spread evenly over all classes."""

    max_gradient_norm: Annotated[float, Field(gt=0)] | None = None
    """Gradients are scaled down to this norm; null leaves them as they are."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the training passes. With bf16 and fp16 (autocast) weights, losses, saliency
    and evaluation remain in 32 bits; fp16 scales the loss as needed."""

    channels_last: bool = False
    """Keep the channels of a pixel next to one another in memory: faster convolutions on most
    accelerators, above all with bf16 and fp16."""

    compile: bool = False
    """Compile the training passes with torch.compile: a minute or more at the start, faster
    steps afterwards. Results differ in the last bits."""

    def steps_per_epoch(self, num_images: int) -> int:
        """Return the optimiser steps of one pass over ``num_images`` training images."""
        return num_images // min(self.batch_size, num_images)

    def total_steps(self, num_images: int) -> int:
        """Return the optimiser steps of a whole training on ``num_images`` training images."""
        return self.epochs * self.steps_per_epoch(num_images)

    @property
    def warm_up_share(self) -> float:
        """Share of the training in which the learning rate rises."""
        if self.warm_up is not None:
            return self.warm_up
        return 0.2 if self.learning_rate_schedule in {"one_cycle", "cosine"} else 0.0

    @field_validator("accumulation")
    @classmethod
    def _divides_the_batch(cls, accumulation: int, info: ValidationInfo) -> int:
        batch_size = info.data.get("batch_size")
        if batch_size is not None and batch_size % accumulation:
            raise ValueError(f"expected a divisor of batch_size {batch_size}, got {accumulation}")
        return accumulation

    @field_validator("warm_up")
    @classmethod
    def _warm_up_has_effect(cls, warm_up: float | None, info: ValidationInfo) -> float | None:
        if warm_up is not None and info.data.get("learning_rate_schedule") == "constant":
            raise ValueError(f"expected nothing for the schedule 'constant', got {warm_up}")
        return warm_up

    @field_validator("milestones")
    @classmethod
    def _milestones_fit(
        cls, milestones: tuple[float, ...] | None, info: ValidationInfo
    ) -> tuple[float, ...] | None:
        schedule = info.data.get("learning_rate_schedule")
        if schedule == "multi_step" and milestones is None:
            raise ValueError("expected shares such as [0.5, 0.75], got none")
        if milestones is None or schedule is None:
            return milestones
        if schedule != "multi_step":
            raise ValueError(f"expected nothing for the schedule '{schedule}', got {milestones}")
        shares = (info.data.get("warm_up") or 0.0, *milestones)
        if any(share >= following for share, following in itertools.pairwise(shares)):
            raise ValueError(f"expected rising shares after the warm-up, got {milestones}")
        return milestones

    @field_validator("milestone_factor")
    @classmethod
    def _factor_has_effect(cls, factor: float | None, info: ValidationInfo) -> float | None:
        schedule = info.data.get("learning_rate_schedule")
        if factor is not None and schedule not in {None, "multi_step"}:
            raise ValueError(f"expected nothing for the schedule '{schedule}', got {factor}")
        return factor

    @field_validator("momentum", "betas")
    @classmethod
    def _belongs_to_the_optimizer(cls, value: Any, info: ValidationInfo) -> Any:
        optimizer = info.data.get("optimizer")
        owner = "sgd" if info.field_name == "momentum" else "adamw"
        if value is not None and optimizer not in {None, owner}:
            raise ValueError(f"expected nothing for the optimizer '{optimizer}', got {value}")
        return value
