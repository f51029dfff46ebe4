"""Updates of the weights: the optimizer, and the moving average of the weights."""

import copy

import torch
from torch import Tensor, nn

from automix.configuration.trainer import TrainerConfig

_MOMENTUM = 0.9
_BETAS = (0.9, 0.999)
_EMA_WARMUP_STEPS = 10


def make_optimizer(model: nn.Module, config: TrainerConfig) -> torch.optim.SGD | torch.optim.AdamW:
    """Return the optimizer of ``config``, without weight decay on norms and biases."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    rate = config.learning_rate_at(0.0)
    # Fused: one kernel for all weights, and with a GradScaler no wait for the device.
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=config.betas or _BETAS, fused=True)
    momentum = _MOMENTUM if config.momentum is None else config.momentum
    return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=momentum > 0, fused=True)


def reset_optimizer_(optimizer: torch.optim.Optimizer) -> None:
    """Set every state tensor to zero in place; the first step then equals that of a new one."""
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, Tensor):
                value.zero_()


class AveragedWeights:
    """Exponential moving average of a model's weights and BatchNorm statistics.

    Attributes:
        model: a copy of the model that holds the averages; evaluate this one.
    """

    def __init__(self, source: nn.Module, *, decay: float) -> None:
        """Average ``source`` into a copy of it; ``decay`` in (0, 1)."""
        self.model = copy.deepcopy(source).requires_grad_(False)
        self._decay = decay
        self.track(source)

    def track(self, source: nn.Module) -> None:
        """Average ``source`` from now on, or look its tensors up again after they were moved."""
        self._pairs = _floating_state(self.model), _floating_state(source)
        self._counts = _integer_state(self.model), _integer_state(source)

    @torch.no_grad()
    def copy_(self) -> None:
        """Set the averages to the current weights."""
        for averages, current in (self._pairs, self._counts):
            for average, value in zip(averages, current, strict=True):
                average.copy_(value)

    @torch.no_grad()
    def update_(self, step: int) -> None:
        """Take in the weights after optimizer step number ``step`` (from 0)."""
        # average = d * average + (1 - d) * weights
        torch._foreach_lerp_(*self._pairs, 1 - self.decay_at(step))
        self.copy_counts_()

    def copy_counts_(self) -> None:
        """Set the integers, which have no average, to the current ones."""
        if self._counts[0]:
            torch._foreach_copy_(*self._counts)

    def decay_at(self, step: int) -> float:
        """Return d = min(decay, (1 + t) / (10 + t)) after optimizer step t."""
        # It warms up, or the initial weights would dominate the average of the first steps.
        return min(self._decay, (1 + step) / (_EMA_WARMUP_STEPS + step))


def _floating_state(module: nn.Module) -> list[Tensor]:
    return [value for value in module.state_dict().values() if value.is_floating_point()]


def _integer_state(module: nn.Module) -> list[Tensor]:
    return [value for value in module.state_dict().values() if not value.is_floating_point()]
