"""The order of layers is the one that a hand would write down."""

import pytest
import torch
import torchvision
from torch import nn

from automix.configuration.task import ModelConfig
from automix.errors import ConfigError
from automix.models.build import build_model
from automix.models.layers import checkpoint_gradients_, layer_numbers


def model_of(name: str, **fields: float) -> nn.Module:
    if name.startswith("timm/"):
        pytest.importorskip("timm", reason="needs the extra timm")
    config = ModelConfig(name=name, **fields)
    return build_model(config, num_classes=3, channels=3, generator=torch.Generator())


# Beginnings of the names of the parameters of each layer, from the image to the head.
TABLES: dict[str, list[tuple[str, ...]]] = {
    "resnet20": [
        ("stem.",),
        *((f"stage{stage}.{block}.",) for stage in (1, 2, 3) for block in range(3)),
        ("head.",),
    ],
    "preact_resnet18": [
        ("stem.",),
        *((f"stage{stage}.{block}.",) for stage in (1, 2, 3) for block in range(2)),
        ("stage4.0.",),
        ("stage4.1.", "final."),
        ("head.",),
    ],
    "torchvision/resnet18": [
        ("conv1.", "bn1."),
        *((f"layer{stage}.{block}.",) for stage in (1, 2, 3, 4) for block in range(2)),
        ("fc.",),
    ],
    "torchvision/resnet50": [
        ("conv1.", "bn1."),
        *(
            (f"layer{stage}.{block}.",)
            for stage, count in ((1, 3), (2, 4), (3, 6), (4, 3))
            for block in range(count)
        ),
        ("fc.",),
    ],
    "torchvision/vit_b_16": [
        ("class_token", "conv_proj.", "encoder.pos_embedding"),
        *((f"encoder.layers.encoder_layer_{block}.",) for block in range(11)),
        ("encoder.layers.encoder_layer_11.", "encoder.ln."),
        ("heads.",),
    ],
    "timm/resnet18": [
        ("conv1.", "bn1."),
        *((f"layer{stage}.{block}.",) for stage in (1, 2, 3, 4) for block in range(2)),
        ("fc.",),
    ],
    "timm/test_vit": [
        ("cls_token", "pos_embed", "patch_embed."),
        *((f"blocks.{block}.",) for block in range(5)),
        ("blocks.5.", "norm."),
        ("head.",),
    ],
    "torchvision/vgg11": [
        *((f"features.{index}.",) for index in (0, 3, 6, 8, 11, 13, 16, 18)),
        ("classifier.0.",),
        ("classifier.3.",),
        ("classifier.6.",),
    ],
}


@pytest.mark.parametrize("name", TABLES)
def test_layers_are_those_of_a_table(name: str) -> None:
    with torch.device("meta"):
        model = _without_values(name)
    numbers = layer_numbers(model)
    expected = {
        parameter: next(
            layer for layer, starts in enumerate(TABLES[name]) if parameter.startswith(starts)
        )
        for parameter, _ in model.named_parameters()
    }
    assert numbers == expected


def _without_values(name: str) -> nn.Module:
    library, _, inner = name.partition("/")
    if library == "torchvision":
        model: nn.Module = torchvision.models.get_model(inner, num_classes=3)
        return model
    if library == "timm":
        timm = pytest.importorskip("timm", reason="needs the extra timm")
        made: nn.Module = timm.create_model(inner, num_classes=3)
        return made
    return model_of(name)


def test_networks_of_timm_have_the_order_of_a_network_that_is_read() -> None:
    class Unknown(nn.Module):
        """A network without timm's order of its own."""

        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            for name, parameter in model.named_parameters(recurse=False):
                self.register_parameter(name, parameter)
            for name, child in model.named_children():
                self.add_module(name, child)

    timm = pytest.importorskip("timm", reason="needs the extra timm")
    for name in ("test_vit", "resnet18"):
        with torch.device("meta"):
            model = timm.create_model(name, num_classes=3)
        assert layer_numbers(Unknown(model)) == layer_numbers(model), name


def test_rates_of_dropout_reach_the_layers() -> None:
    model = model_of("torchvision/efficientnet_b0", dropout=0.4, drop_path=0.3)
    assert [part.p for part in model.modules() if isinstance(part, nn.Dropout)] == [0.4]
    depths = [part.p for part in model.modules() if type(part).__name__ == "StochasticDepth"]
    assert depths == pytest.approx(torch.linspace(0, 0.3, 16).tolist())
    model = model_of("timm/test_vit", dropout=0.25, drop_path=0.5)
    # timm puts it before the head.
    assert model.get_submodule("head_drop").p == 0.25
    paths = [
        getattr(block, "drop_path1", None) for block in model.get_submodule("blocks").children()
    ]
    rates = [getattr(path, "drop_prob", 0.0) for path in paths]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("torchvision/resnet18", "dropout"),
        ("torchvision/mobilenet_v3_small", "drop_path"),
        ("timm/vgg11", "drop_path"),
        ("resnet20", "dropout"),
        ("small_cnn", "drop_path"),
    ],
)
def test_a_rate_that_a_network_has_no_use_for_is_refused(name: str, field: str) -> None:
    expected = f"{field}.*expected nothing with '{name}', which has none, got 0.1"
    with torch.device("meta"), pytest.raises((ConfigError, ValueError), match=f"(?s){expected}"):
        model_of(name, **{field: 0.1})


@pytest.mark.parametrize("name", ["small_cnn", "timm/vgg11"])
def test_networks_that_cannot_checkpoint_are_refused(name: str) -> None:
    with torch.device("meta"):
        model = _without_values(name)
    with pytest.raises(ConfigError, match=r"^task\.trainer\.gradient_checkpointing: expected"):
        checkpoint_gradients_(model)
