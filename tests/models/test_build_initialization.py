import copy

import pytest
import torch
from torch import Tensor, nn

from automix.configuration.task import ModelConfig
from automix.models.build import build_model, initialize_


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tensors(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.state_dict())


def used_model() -> nn.Module:
    """A network after a few steps: nothing is at its initial value."""
    model = build_model(
        ModelConfig(name="resnet20", width=4), num_classes=3, channels=2, generator=generator(9)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(4, 2, 8, 8, generator=generator())).square().sum().backward()
        optimizer.step()
    return model


def test_every_value_is_replaced_in_place() -> None:
    model = used_model()
    before = copy.deepcopy(tensors(model))
    storage = {name: tensor.data_ptr() for name, tensor in tensors(model).items()}
    initialize_(model, generator(1))
    for name, tensor in tensors(model).items():
        assert not torch.equal(tensor, before[name]), name
        assert tensor.data_ptr() == storage[name], name


def test_nothing_of_the_past_is_left() -> None:
    model = used_model()
    with torch.no_grad():
        for tensor in tensors(model).values():
            tensor.fill_(torch.nan if tensor.is_floating_point() else 7)
    initialize_(model, generator(1))
    fresh = build_model(
        ModelConfig(name="resnet20", width=4), num_classes=3, channels=2, generator=generator(1)
    )
    for name, tensor in tensors(model).items():
        assert torch.equal(tensor, tensors(fresh)[name]), name


def test_scales_of_the_distributions() -> None:
    model = nn.Sequential(nn.Conv2d(64, 128, 3), nn.Linear(400, 300), nn.BatchNorm2d(5))
    initialize_(model, generator())
    convolution, linear, norm = model
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(linear, nn.Linear)
    assert isinstance(norm, nn.BatchNorm2d)
    assert convolution.weight.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)
    assert convolution.bias is not None
    assert torch.equal(convolution.bias, torch.zeros(128))
    assert linear.weight.abs().max().item() <= 1 / 20
    assert linear.weight.std().item() == pytest.approx(1 / 20 / 3**0.5, rel=0.02)
    assert torch.equal(norm.weight, torch.ones(5))
    assert torch.equal(norm.bias, torch.zeros(5))


@pytest.mark.parametrize(
    "module", [nn.Conv2d(2, 3, 3), nn.Linear(2, 3), nn.Embedding(4, 3), nn.Bilinear(2, 3, 4)]
)
def test_same_generator_same_values_and_global_generator_untouched(module: nn.Module) -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    initialize_(module, generator(5))
    first = copy.deepcopy(tensors(module))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    initialize_(module, generator(5))
    assert all(torch.equal(tensor, first[name]) for name, tensor in tensors(module).items())
    initialize_(module, generator(6))
    assert not all(torch.equal(tensor, first[name]) for name, tensor in tensors(module).items())


def test_double_precision_and_memory_format_stay() -> None:
    module = nn.Conv2d(4, 4, 3).double().to(memory_format=torch.channels_last)
    strides = module.weight.stride()
    initialize_(module, generator())
    assert module.weight.dtype == torch.float64
    assert module.weight.stride() == strides


class BareParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(3))


def test_a_parameter_without_a_rule_is_refused() -> None:
    with pytest.raises(TypeError, match=r"got the bare parameter 0\.token"):
        initialize_(nn.Sequential(BareParameter()), generator())
