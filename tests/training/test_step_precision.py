"""Lower precision, memory format and compilation: what they change, and what they must not."""

import math
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from automix.configuration.trainer import TrainerConfig
from automix.data.splits import SearchData
from automix.errors import CheckpointError, ConfigError
from automix.mixing import StepKey
from automix.operator_info import Operator
from automix.operators.registry import OPERATORS
from automix.schedule import Decision
from automix.training.precision import (
    fast_products,
    passes_in,
    resolved_precision,
    time_convolutions,
)
from automix.training.step import MicroBatch
from automix.training.trainer import ClassifierTrainer
from tests.equality import assert_same, untouched_generators
from tests.training.conftest import TOTAL_STEPS, MakeTrainer
from tests.training.plain_network import plain_trainer

NONE = Decision(operator=Operator.NONE)
RMIX = Decision(operator=Operator.RMIX, probability=0.5)
PRECISIONS = ("bf16", "fp16")


def tensors_of(trainer: ClassifierTrainer) -> list[Tensor]:
    state = trainer.state_dict()
    momenta = [
        entry["momentum_buffer"] for entry in state["updates"]["optimizer"]["state"].values()
    ]
    return [*state["model"].values(), *state["updates"]["average"].values(), *momenta]


def first_output(trainer: ClassifierTrainer) -> Tensor:
    outputs: list[Tensor] = []
    handle = trainer.model.register_forward_hook(lambda *args: outputs.append(args[2].detach()))
    trainer.train(NONE, num_steps=1)
    handle.remove()
    return outputs[0]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_only_the_passes_are_in_lower_precision(
    make_trainer: MakeTrainer, search_data: SearchData, precision: str
) -> None:
    lower, full = make_trainer(precision=precision), make_trainer()
    expected = torch.bfloat16 if precision == "bf16" else torch.float16
    assert first_output(lower).dtype == expected
    assert first_output(full).dtype == torch.float32
    lower_metrics = lower.train(RMIX, num_steps=5)
    full_metrics = full.train(RMIX, num_steps=5)
    assert lower_metrics.loss == pytest.approx(full_metrics.loss, rel=0.05)
    assert lower_metrics.loss != full_metrics.loss
    kept = [tensor for tensor in tensors_of(lower) if tensor.is_floating_point()]
    assert {tensor.dtype for tensor in kept} == {torch.float32}
    assert lower.logits(search_data.reward).dtype == torch.float32


@pytest.mark.parametrize("precision", PRECISIONS)
def test_evaluation_is_that_of_full_precision(
    make_trainer: MakeTrainer, search_data: SearchData, precision: str
) -> None:
    lower, full = make_trainer(precision=precision), make_trainer()
    lower.train(NONE, num_steps=4)
    full.evaluated_model.load_state_dict(lower.evaluated_model.state_dict())
    assert lower.evaluate(search_data.reward) == full.evaluate(search_data.reward)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_maps_are_computed_in_full_precision(
    make_trainer: MakeTrainer, search_data: SearchData, precision: str
) -> None:
    images, labels = search_data.reward.images[:4], search_data.reward.labels[:4]
    maps = [
        trainer.saliency_of(images, labels)
        for trainer in (make_trainer(precision=precision), make_trainer())
    ]
    assert torch.equal(*maps)


@pytest.mark.parametrize("precision", ["fp32", *PRECISIONS])
@pytest.mark.parametrize("channels_last", [False, True])
def test_same_seed_same_bits_and_states_continue(
    make_trainer: MakeTrainer, precision: str, channels_last: bool
) -> None:
    fields = {"precision": precision, "channels_last": channels_last, "accumulation": 2}
    whole, cut, other = (make_trainer(seed, **fields) for seed in (1, 1, 2))
    whole.train(RMIX, num_steps=TOTAL_STEPS)
    cut.train(RMIX, num_steps=5)
    other.train(RMIX, num_steps=2)
    other.load_state_dict(cut.state_dict())
    other.train(RMIX, num_steps=TOTAL_STEPS - 5)
    assert_same({**whole.state_dict()}, {**other.state_dict()})


@pytest.mark.parametrize("problem", [RuntimeError, UserWarning])
def test_a_precision_that_the_device_lacks_is_refused(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, problem: type[Exception]
) -> None:
    def refuse(*args: object, **kwargs: object) -> NoReturn:
        if issubclass(problem, Warning):
            warnings.warn("no bfloat16 here", problem, stacklevel=2)
        raise RuntimeError("no bfloat16 here")

    monkeypatch.setattr(torch, "autocast", refuse)
    with pytest.raises(ConfigError, match=r"precision: expected .* of cpu, got 'bf16': no bfloat"):
        make_trainer(precision="bf16")


class FastDevice:
    """Stands in for the module of an accelerator that computes in bfloat16, or does not."""

    def __init__(self, *, has_bfloat16: bool) -> None:
        self.has_bfloat16 = has_bfloat16

    def is_bf16_supported(self, *, including_emulation: bool) -> bool:
        assert not including_emulation
        return self.has_bfloat16


