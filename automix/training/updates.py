"""Updates of the weights: the optimizer, and the moving average of the weights."""

import contextlib
import copy
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from automix.configuration.trainer import TrainerConfig
from automix.models.layers import layer_numbers

_MOMENTUM = 0.9
_BETAS = (0.9, 0.999)
_EMA_WARMUP_STEPS = 10


def make_optimizer(model: nn.Module, config: TrainerConfig) -> torch.optim.SGD | torch.optim.AdamW:
    """Return the optimizer of ``config``, with the groups of `parameter_groups`."""
    groups = parameter_groups(model, config)
    rate = config.learning_rate_at(0.0)
    # Fused: one kernel for all weights, and with a GradScaler no wait for the device.
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=config.betas or _BETAS, fused=True)
    momentum = _MOMENTUM if config.momentum is None else config.momentum
    return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=momentum > 0, fused=True)


def parameter_groups(model: nn.Module, config: TrainerConfig) -> list[dict[str, Any]]:
    """Return the groups of trained parameters: with and without weight decay, by layer if need be.

    Norms and biases have no weight decay. Where layers differ, a group belongs to one of
    them: ``lr_scale`` is the factor of its learning rate, layer_decay ** (layers after it) or that
    of the head, and ``is_head`` says whether it stays trained while the body is frozen.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not config.tells_layers_apart:
        return _by_decay([p for _, p in named], config)
    numbers = layer_numbers(model)
    head = max(numbers.values())
    head_scale = (config.head_learning_rate or config.learning_rate) / config.learning_rate
    groups = []
    for layer in range(head + 1):
        scale = head_scale if layer == head else config.layer_decay ** (head - layer)
        extra = {"lr_scale": scale, "is_head": layer == head}
        groups += _by_decay([p for name, p in named if numbers[name] == layer], config, **extra)
    # A layer of matrices alone has no group without weight decay, and a frozen one has none.
    return [group for group in groups if group["params"]]


def _by_decay(
    parameters: list[nn.Parameter], config: TrainerConfig, **extra: Any
) -> list[dict[str, Any]]:
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": config.weight_decay, **extra},
        {"params": vectors, "weight_decay": 0.0, **extra},
    ]


def frozen_parameters(
    optimizer: torch.optim.Optimizer, config: TrainerConfig, progress: float
) -> list[Tensor]:
    """Return the parameters that are not trained at ``progress``, a fraction of the run."""
    if progress >= config.freeze_body:
        return []
    bodies = [group["params"] for group in optimizer.param_groups if not group["is_head"]]
    return [parameter for parameters in bodies for parameter in parameters]


@contextlib.contextmanager
def constant(parameters: Iterable[Tensor]) -> Iterator[None]:
    """Record no gradients of ``parameters``, which otherwise have some, in a block."""
    held = list(parameters)
    try:
        for parameter in held:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)


def set_learning_rates_(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group, ``rate`` times its scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)


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

    def __init__(self, source: nn.Module, *, decay: float, warmup: bool = True) -> None:
        """Average ``source`` into a copy of it; ``decay`` in (0, 1), see `decay_at`."""
        self.model = copy.deepcopy(source).requires_grad_(False)
        self._decay, self._warmup = decay, warmup
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
        """Return d = min(decay, (1 + t) / (10 + t)) after step t, or without warmup decay."""
        if not self._warmup:
            return self._decay
        # It warms up, or the initial weights would dominate the average of the first steps.
        return min(self._decay, (1 + step) / (_EMA_WARMUP_STEPS + step))


def _floating_state(module: nn.Module) -> list[Tensor]:
    return [value for value in module.state_dict().values() if value.is_floating_point()]


def _integer_state(module: nn.Module) -> list[Tensor]:
    return [value for value in module.state_dict().values() if not value.is_floating_point()]
