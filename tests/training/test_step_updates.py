"""Weight updates against torch written out: optimizers, clipping, learning rates, averages."""

import copy
import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from automix.configuration.trainer import TrainerConfig
from automix.data.batches import BatchKey, BatchLayout, TrainingBatch
from automix.saliency.gradient import input_gradient
from automix.training.step import TrainingStep
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


class NoBatches:
    """The layout of `STEPS` steps; the tests compute the losses themselves."""

    layout = BatchLayout(num_images=len(INPUTS), batch_size=len(INPUTS))
    num_classes = 3
    class_counts = torch.ones(3, dtype=torch.int64)

    def batch(self, key: BatchKey) -> TrainingBatch:
        raise AssertionError(key)


def step_of(model: nn.Module, config: TrainerConfig) -> TrainingStep:
    batches = NoBatches()
    batches.layout = dataclasses.replace(batches.layout, accumulation=config.accumulation)
    config = config.model_copy(update={"epochs": STEPS})
    return TrainingStep(model, batches, saliency=input_gradient, config=config)


def trained(config: TrainerConfig) -> tuple[nn.Module, TrainingStep]:
    model = network()
    stages = step_of(model, config)
    for step in range(STEPS):
        stages.backward(loss_of(model))
        stages.update(step)
        stages.average(step)
    return model, stages


def reference(config: TrainerConfig, optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    for step in range(STEPS):
        loss_of(model).backward()  # type: ignore[no-untyped-call]
        if config.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate_at(step / STEPS)
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


def assert_same_weights(model: nn.Module, reference: nn.Module) -> None:
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, reference.state_dict()[name], rtol=1e-5, atol=1e-6)


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
def test_a_reset_step_starts_like_a_new_one(optimizer: str, precision: str) -> None:
    config = TrainerConfig.model_validate(
        {"optimizer": optimizer, "precision": precision, "learning_rate": 0.01}
    )
    used, used_step = trained(config)
    with torch.no_grad():
        for entry in used_step.optimizer.state.values():
            for value in entry.values():
                if isinstance(value, Tensor):
                    value.fill_(math.nan)
    used.load_state_dict(network().state_dict())
    used_step.reset()
    fresh = network()
    new = step_of(fresh, config)
    for step in range(3):
        for model, stages in ((used, used_step), (fresh, new)):
            stages.backward(loss_of(model))
            stages.update(step)
            stages.average(step)
    assert_same(used.state_dict(), fresh.state_dict())
    assert_same({**used_step.state_dict()}, {**new.state_dict()})


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_states_continue(optimizer: str, precision: str) -> None:
    config = TrainerConfig.model_validate(
        {"optimizer": optimizer, "precision": precision, "learning_rate": 0.01}
    )
    model, used_step = trained(config)
    other = network()
    other.load_state_dict(model.state_dict())
    continued = step_of(other, config)
    continued.load_state_dict(copy.deepcopy(used_step.state_dict()))
    for network_, stages in ((model, used_step), (other, continued)):
        stages.backward(loss_of(network_))
        stages.update(3)
        stages.average(STEPS)
    assert_same(model.state_dict(), other.state_dict())
    assert_same({**used_step.state_dict()}, {**continued.state_dict()})


@given(accumulation=st.sampled_from([2, 3, 6]), max_grad_norm=st.none() | st.just(0.1))
def test_clipping_sees_the_sum_of_all_micro_batches(
    accumulation: int, max_grad_norm: float | None
) -> None:
    fields = {"learning_rate": 0.1, "max_grad_norm": max_grad_norm, "batch_size": 6}
    whole, divided = network(), network()
    at_once = step_of(whole, TrainerConfig.model_validate(fields))
    in_parts = step_of(
        divided, TrainerConfig.model_validate(fields | {"accumulation": accumulation})
    )
    size = 6 // accumulation
    for _ in range(3):
        at_once.backward(loss_of(whole))
        for part in range(accumulation):
            in_parts.backward(loss_of(divided, slice(part * size, (part + 1) * size)))
        for stages in (at_once, in_parts):
            stages.update(3)
    assert_same_weights(divided, whole)
