"""Every classifier of torchvision by its name: built on the meta device, where nothing costs."""

import pytest
import torch
import torchvision
from torch import nn

from automix.configuration.task import ModelConfig
from automix.models.build import _Shape, _torchvision_model, build_model

NAMES = torchvision.models.list_models(module=torchvision.models)
# One of each family, quick to build; the others are tested with -m slow.
QUICK = {
    "alexnet", "convnext_tiny", "efficientnet_b0", "googlenet", "inception_v3",
    "mobilenet_v3_small", "resnet18", "squeezenet1_1", "swin_t", "vgg11", "vit_b_32",
}  # fmt: skip
# Its published count includes the auxiliary head, which we leave out: it gives a second output.
AUXILIARY_HEADS = {"inception_v3": 3_326_696}
# Their widths are computed with tensors, which the meta device cannot do; these two are small.
REAL = {"regnet_x_400mf", "regnet_y_400mf"}


def test_all_names_are_accepted_and_none_is_missing() -> None:
    assert set(NAMES) >= QUICK | REAL
    assert len(NAMES) >= 80
    for name in NAMES:
        assert ModelConfig(name=f"torchvision/{name}")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in NAMES
        if not name.startswith("regnet")
    ],
)
def test_each_has_its_published_size_and_takes_other_channels(name: str) -> None:
    with torch.device("meta"):
        model = _torchvision_model(name, _Shape(1000, 4, None), False, ModelConfig())
        side = 299 if name == "inception_v3" else 224
        logits = model(torch.empty(2, 4, side, side))
    check(name, model, logits)


@pytest.mark.parametrize("name", sorted(REAL))
def test_regnets_have_their_published_size_and_take_other_channels(name: str) -> None:
    model = build_model(
        ModelConfig(name=f"torchvision/{name}"),
        num_classes=1000,
        channels=4,
        generator=torch.Generator().manual_seed(0),
    )
    check(name, model, model(torch.zeros(2, 4, 40, 40)))


def check(name: str, model: nn.Module, logits: torch.Tensor) -> None:
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (2, 1000)
    weights = torchvision.models.get_model_weights(name)
    published = {int(weight.meta["num_params"]) for weight in weights}
    first = next(part for part in model.modules() if isinstance(part, nn.Conv2d))
    assert first.in_channels == 4
    count = sum(parameter.numel() for parameter in model.parameters())
    count += AUXILIARY_HEADS.get(name, 0) - first.weight.numel() // 4
    assert count in published


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_with_auxiliary_heads_have_one_output_in_train_mode(name: str) -> None:
    with torch.device("meta"):
        model = _torchvision_model(name, _Shape(3, 1, None), False, ModelConfig()).train()
        logits = model(torch.empty(2, 1, 96, 96))
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (2, 3)
