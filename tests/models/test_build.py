import subprocess
import sys
from collections import Counter

import pytest
import torch
import torchvision
from pydantic import ValidationError
from torch import nn

from automix.configuration.task import ModelConfig
from automix.errors import ConfigError, MissingExtraError
from automix.models.build import _own_model, build_model, reinitialize_


def build(name: str, *, num_classes: int = 5, channels: int = 3, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    return build_model(
        ModelConfig(name=name), num_classes=num_classes, channels=channels, generator=generator
    )


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    "name",
    [
        "small_cnn",
        "resnet20",
        "preact_resnet18",
        pytest.param("preact_resnet34", marks=pytest.mark.slow),  # 18 with more blocks
        "preact_resnet50",
        "wide_resnet10_1",
        "wide_resnet16_8",
        "resnext20_2x4",
        "resnext29_4x24",
    ],
)
def test_any_size_and_channels(name: str) -> None:
    for channels, height, width in ((1, 8, 8), (4, 9, 13), (3, 1, 5)):
        model = build(name, channels=channels)
        logits = model(torch.randn(2, channels, height, width))
        assert logits.shape == (2, 5)
        logits.sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        # He et al. 2016, table 1: 0.27 M for ResNet-20 (the projections of option B add 1%).
        ("resnet20", 0.278),
        # 11.22 M in the published code of R-Mix, plus the last norm.
        ("preact_resnet18", 11.222),
        # Zagoruyko and Komodakis 2016, tables 2 and 4: 11.0 and 36.5 M at 100 classes and 10.
        ("wide_resnet16_8", 11.0),
        ("wide_resnet28_10", 36.5),
        # Counted on the published code of Co-Mixup's resnext29_4_24 at 100 classes.
        ("resnext29_4x24", 4.937),
    ],
)
def test_number_of_parameters_is_that_of_the_literature(name: str, millions: float) -> None:
    assert num_parameters(build(name, num_classes=100)) / 1e6 == pytest.approx(millions, rel=2e-3)


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_convolutions_are_those_of_the_post_activation_networks(depth: int) -> None:
    """The weights of torchvision's ResNet, with CIFAR's stem: 3x3 in place of 7x7."""
    network = build(f"preact_resnet{depth}", num_classes=100)
    reference = getattr(torchvision.models, f"resnet{depth}")(num_classes=100)
    shapes = [tuple(part.weight.shape) for part in network.modules() if isinstance(part, nn.Conv2d)]
    published = [
        tuple(part.weight.shape) for part in reference.modules() if isinstance(part, nn.Conv2d)
    ]
    assert published[0] == (64, 3, 7, 7)
    assert Counter(shapes) == Counter([(64, 3, 3, 3), *published[1:]])


def test_the_widest_network_takes_one_and_four_channels() -> None:
    with torch.device("meta"):
        for channels in (1, 4):
            model = _own_model(
                ModelConfig(name="wide_resnet28_10"), {"channels": channels, "num_classes": 5}
            )
            assert model(torch.empty(2, channels, 33, 17)).shape == (2, 5)


@pytest.mark.parametrize("name", ["small_cnn", "torchvision/resnet18"])
def test_global_generators_are_neither_read_nor_advanced(name: str) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = build(name).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    second = build(name).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    third = build(name, seed=1).state_dict()
    assert not all(torch.equal(first[key], third[key]) for key in first)


@pytest.mark.parametrize("name", ["small_cnn", "torchvision/squeezenet1_1"])
def test_reinitialize_equals_a_new_build_in_the_same_storage(name: str) -> None:
    model, fresh = build(name, seed=1), build(name, seed=2)
    storage = [parameter.data_ptr() for parameter in model.parameters()]
    reinitialize_(
        model,
        ModelConfig(name=name),
        num_classes=5,
        channels=3,
        generator=torch.Generator().manual_seed(2),
    )
    assert [parameter.data_ptr() for parameter in model.parameters()] == storage
    assert all(
        torch.equal(value, fresh.state_dict()[key]) for key, value in model.state_dict().items()
    )


@pytest.mark.parametrize("name", ["torchvision/resnet18", "timm/resnet18", "torchvision/googlenet"])
@pytest.mark.parametrize("channels", [1, 3])
def test_library_models_take_other_channels(name: str, channels: int) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    logits = build(name, channels=channels)(torch.randn(2, channels, 64, 64))
    assert logits.shape == (2, 5)


def test_a_tag_names_weights_of_a_timm_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    tagged, plain = build("timm/test_vit.r160_in1k"), build("timm/test_vit")
    assert all(
        torch.equal(value, plain.state_dict()[key]) for key, value in tagged.state_dict().items()
    )
    created = []

    def create_model(name: str, *, pretrained: bool, **options: object) -> object:
        created.append((name, pretrained))
        return original(name, pretrained=False, **options)

    original = timm.create_model
    monkeypatch.setattr(timm, "create_model", create_model)
    build_model(
        ModelConfig(name="timm/test_vit.r160_in1k", weights="pretrained"),
        num_classes=5,
        channels=3,
        generator=torch.Generator().manual_seed(0),
    )
    assert created == [("test_vit.r160_in1k", True)]
    with pytest.raises(
        ConfigError,
        match=r"model.name: expected one of timm/test_vit.r160_in1k, got 'timm/test_vit.r160'",
    ):
        build("timm/test_vit.r160")


def test_unknown_names() -> None:
    with pytest.raises(ValidationError, match=r"expected one of small_cnn.* mean 'small_cnn'"):
        ModelConfig(name="smal_cnn")
    with pytest.raises(ConfigError, match=r"model.name: expected .*mean 'torchvision/resnet18'\?"):
        build("torchvision/resnt18")
    # A detector or a segmentation network is not a classifier.
    with pytest.raises(ConfigError, match="classifiers of torchvision, got"):
        build("torchvision/fcn_resnet50")


@pytest.mark.parametrize("name", ["wide_resnet17_2", "wide_resnet16_0", "resnext30_4x24"])
def test_impossible_depths(name: str) -> None:
    with pytest.raises(ValidationError, match=f"expected .*, got '{name}'"):
        ModelConfig(name=name)


def test_a_width_without_effect_is_refused() -> None:
    with pytest.raises(ValidationError, match="expected no width with 'resnext29_4x24', got 8"):
        ModelConfig(name="resnext29_4x24", width=8)


def test_timm_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"extra timm .*pip install 'automix\[timm\]'"):
        build("timm/resnet18")


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected at least 1 class and 1 channel, got 0 and 3"):
        build("small_cnn", num_classes=0)


def test_configuration_does_not_import_torch() -> None:
    code = "import sys, automix.configuration.task; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
