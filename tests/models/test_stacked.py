"""Stacked networks: each computes what it computes alone, from weights that are shared with it."""

import pytest
import torch
from torch import nn

from automix.configuration.task import ModelConfig
from automix.models.build import build_model
from automix.models.stacked import StackedNetwork

NAMES = ["small_cnn", "resnet20", "preact_resnet18", "wide_resnet10_1", "resnext29_2x4"]


def networks(name: str, count: int = 3, *, is_last: bool = False) -> list[nn.Module]:
    # Fewer than 8 channels in a strided 1x1 convolution: see `check_model`.
    config = ModelConfig(name=name, width=8 if name in {"small_cnn", "preact_resnet18"} else None)
    built = [
        build_model(
            config, num_classes=5, channels=2, generator=torch.Generator().manual_seed(number)
        )
        for number in range(count)
    ]
    memory_format = torch.channels_last if is_last else torch.contiguous_format
    return [network.to(memory_format=memory_format) for network in built]


@pytest.mark.parametrize("is_last", [False, True], ids=["contiguous", "channels-last"])
@pytest.mark.parametrize("name", NAMES)
def test_outputs_gradients_and_statistics_are_those_of_each_alone(name: str, is_last: bool) -> None:
    alone, joined = networks(name, is_last=is_last), networks(name, is_last=is_last)
    stacked = StackedNetwork(joined)
    images = torch.randn(3 * 6, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    if is_last:
        images = images.contiguous(memory_format=torch.channels_last)
    logits = stacked(images)
    expected = [network(part) for network, part in zip(alone, images.chunk(3), strict=True)]
    torch.testing.assert_close(logits, torch.cat(expected), rtol=1e-4, atol=1e-4)
    torch.autograd.backward(logits.square().sum())
    torch.autograd.backward(torch.cat(expected).square().sum())
    gradients = dict(stacked.body.named_parameters())
    for index, network in enumerate(alone):
        for key, parameter in network.named_parameters():
            gradient = gradients[key].grad
            assert gradient is not None
            part = gradient.chunk(3)[index]
            torch.testing.assert_close(part, parameter.grad, rtol=1e-3, atol=1e-3)
        for key, buffer in network.named_buffers():
            if buffer.is_floating_point():
                torch.testing.assert_close(joined[index].get_buffer(key), buffer)


def test_a_change_to_either_is_one_to_both() -> None:
    joined = networks("small_cnn")
    stacked = StackedNetwork(joined).eval()
    images = torch.randn(3 * 4, 2, 8, 8)
    with torch.no_grad():
        for parameter in joined[1].parameters():
            parameter.zero_()
        logits = stacked(images)
        assert (logits[4:8] == 0).all()
        assert (logits[:4] != 0).any()
        for parameter in stacked.parameters():
            parameter.zero_()
    assert all((parameter == 0).all() for parameter in joined[0].parameters())


def test_a_network_of_unknown_modules_is_refused_and_stays_as_it_was() -> None:
    several = [nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4)) for _ in range(2)]
    before = [parameter.data_ptr() for network in several for parameter in network.parameters()]
    with pytest.raises(ValueError, match="a GroupNorm, which has no stacked form"):
        StackedNetwork(several)
    after = [parameter.data_ptr() for network in several for parameter in network.parameters()]
    assert after == before
