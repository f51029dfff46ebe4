import numpy as np
import pytest
import torch
from torch import Tensor, nn

from automix.configuration.task import ModelConfig
from automix.models.build import build_model
from automix.operator_info import Operator
from automix.operators.manifold_mixup import (
    check_layers,
    manifold_mixup,
    manifold_targets,
    mixing_layers,
)
from automix.operators.mixup_cutmix import MixupDraws, draw_mixup
from automix.operators.types import BatchShape
from tests.operators import references as ref
from tests.operators.cases import Scenario, seeded


@ref.every_scenario
@ref.every_seed
def test_at_the_input_it_agrees_with_loops(scenario: Scenario, seed: int) -> None:
    images, draws, mixed = ref.mixed_by(Operator.MANIFOLD_MIXUP, scenario, seed)
    height, width = scenario.size
    expected = [
        ref.by_mask(first, partner, np.full((height, width), 1 - float(lam)))
        for (first, partner), lam in zip(ref.pairs(images, mixed), draws.lam, strict=True)
    ]
    ref.assert_agree(mixed, expected)


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )


@pytest.fixture
def draws() -> MixupDraws:
    return draw_mixup(BatchShape(6, 8, 8), strength=2.0, generator=seeded(0))


@pytest.fixture
def images() -> Tensor:
    return torch.randn((6, 3, 8, 8), generator=seeded(1))


@pytest.mark.parametrize("layer", ["0", "1", "3"])
def test_the_output_of_the_layer_is_blended(
    model: nn.Module, images: Tensor, draws: MixupDraws, layer: str
) -> None:
    assert isinstance(model, nn.Sequential)
    cut = int(layer) + 1
    hidden = model[:cut](images)
    lam = draws.lam.view(-1, *[1] * (hidden.dim() - 1))
    expected = model[cut:](lam * hidden + (1 - lam) * hidden[draws.partner])
    plain = model(images)
    with manifold_mixup(model, layer, draws):
        torch.testing.assert_close(model(images), expected)
    assert torch.equal(model(images), plain)


def test_in_the_last_layer_it_mixes_logits_like_targets(
    model: nn.Module, images: Tensor, draws: MixupDraws
) -> None:
    plain = model(images)
    lam = draws.lam.unsqueeze(1)
    with manifold_mixup(model, "4", draws):
        logits = model(images)
    torch.testing.assert_close(logits, lam * plain + (1 - lam) * plain[draws.partner])
    rows = torch.eye(5)[:5].repeat(2, 1)[:6]
    targets = manifold_targets(rows.argmax(1), draws, num_classes=5)
    torch.testing.assert_close(targets, lam * rows + (1 - lam) * rows[draws.partner])


def test_the_hook_goes_when_the_forward_pass_fails(
    model: nn.Module, images: Tensor, draws: MixupDraws
) -> None:
    plain = model(images)
    with pytest.raises(ValueError, match="layer: expected a batch of 6, got 2"):  # noqa: SIM117
        with manifold_mixup(model, "1", draws):
            model(images[:2])
    assert torch.equal(model(images), plain)


def test_refused_layers(model: nn.Module, images: Tensor, draws: MixupDraws) -> None:
    with (
        pytest.raises(ValueError, match="layer: expected one of 0, 1, 2, 3, 4; got 'layer2'"),
        manifold_mixup(model, "layer2", draws),
    ):
        pass

    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    two = nn.Sequential(Two())
    with (
        pytest.raises(TypeError, match="layer: expected one tensor as output, got tuple"),
        manifold_mixup(two, "0", draws),
    ):
        two(images)


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("small_cnn", ("stage1", "stage2")),
        ("resnet20", ("stage1", "stage2")),
        ("torchvision/resnet18", ("layer1", "layer2")),
        ("torchvision/mobilenet_v3_small", ("features.0", "features.1")),
    ],
)
def test_the_layers_are_the_input_and_two_blocks(name: str, blocks: tuple[str, str]) -> None:
    config = ModelConfig(name=name)
    network = build_model(config, num_classes=4, channels=3, generator=seeded(0)).eval()
    layers = mixing_layers(network)
    assert layers == ("input", *blocks)
    check_layers(network, layers, torch.zeros(2, 3, 32, 32))


def test_layers_by_name(model: nn.Module) -> None:
    assert mixing_layers(model, ["1", "input"]) == ("1", "input")
    with pytest.raises(ValueError, match="expected input or layers as 0, 1, 2, 3, 4; got 'layer2'"):
        mixing_layers(model, ["layer2"])
    assert mixing_layers(model) == ("input", "0")
    with pytest.raises(ValueError, match="expected names of layers, as input, 0, 1; got none"):
        mixing_layers(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
