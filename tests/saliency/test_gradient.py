import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automix.configuration.task import ModelConfig, SaliencyConfig
from automix.models.build import build_model
from automix.saliency.gradient import input_gradient
from automix.saliency.sources import build_source


def model_and_batch(batch_size: int = 5) -> tuple[nn.Module, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    model = build_model(
        ModelConfig(name="resnet20", width=4), num_classes=7, channels=3, generator=generator
    )
    images = torch.randn(batch_size, 3, 8, 12, generator=generator)
    return model, images, torch.arange(batch_size) % 7


def test_is_the_normalized_root_mean_square_gradient() -> None:
    model, images, targets = model_and_batch()
    model.eval()
    maps = input_gradient(model, images, targets)
    leaf = images.clone().requires_grad_()
    torch.autograd.backward(F.cross_entropy(model(leaf), targets))
    assert leaf.grad is not None
    for row in range(len(images)):
        expected = leaf.grad[row].square().mean(dim=0).sqrt()
        torch.testing.assert_close(maps[row], expected / expected.sum(), atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_shape_type_and_sum(batch_size: int) -> None:
    model, images, targets = model_and_batch(batch_size)
    maps = input_gradient(model, images, targets)
    assert maps.shape == (batch_size, 8, 12)
    assert maps.dtype == torch.float32
    assert not maps.requires_grad
    assert (maps >= 0).all()
    torch.testing.assert_close(maps.sum(dim=(1, 2)), torch.ones(batch_size))


def test_indices_and_one_hot_rows_give_the_same_map() -> None:
    model, images, targets = model_and_batch()
    soft = F.one_hot(targets, 7).float()
    torch.testing.assert_close(
        input_gradient(model, images, targets), input_gradient(model, images, soft)
    )


def test_it_is_the_source_by_default() -> None:
    model, images, targets = model_and_batch()
    source = build_source(SaliencyConfig())
    assert torch.equal(source(model, images, targets), input_gradient(model, images, targets))


def test_a_constant_model_and_nan_images_give_uniform_maps() -> None:
    model, images, targets = model_and_batch()
    images[2] = torch.nan
    maps = input_gradient(model.eval(), images, targets)
    assert torch.equal(maps[2], torch.full((8, 12), 1 / 96))
    assert not torch.equal(maps[1], maps[2])
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    maps = input_gradient(model, images, targets)
    assert torch.equal(maps, torch.full((5, 8, 12), 1 / 96))


def test_a_gradient_whose_square_underflows_still_counts() -> None:
    model, images, targets = model_and_batch()
    model.eval()
    head = model.get_parameter("head.weight")
    with torch.no_grad():
        head.mul_(1e-6)
    expected = input_gradient(model, images, targets)
    with torch.no_grad():
        head.mul_(1e-24)
    torch.testing.assert_close(
        input_gradient(model, images, targets), expected, atol=1e-6, rtol=1e-3
    )
