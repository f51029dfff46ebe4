"""From losses to new weights: backward pass, clipping, optimiser step, averaged weights."""

import copy
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from automix.training.config import TrainerConfig
from automix.training.optimization import (
    AveragedWeights,
    learning_rate_at,
    make_optimizer,
    reset_optimizer_,
)


class UpdatesState(TypedDict):
    """What `WeightUpdates` continue from; ``average`` and ``scaler`` are empty where unused."""

    average: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]


class WeightUpdates:
    """Updates the weights of a model, step by step.

    Attributes:
        optimizer: SGD or AdamW.
        average: averaged weights, if any.
    """

    def __init__(self, model: nn.Module, config: TrainerConfig) -> None:
        """Update ``model``, the raw module on its device."""
        self.optimizer = make_optimizer(model, config)
        self.average = (
            AveragedWeights(model, copy.deepcopy(model), decay=config.ema_decay)
            if config.ema_decay
            else None
        )
        self._model = model
        self._config = config
        device = next(model.parameters()).device
        self._scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self._first_scaler = self._scaler.state_dict()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of the mean loss of one of the micro-batches of a step."""
        if self._config.accumulation > 1:
            loss = loss / self._config.accumulation
        torch.autograd.backward(self._scaler.scale(loss))

    def step(self, *, progress: float) -> None:
        """Change the weights by the gradients of a step, and forget the gradients.

        A step whose float16 gradients overflowed changes nothing but the scale of the losses after
        it; the host never learns of it.
        """
        if self._config.max_gradient_norm is not None:
            # What is clipped are the gradients of all micro-batches and processes, unscaled.
            self._scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self._model.parameters(), self._config.max_gradient_norm)
        rate = learning_rate_at(self._config, progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad()

    def take_average(self, step: int) -> None:
        """Take the weights after optimiser step number ``step`` into the average, if any."""
        if self.average:
            self.average.update_(step)

    def reset(self) -> None:
        """Start over in place, averages from the current weights."""
        self.optimizer.zero_grad()
        reset_optimizer_(self.optimizer)
        self._scaler.load_state_dict(self._first_scaler)
        if self.average:
            self.average.copy_()

    def state_dict(self) -> UpdatesState:
        """Return the state, without copying tensors. Reads the scale from the device."""
        return UpdatesState(
            average=self.average.model.state_dict() if self.average else {},
            optimizer=self.optimizer.state_dict(),
            scaler=self._scaler.state_dict(),
        )

    def load_state_dict(self, state: UpdatesState) -> None:
        """Continue from a state of the same configuration."""
        self.optimizer.zero_grad()
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self._scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.model.load_state_dict(state["average"])
