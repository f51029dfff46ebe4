"""Learning rates as functions of progress, averaged weights in closed form, parameter groups."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from automix.configuration.trainer import TrainerConfig
from automix.training.updates import (
    AveragedWeights,
    make_optimizer,
    reset_optimizer_,
)

SHARES = st.floats(0, 1)
CONFIGS = st.builds(
    TrainerConfig,
    learning_rate=st.floats(1e-6, 10),
    learning_rate_schedule=st.sampled_from(["one_cycle", "cosine"]),
    warmup=st.none() | st.floats(0, 0.99),
) | st.builds(
    TrainerConfig,
    learning_rate=st.floats(1e-6, 10),
    learning_rate_schedule=st.just("multi_step"),
    warmup=st.none() | st.floats(0, 0.4),
    milestones=st.lists(st.floats(0.41, 0.99), min_size=1, max_size=4, unique=True).map(sorted),
    milestone_factor=st.none() | st.floats(0.01, 0.99),
)
FALLING = st.sampled_from(["one_cycle", "cosine"])


@given(CONFIGS, SHARES)
def test_learning_rate_lies_between_zero_and_the_peak(
    config: TrainerConfig, progress: float
) -> None:
    rate = config.learning_rate_at(progress)
    assert 0 <= rate <= config.learning_rate * (1 + 1e-12)


@given(CONFIGS, SHARES, SHARES)
def test_learning_rate_rises_to_the_peak_and_falls_from_it(
    config: TrainerConfig, first: float, second: float
) -> None:
    earlier, later = sorted((first, second))
    rise = config.learning_rate_at(later) - config.learning_rate_at(earlier)
    tolerance = 1e-12 * config.learning_rate
    if later <= config.warmup_fraction:
        assert rise >= -tolerance
    elif earlier >= config.warmup_fraction:
        assert rise <= tolerance


@given(CONFIGS)
def test_the_peak_is_reached_at_the_end_of_the_warmup(config: TrainerConfig) -> None:
    assert config.learning_rate_at(config.warmup_fraction) == pytest.approx(config.learning_rate)


@given(FALLING, st.floats(0, 0.99))
def test_one_cycle_and_cosine_end_at_zero(schedule: str, warmup: float) -> None:
    config = TrainerConfig.model_validate({"learning_rate_schedule": schedule, "warmup": warmup})
    assert config.learning_rate_at(1.0) == pytest.approx(0, abs=1e-15)


def test_published_points_of_the_schedules() -> None:
    def rate(schedule: str, progress: float) -> float:
        values = {"learning_rate_schedule": schedule, "learning_rate": 1.0}
        return TrainerConfig.model_validate(values).learning_rate_at(progress)

    assert rate("one_cycle", 0.0) == pytest.approx(0.05)
    assert rate("one_cycle", 0.1) == pytest.approx(0.525)
    assert rate("one_cycle", 0.6) == pytest.approx(0.5)
    assert rate("cosine", 0.0) == 0.0
    assert rate("cosine", 0.6) == pytest.approx(0.5)
    assert rate("cosine", 0.4) == pytest.approx(0.5 * (1 + 2**-0.5))
    assert rate("constant", 0.0) == rate("constant", 1.0) == 1.0


def test_steps_of_the_literature() -> None:
    """R-Mix on CIFAR-100: 0.2, divided by 10 after 100 and 200 of 300 epochs."""
    config = TrainerConfig(
        epochs=300, learning_rate_schedule="multi_step", milestones=(1 / 3, 2 / 3)
    )
    rates = [config.learning_rate_at(epoch / 300) for epoch in (0, 99, 100, 199, 200, 299)]
    assert rates == pytest.approx([0.2, 0.2, 0.02, 0.02, 0.002, 0.002])
    halved = config.model_copy(update={"milestone_factor": 0.5, "warmup": 0.1})
    rates = [halved.learning_rate_at(epoch / 300) for epoch in (0, 15, 30, 100, 200)]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.1, 0.05])


def network() -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def set_gradients(model: nn.Module, *, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_first_step_is_nesterov_with_decay_on_weights_only() -> None:
    model = network()
    config = TrainerConfig(
        learning_rate_schedule="constant", learning_rate=0.1, momentum=0.9, weight_decay=0.5
    )
    optimizer = make_optimizer(model, config)
    before = copy.deepcopy(list(model.parameters()))
    set_gradients(model, seed=1)
    optimizer.step()
    for old, new in zip(before, model.parameters(), strict=True):
        assert new.grad is not None
        decay = 0.5 if old.ndim > 1 else 0.0
        expected = old - 0.1 * 1.9 * (new.grad + decay * old)
        torch.testing.assert_close(new, expected)


def test_frozen_parameters_are_not_optimized() -> None:
    model = network()
    model[0].requires_grad_(False)
    groups = make_optimizer(model, TrainerConfig()).param_groups
    assert [len(group["params"]) for group in groups] == [1, 3]
    assert [group["weight_decay"] for group in groups] == [TrainerConfig().weight_decay, 0]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_reset_optimizer_steps_like_a_new_one(momentum: float) -> None:
    config = TrainerConfig(learning_rate_schedule="constant", momentum=momentum)
    used, fresh = network(), network()
    optimizer = make_optimizer(used, config)
    for seed in range(3):
        set_gradients(used, seed=seed)
        optimizer.step()
    used.load_state_dict(network().state_dict())
    reset_optimizer_(optimizer)
    new = make_optimizer(fresh, config)
    for seed in range(2):
        for model, stepped in ((used, optimizer), (fresh, new)):
            set_gradients(model, seed=seed)
            stepped.step()
    for reset, new_one in zip(used.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(reset, new_one)


def test_average_follows_its_closed_form() -> None:
    model, decay = network(), 0.7
    average = AveragedWeights(model, decay=decay)
    expected = {name: value.double() for name, value in model.state_dict().items()}
    for step in range(12):
        set_gradients(model, seed=step)
        with torch.no_grad():
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter.add_(0.1 * parameter.grad)
            model(torch.full((2, 1, 4, 4), float(step)))  # moves the statistics of batch norm
        average.update_(step)
        kept = min(decay, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                expected[name] = kept * expected[name] + (1 - kept) * value.double()
            else:
                expected[name] = value.double()
    for name, value in average.model.state_dict().items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert not any(parameter.requires_grad for parameter in average.model.parameters())


def test_the_first_average_is_mostly_the_weights_after_the_first_step() -> None:
    model = network()
    average = AveragedWeights(model, decay=0.999)
    bias = model.state_dict()["3.bias"]
    start = bias.clone()
    bias.add_(1)
    average.update_(0)
    torch.testing.assert_close(average.model.state_dict()["3.bias"], start + 0.9)


def test_copying_sets_the_average_to_the_weights() -> None:
    model = network()
    average = AveragedWeights(model, decay=0.5)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(1)
    average.copy_()
    for name, value in average.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])
