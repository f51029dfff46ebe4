"""Networks of the user: built as their signature says, from a seed, or refused in one line."""

import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from automix.configuration.task import ModelConfig
from automix.errors import ConfigError
from automix.models.build import build_model, reinitialize_, shapes_of_model

HERE = "tests.models.users_networks"


def build(function: str, *, seed: int = 0, module: str = HERE) -> nn.Module:
    return build_model(
        ModelConfig(factory=f"{module}:{function}"),
        num_classes=10,
        channels=1,
        image_size=(8, 8),
        generator=torch.Generator().manual_seed(seed),
    )


@pytest.mark.parametrize("function", ["tiny", "mappings", "timm_vit"])
def test_a_seed_names_the_values(function: str) -> None:
    state = torch.get_rng_state()
    first, again, other = (build(function, seed=seed) for seed in (1, 1, 2))
    assert torch.get_rng_state().equal(state)
    pairs = list(zip(first.parameters(), again.parameters(), strict=True))
    assert all(torch.equal(*pair) for pair in pairs)
    pairs = list(zip(first.parameters(), other.parameters(), strict=True))
    assert not all(torch.equal(*pair) for pair in pairs)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    reinitialize_(
        other,
        ModelConfig(factory=f"{HERE}:{function}"),
        num_classes=10,
        channels=1,
        image_size=(8, 8),
        generator=torch.Generator().manual_seed(1),
    )
    assert all(map(torch.equal, first.state_dict().values(), other.state_dict().values()))


def test_shapes_are_known_without_memory() -> None:
    shapes = shapes_of_model(
        ModelConfig(factory=f"{HERE}:timm_vit"), num_classes=10, channels=1, image_size=(8, 8)
    )
    state = build("timm_vit").state_dict()
    assert {name: value.shape for name, value in shapes.items()} == {
        name: value.shape for name, value in state.items()
    }


def test_a_module_in_the_current_folder_is_found_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "from torch import nn\ndef make(num_classes):\n    return nn.Linear(2, num_classes)\n"
    (tmp_path / "users_own.py").write_text(text)
    (tmp_path / "json.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    assert isinstance(build("make", module="users_own"), nn.Linear)
    assert sys.path[-1] == str(tmp_path)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("nowhere.at_all:make", "expected a module 'nowhere.at_all' that can be imported, got "
         "ModuleNotFoundError: No module named 'nowhere'"),
        (f"{HERE}:tinny", f"expected a function 'tinny' in the module '{HERE}', got none"),
        (f"{HERE}:NOT_A_FUNCTION", f"expected {HERE}:NOT_A_FUNCTION to be a function, got a int"),
        (f"{HERE}:raising", f"expected {HERE}:raising(num_classes=10) to return a network, got "
         "RuntimeError: no network of 10 classes"),
        (f"{HERE}:no_module", f"expected {HERE}:no_module to return a torch.nn.Module, got a list"),
        (f"{HERE}:without_parameters", "expected a network with parameters, got one without"),
        (f"{HERE}:without_classes", f"expected a function that takes num_classes, got "
         f"{HERE}:without_classes with 'no parameters'"),
    ],
    ids=lambda value: value.rpartition(":")[2] if ":" in value else "",
)  # fmt: skip
def test_what_gives_no_network_is_refused(factory: str, message: str) -> None:
    module, _, function = factory.partition(":")
    with pytest.raises(ConfigError) as caught:
        build(function, module=module)
    assert str(caught.value) == f"task.model.factory: {message}"


@pytest.mark.parametrize(
    "fields",
    [
        {"factory": "module"},
        {"factory": "os:system('x')"},
        {"factory": "../a:b"},
        {"factory": "a:b", "name": "resnet20"},
        {"factory": "a:b", "width": 8},
        {"factory": "a:b", "weights": "pretrained"},
    ],
)
def test_a_factory_is_a_name_that_stands_alone(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ModelConfig.model_validate(fields)
