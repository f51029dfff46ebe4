"""How a classifier is trained. Free of torch, so that help texts load quickly."""

from typing import Annotated, Literal

from pydantic import Field

from automix.config import Config


class TrainerConfig(Config):
    """Length, optimiser and averaging of one training."""

    epochs: Annotated[int, Field(ge=1)] = 80
    """Passes over the training split."""

    batch_size: Annotated[int, Field(ge=1)] = 50
    """Images per optimiser step. Incomplete last batches are dropped, unless the training split is
    smaller than one batch."""

    peak_learning_rate: Annotated[float, Field(gt=0)] = 0.2
    """Largest learning rate of the training."""

    learning_rate_schedule: Literal["one_cycle", "cosine", "constant"] = "one_cycle"
    """Learning rate as a function of progress: up and down (one_cycle), down (cosine), or flat."""

    warm_up: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the training in which the learning rate rises linearly; no effect on constant."""

    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Nesterov momentum of SGD."""

    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """L2 penalty on weights; norms and biases are spared."""

    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.98
    """Decay per step of the averaged weights that are evaluated; 0 evaluates the raw weights."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each target that is spread evenly over all classes."""

    max_gradient_norm: Annotated[float, Field(gt=0)] | None = None
    """Gradients are scaled down to this norm; null leaves them as they are."""

    def steps_per_epoch(self, num_images: int) -> int:
        """Return the optimiser steps of one pass over ``num_images`` training images."""
        return num_images // min(self.batch_size, num_images)

    def total_steps(self, num_images: int) -> int:
        """Return the optimiser steps of a whole training on ``num_images`` training images."""
        return self.epochs * self.steps_per_epoch(num_images)
