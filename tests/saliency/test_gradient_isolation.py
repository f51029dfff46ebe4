"""A saliency pass leaves nothing behind, also when it raises."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from automix.operator_info import Statistics
from automix.saliency.gradient import input_gradient, raw_module, without_trace

CPU = torch.device("cpu")


class Noisy(nn.Module):
    """Draws from the global generator in every mode."""

    def forward(self, images: Tensor) -> Tensor:
        return images + torch.randn_like(images)


class Raises(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        raise RuntimeError("on purpose")


def awkward_model(*, raises: bool = False) -> nn.Sequential:
    """Everything that a pass may disturb: buffers, modes, flags, draws."""
    torch.manual_seed(0)
    frozen_norm = nn.BatchNorm2d(4).eval()
    untracked = nn.BatchNorm2d(4, track_running_stats=False)
    model = nn.Sequential(
        torch.nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)),
        nn.BatchNorm2d(4),
        frozen_norm,
        untracked,
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        nn.Dropout(0.5),
        Noisy(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        Raises() if raises else nn.Identity(),
        nn.Linear(4, 5),
    )
    model[10].bias.requires_grad_(False)
    # Gradients that are there already, as between backward and the optimizer's step.
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn_like(parameter)
    return model


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(6, 3, 8, 8, generator=generator), torch.arange(6) % 5


def trace(model: nn.Module) -> list[object]:
    """Everything that must be equal before and after."""
    tensors = [tensor.clone() for tensor in model.state_dict(keep_vars=False).values()]
    tensors += [p.grad.clone() for p in model.parameters() if p.grad is not None]
    tensors.append(torch.get_rng_state())
    identities = [id(tensor) for tensor in model.state_dict(keep_vars=True).values()]
    identities += [id(p.grad) for p in model.parameters()]
    return [
        *((tensor.shape, tensor.numpy().tobytes()) for tensor in tensors),
        identities,
        [p.requires_grad for p in model.parameters()],
        [module.training for module in model.modules()],
        [getattr(module, "track_running_stats", None) for module in model.modules()],
        random.getstate(),
        [np.asarray(part).tobytes() for part in np.random.get_state(legacy=True)],  # noqa: NPY002
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
    ]


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    before = trace(model)
    yield
    assert trace(model) == before


@pytest.mark.parametrize("statistics", Statistics)
@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_left_behind(statistics: Statistics, training: bool) -> None:
    model = awkward_model()
    model.train(training)
    with unchanged(model):
        input_gradient(model, *batch(), statistics=statistics)


@pytest.mark.parametrize("statistics", Statistics)
def test_nothing_is_left_behind_when_the_model_raises(statistics: Statistics) -> None:
    model = awkward_model(raises=True)
    with unchanged(model), pytest.raises(RuntimeError, match="on purpose"):
        input_gradient(model, *batch(), statistics=statistics)


def test_the_check_itself_is_not_vacuous() -> None:
    model = awkward_model()
    before = trace(model)
    model(batch()[0])
    after = trace(model)
    # A plain forward pass moves: spectral norm (2), batch norm (3), instance norm (3), generator.
    assert sum(a != b for a, b in zip(before, after, strict=True)) >= 8


def test_images_and_their_gradient_stay() -> None:
    images, targets = batch()
    copy = images.clone()
    images.requires_grad_()
    input_gradient(awkward_model(), images, targets)
    assert torch.equal(images, copy)
    assert images.grad is None
    assert images.requires_grad


def test_no_weight_gradient_is_computed() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5))
    calls: list[str] = []
    for name, parameter in model.named_parameters():
        parameter.register_hook(lambda _, name=name: calls.append(name))  # type: ignore[no-untyped-call]
    inside: list[bool] = []
    model.register_forward_pre_hook(
        lambda module, _: inside.extend(p.requires_grad for p in module.parameters())
    )
    input_gradient(model, *batch())
    assert not calls
    assert inside
    assert not any(inside)


def test_batch_statistics_follow_the_mode_of_each_norm() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3).eval())
    images, _ = batch()
    with without_trace(model, device=CPU, statistics=Statistics.BATCH):
        first = model[0](images)
        assert torch.allclose(first.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-6)
        assert torch.allclose(model[1](images), images, atol=1e-4)
    with without_trace(model, device=CPU, statistics=Statistics.RUNNING):
        assert torch.allclose(model[0](images), images, atol=1e-4)


def test_works_without_gradients_and_under_autocast_in_float32() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5))
    dtypes: list[torch.dtype] = []
    model[0].register_forward_hook(lambda *arguments: dtypes.append(arguments[2].dtype))
    images, targets = batch()
    plain = input_gradient(model, images, targets)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        again = input_gradient(model, images, targets)
    assert torch.equal(plain, again)
    assert dtypes == [torch.float32, torch.float32]
    assert input_gradient(model, images.half(), targets).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_of_another_type_gets_images_of_its_type(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5))
    images, targets = batch()
    expected = input_gradient(model, images, targets)
    maps = input_gradient(model.to(dtype), images, targets)
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps, expected, rtol=0.1, atol=2e-3)


def test_the_gradient_scaler_stays() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5))
    scaler = torch.amp.GradScaler("cpu")
    images, targets = batch()
    loss = nn.functional.cross_entropy(model(images), targets)
    torch.autograd.backward(scaler.scale(loss))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = scaler.state_dict()
    with unchanged(model):
        input_gradient(model, images, targets)
    assert scaler.state_dict() == before
    scaler.step(optimizer)
    scaler.update()
    assert scaler.state_dict()["scale"] == before["scale"]


def test_a_distributed_wrapper_is_taken_off(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5))
    images, targets = batch()
    expected = input_gradient(model, images, targets)
    torch.distributed.init_process_group(
        "gloo", init_method=(tmp_path / "store").as_uri(), rank=0, world_size=1
    )
    try:
        wrapped = nn.parallel.DistributedDataParallel(model)
        torch.autograd.backward(nn.functional.cross_entropy(wrapped(images), targets))
        with unchanged(model):
            assert torch.equal(input_gradient(wrapped, images, targets), expected)
        # The reducer of the wrapper still works.
        torch.autograd.backward(nn.functional.cross_entropy(wrapped(images), targets))
    finally:
        torch.distributed.destroy_process_group()


def test_wrappers_are_taken_off() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5))
    images, targets = batch()
    compilations: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        compilations.append(1)
        return graph

    expected = input_gradient(model, images, targets)
    compiled = torch.compile(model, backend=backend)
    assert isinstance(compiled, nn.Module)
    wrapped = nn.DataParallel(compiled)
    assert raw_module(wrapped) is model
    assert torch.equal(input_gradient(wrapped, images, targets), expected)
    model.compile(backend=backend)
    assert torch.equal(input_gradient(model, images, targets), expected)
    assert not compilations
    model(images)
    assert compilations
