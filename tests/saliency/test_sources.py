"""Promises of every saliency source, and the additions of some."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from automix.configuration.task import ModelConfig, SaliencyConfig
from automix.models.build import build_model
from automix.operator_info import SaliencyKind
from automix.saliency.gradient import input_gradient, layer_gradient, normalized, reduced_gradient
from automix.saliency.sources import CachedSource, build_source, spectral_residual

CONFIGS = [
    SaliencyConfig(),
    SaliencyConfig(source=SaliencyKind.LAYER_GRADIENT, layer="stage2"),
    SaliencyConfig(source=SaliencyKind.REDUCED_GRADIENT, scale=0.6),
    SaliencyConfig(source=SaliencyKind.SPECTRAL_RESIDUAL),
]


def new_model(channels: int = 3) -> nn.Module:
    return build_model(
        ModelConfig(name="resnet20", width=4),
        num_classes=7,
        channels=channels,
        generator=torch.Generator().manual_seed(0),
    )


def batch(*shape: int) -> tuple[Tensor, Tensor]:
    images = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    return images, torch.arange(shape[0]) % 7


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: str(config.source))
@pytest.mark.parametrize("shape", [(1, 3, 16, 16), (3, 1, 9, 14), (2, 4, 5, 3)])
def test_maps_of_any_shape(config: SaliencyConfig, shape: tuple[int, ...]) -> None:
    model = new_model(shape[1])
    images, targets = batch(*shape)
    source = build_source(config)
    maps = source(model, images, targets)
    assert maps.shape == (shape[0], *shape[2:])
    assert maps.dtype == torch.float32
    assert not maps.requires_grad
    assert (maps >= 0).all()
    torch.testing.assert_close(maps.sum(dim=(1, 2)), torch.ones(shape[0]))
    channels_last = images.contiguous(memory_format=torch.channels_last)
    # Another order of summation, through the batch norm of a handful of values.
    torch.testing.assert_close(source(model, channels_last, targets), maps, atol=1e-4, rtol=1e-2)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: str(config.source))
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_an_image_that_is_not_finite_gets_a_uniform_map(
    config: SaliencyConfig, value: float
) -> None:
    model = new_model().eval()
    images, targets = batch(3, 3, 16, 16)
    expected = build_source(config)(model, images, targets)
    images[1, 0, 2, 3] = value
    maps = build_source(config)(model, images, targets)
    assert torch.equal(maps[1], torch.full((16, 16), 1 / 256))
    torch.testing.assert_close(maps[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: str(config.source))
def test_model_and_global_generators_stay(config: SaliencyConfig) -> None:
    model = new_model()
    assert isinstance(model, nn.Sequential)
    model.append(nn.Dropout(0.5))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    build_source(config)(model, *batch(4, 3, 8, 8))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


class Recording(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collects the names of the tensor operations."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: str(config.source))
def test_the_host_does_not_wait_for_the_device(config: SaliencyConfig) -> None:
    model = new_model()
    images, targets = batch(4, 3, 8, 8)
    cache = CachedSource(build_source(config), refresh_every=2)
    cache.hold(0)
    with Recording() as recording:
        first = cache(model, images, targets)
        assert cache(model, images, targets) is first
    assert recording.names
    waits = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal.default")
    assert not [name for name in recording.names if any(wait in name for wait in waits)]


def test_layer_gradient_is_the_gradient_at_the_output_of_the_layer() -> None:
    model = new_model().eval()
    images, targets = batch(4, 3, 16, 16)
    maps = layer_gradient(model, images, targets, layer="stage2")
    hidden: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        output.retain_grad()
        hidden.append(output)

    handle = model.get_submodule("stage2").register_forward_hook(keep)
    torch.autograd.backward(F.cross_entropy(model(images), targets))
    handle.remove()
    assert hidden[0].grad is not None
    magnitude = hidden[0].grad.square().mean(dim=1).sqrt()
    expected = F.interpolate(magnitude[:, None], size=(16, 16), mode="bilinear").squeeze(1)
    torch.testing.assert_close(maps, normalized(expected), atol=1e-6, rtol=1e-3)


def test_layer_gradient_does_not_go_further_back_than_the_layer() -> None:
    model = new_model()
    seen: list[str] = []
    for name in ("stage1", "stage3"):
        model.get_submodule(name).register_full_backward_hook(
            lambda *_, name=name: seen.append(name)
        )
    layer_gradient(model, *batch(2, 3, 16, 16), layer="stage2")
    assert seen == ["stage3"]


def test_reduced_gradient_sees_the_shrunken_images() -> None:
    model = new_model().eval()
    images, targets = batch(2, 3, 16, 24)
    sizes: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape)))
    maps = reduced_gradient(model, images, targets, scale=0.5)
    assert sizes == [(2, 3, 8, 12)]
    # Enlarging alone does not make the map finer: averaged over 2x2 pixels it is the small one.
    small = F.interpolate(images, size=(8, 12), mode="bilinear", antialias=True)
    expected = input_gradient(model, small, targets)
    cells = F.avg_pool2d(maps[:, None], 2).squeeze(1) * 4
    assert torch.corrcoef(torch.stack([cells.flatten(), expected.flatten()]))[0, 1] > 0.9


def test_spectral_residual_finds_the_odd_one_out() -> None:
    images = torch.zeros(1, 1, 64, 64)
    images[..., ::8, :] = 1
    images[..., 42:45, 22:25] = 0.5
    peak = int(spectral_residual(images).flatten().argmax())
    assert abs(peak // 64 - 43) <= 3
    assert abs(peak % 64 - 23) <= 3


def test_spectral_residual_of_large_and_of_constant_images() -> None:
    images = torch.rand(2, 3, 300, 200, generator=torch.Generator().manual_seed(0))
    maps = spectral_residual(images)
    assert maps.shape == (2, 300, 200)
    torch.testing.assert_close(maps.sum(dim=(1, 2)), torch.ones(2))
    zero = spectral_residual(torch.zeros(1, 1, 10, 10))
    assert torch.equal(zero, torch.full((1, 10, 10), 1 / 100))


def test_unknown_and_unsuitable_layers_are_refused() -> None:
    model, images, targets = new_model(), *batch(2, 3, 8, 8)
    with pytest.raises(ValueError, match=r"got 'stage9' \(did you mean 'stage"):
        layer_gradient(model, images, targets, layer="stage9")
    with pytest.raises(ValueError, match=r"'head' to give \(B, channels, .*\), got \(2, 7\)"):
        layer_gradient(model, images, targets, layer="head")
    with pytest.raises(ValueError, match="expected a scale between 0 and 1, got 1"):
        reduced_gradient(model, images, targets, scale=1)


class WithUnusedLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used = new_model()
        self.unused = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.used(images)
        return logits


def test_a_layer_that_is_not_called_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a layer that the model calls, got 'unused'"):
        layer_gradient(WithUnusedLayer(), *batch(2, 3, 8, 8), layer="unused")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": "layer_gradient"}, "expected a layer with layer_gradient, got none"),
        ({"layer": "stage1"}, "expected no layer with input_gradient, got 'stage1'"),
        ({"scale": 0.5}, "expected no scale with input_gradient, got 0.5"),
        ({"source": "spectral_residual", "refresh_every": 4}, "expected refresh_every 1 with"),
        ({"source": "spectral_residual", "statistics": "running"}, "expected no statistics with"),
        ({"source": "input_gradients"}, "'input_gradient'"),
    ],
)
def test_options_without_effect_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SaliencyConfig.model_validate(values)


def test_configuration_does_not_import_torch() -> None:
    code = "import sys, automix.configuration.task; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
