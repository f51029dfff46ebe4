"""Weight updates against torch written out: optimizers, clipping, learning rates, averages."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from automix.configuration.task import TrainerConfig
from automix.training.optimizer import learning_rate_at
from automix.training.step import WeightUpdates
from tests.equality import assert_same

INPUTS = torch.linspace(-1, 1, 24).view(6, 4)
TARGETS = torch.arange(6) % 3
STEPS = 7


def network() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 3))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def loss_of(model: nn.Module, rows: slice = slice(None)) -> Tensor:
    return nn.functional.cross_entropy(model(INPUTS[rows]), TARGETS[rows])


def trained(config: TrainerConfig) -> tuple[nn.Module, WeightUpdates]:
    model = network()
    updates = WeightUpdates(model, config)
    for step in range(STEPS):
        updates.backward(loss_of(model))
        updates.step(progress=step / STEPS)
        updates.take_average(step)
    return model, updates


def reference(config: TrainerConfig, optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    for step in range(STEPS):
        loss_of(model).backward()  # type: ignore[no-untyped-call]
        if config.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(config, step / STEPS)
        optimizer.step()
        optimizer.zero_grad()


def groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Return weights with decay, and biases and norms without."""
    linear = [part for part in model.modules() if isinstance(part, nn.Linear)]
    spared = [part.bias for part in linear]
    spared += [
        p for part in model.modules() if isinstance(part, nn.LayerNorm) for p in part.parameters()
    ]
    return [
        {"params": [part.weight for part in linear], "weight_decay": weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]


def assert_same_weights(mine: nn.Module, theirs: nn.Module) -> None:
    for name, value in mine.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[name], rtol=1e-5, atol=1e-6)


@settings(max_examples=20)
@given(
    betas=st.none() | st.tuples(st.floats(0, 0.95), st.floats(0.5, 0.999)),
    weight_decay=st.floats(0, 0.5),
    max_grad_norm=st.none() | st.floats(0.01, 10),
)
def test_adamw_is_that_of_torch(
    betas: tuple[float, float] | None, weight_decay: float, max_grad_norm: float | None
) -> None:
    config = TrainerConfig(
        optimizer="adamw",
        betas=betas,
        learning_rate=0.01,
        weight_decay=weight_decay,
        max_grad_norm=max_grad_norm,
        learning_rate_schedule="cosine",
    )
    model, (mine, _) = network(), trained(config)
    optimizer = torch.optim.AdamW(
        groups(model, weight_decay), lr=0.01, betas=betas or (0.9, 0.999), foreach=False
    )
    reference(config, optimizer, model)
    assert_same_weights(mine, model)


@pytest.mark.parametrize("momentum", [None, 0.0, 0.5])
def test_sgd_is_that_of_torch(momentum: float | None) -> None:
    config = TrainerConfig(learning_rate=0.1, weight_decay=0.1, momentum=momentum)
    model, (mine, _) = network(), trained(config)
    used = 0.9 if momentum is None else momentum
    optimizer = torch.optim.SGD(
        groups(model, 0.1), lr=0.1, momentum=used, nesterov=used > 0, foreach=False
    )
    reference(config, optimizer, model)
    assert_same_weights(mine, model)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_reset_updates_start_like_new_ones(optimizer: str, precision: str) -> None:
    config = TrainerConfig.model_validate(
        {"optimizer": optimizer, "precision": precision, "learning_rate": 0.01}
    )
    used, updates = trained(config)
    with torch.no_grad():
        for entry in updates.optimizer.state.values():
            for value in entry.values():
                if isinstance(value, Tensor):
                    value.fill_(math.nan)
    used.load_state_dict(network().state_dict())
    updates.reset()
    fresh = network()
    new = WeightUpdates(fresh, config)
    for step in range(3):
        for model, each in ((used, updates), (fresh, new)):
            each.backward(loss_of(model))
            each.step(progress=step / STEPS)
            each.take_average(step)
    assert_same(used.state_dict(), fresh.state_dict())
    assert_same({**updates.state_dict()}, {**new.state_dict()})


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_states_continue(optimizer: str, precision: str) -> None:
    config = TrainerConfig.model_validate(
        {"optimizer": optimizer, "precision": precision, "learning_rate": 0.01}
    )
    model, updates = trained(config)
    other = network()
    other.load_state_dict(model.state_dict())
    continued = WeightUpdates(other, config)
    continued.load_state_dict(copy.deepcopy(updates.state_dict()))
    for network_, each in ((model, updates), (other, continued)):
        each.backward(loss_of(network_))
        each.step(progress=0.5)
        each.take_average(STEPS)
    assert_same(model.state_dict(), other.state_dict())
    assert_same({**updates.state_dict()}, {**continued.state_dict()})


@given(accumulation=st.sampled_from([2, 3, 6]), max_grad_norm=st.none() | st.just(0.1))
def test_clipping_sees_the_sum_of_all_micro_batches(
    accumulation: int, max_grad_norm: float | None
) -> None:
    fields = {"learning_rate": 0.1, "max_grad_norm": max_grad_norm, "batch_size": 6}
    whole, divided = network(), network()
    at_once = WeightUpdates(whole, TrainerConfig.model_validate(fields))
    in_parts = WeightUpdates(
        divided, TrainerConfig.model_validate(fields | {"accumulation": accumulation})
    )
    size = 6 // accumulation
    for _ in range(3):
        at_once.backward(loss_of(whole))
        for part in range(accumulation):
            in_parts.backward(loss_of(divided, slice(part * size, (part + 1) * size)))
        for updates in (at_once, in_parts):
            updates.step(progress=0.5)
    assert_same_weights(divided, whole)