def test_the_default_is_what_is_fast_on_the_device(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make_trainer().training_step.precision == "fp32"
    assert make_trainer(precision="bf16").training_step.precision == "bf16"
    device = torch.device("meta")
    for module, expected in (
        (FastDevice(has_bfloat16=True), "bf16"),
        (FastDevice(has_bfloat16=False), "fp32"),
        (object(), "fp32"),
    ):
        monkeypatch.setattr(torch, "get_device_module", lambda _, module=module: module)
        assert resolved_precision(None, device) == expected


def test_products_are_faster_on_an_accelerator_in_the_passes_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    for name, products, is_timed in (("cpu", "highest", False), ("meta", "high", True)):
        device = torch.device(name)
        for block in (fast_products(device), passes_in("fp32", device)):
            with block:
                assert torch.get_float32_matmul_precision() == products
            assert torch.get_float32_matmul_precision() == "highest"
        time_convolutions(device)
        assert torch.backends.cudnn.benchmark is is_timed


def test_another_precision_is_another_training_run(make_trainer: MakeTrainer) -> None:
    state = make_trainer(precision="bf16").state_dict()
    message = "expected a training run in fp32, as on cpu, got one in bf16; continue it"
    with pytest.raises(CheckpointError, match=message):
        make_trainer().load_state_dict(state)
    make_trainer(precision="bf16").load_state_dict(state)


def test_a_float16_step_that_overflows_changes_only_the_scale(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(precision="fp16", max_grad_norm=1.0)
    scaler = trainer.training_step._scaler
    first = scaler.state_dict()
    scaler.load_state_dict(first | {"scale": 2.0**120})
    before = [tensor.detach().clone() for tensor in trainer.model.parameters()]
    assert math.isfinite(trainer.train(NONE, num_steps=1).loss)
    assert all(map(torch.equal, before, trainer.model.parameters()))
    assert scaler.get_scale() == 2.0**119
    assert trainer.state_dict()["updates"]["scaler"]["scale"] == 2.0**119
    # What is clipped is the gradient without its scale; the same step in 32 bits is as long.
    trainer.reset(0)
    assert scaler.state_dict() == first
    full = make_trainer(max_grad_norm=1.0)
    for one in (trainer, full):
        one.train(NONE, num_steps=1)
    for half, single in zip(trainer.model.parameters(), full.model.parameters(), strict=True):
        torch.testing.assert_close(half, single, rtol=0.02, atol=1e-3)
    assert not all(map(torch.equal, before, trainer.model.parameters()))


def test_channels_last_reaches_weights_and_images(
    make_trainer: MakeTrainer, search_data: SearchData
) -> None:
    # Images of one channel have the same strides in both formats: watch the second convolution.
    trainer, other = make_trainer(channels_last=True), make_trainer()
    seen: list[Tensor] = []
    convolutions = [m for m in trainer.model.modules() if isinstance(m, nn.Conv2d)]
    convolutions[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    trainer.train(RMIX, num_steps=3)
    other.train(RMIX, num_steps=3)
    for tensor in (*seen, convolutions[1].weight):
        assert tensor.is_contiguous(memory_format=torch.channels_last)
        assert not tensor.is_contiguous()
    expected = other.evaluate(search_data.reward).nll
    assert trainer.evaluate(search_data.reward).nll == pytest.approx(expected, rel=1e-3)


class CountingBackend:
    """Stands in for inductor: runs the captured graphs as they are, and counts them."""

    def __init__(self) -> None:
        self.num_graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        self.num_graphs += 1
        return graph.forward


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> CountingBackend:
    counting, original = CountingBackend(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda module: original(module, backend=counting))
    return counting


def test_graphs_are_asked_for_with_compilation_only(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[dict[str, str]] = []

    def uncompiled(module: nn.Module, **mode: str) -> nn.Module:
        modes.append(mode)
        return module

    monkeypatch.setattr(torch, "compile", uncompiled)
    make_trainer(compile=True)
    make_trainer(compile=True, cuda_graphs=True)
    assert modes == [{}, {"mode": "reduce-overhead"}]
    with pytest.raises(ValidationError, match="expected false without compile, got True"):
        TrainerConfig(cuda_graphs=True)


def test_a_training_run_is_compiled_once(
    make_trainer: MakeTrainer, search_data: SearchData, backend: CountingBackend
) -> None:
    torch._dynamo.reset()
    trainer, eager = make_trainer(1, compile=True), make_trainer(2)
    decisions = [Decision(operator=operator) for operator in list(OPERATORS)[:TOTAL_STEPS]]
    for number, decision in enumerate(decisions):
        trainer.train(decision, num_steps=1)
        trainer.evaluate(search_data.reward)
        trainer.saliency_of(search_data.reward.images[:3], search_data.reward.labels[:3])
        if number == 0:
            after_first = backend.num_graphs
    assert after_first >= 1
    trainer.reset(2)
    for decision in decisions:
        for one in (trainer, eager):
            one.train(decision, num_steps=1)
    assert backend.num_graphs == after_first
    assert_same({**trainer.state_dict()}, {**eager.state_dict()})


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_steps_equal_eager_ones_within_rounding(
    make_trainer: MakeTrainer, precision: str
) -> None:
    torch._dynamo.reset()
    compiled = make_trainer(compile=True, precision=precision, channels_last=True)
    eager = make_trainer(precision=precision, channels_last=True)
    for _ in range(3):
        loss, expected = (one.train(RMIX, num_steps=2).loss for one in (compiled, eager))
        assert loss == pytest.approx(expected, rel=1e-4 if precision == "fp32" else 0.03)
    compiled.reset(0)
    compiled.train(RMIX, num_steps=6)


def test_what_the_network_draws_is_named_by_the_step() -> None:
    trainer, images = plain_trainer(dropout=0.5), torch.ones(4, 1, 8, 8)
    trainer.model.train()

    def logits(seed: int, step: int, rank: int) -> Tensor:
        with untouched_generators():
            key = StepKey(seed=seed, step=step, rank=rank)
            batch = MicroBatch(
                images=images, targets=images, labels=images, key=key, is_mixed=False
            )
            return trainer.training_step.forward(batch).logits.detach()

    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    by_global_seed = []
    for global_seed in range(2):
        torch.manual_seed(global_seed)
        by_global_seed.append([logits(*key) for key in keys])
    assert_same(*by_global_seed)
    assert len({tuple(values.flatten().tolist()) for values in by_global_seed[0]}) == len(keys)
