"""Recipes of configs/finetune/: they build, and cost what their headers say."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from automix.configuration.arguments import read_arguments
from automix.configuration.task import TaskConfig
from automix.experiments.commands import COMMANDS
from automix.models.build import build_model
from automix.random_streams import Stream, stream_generator
from automix.shipped_configs import shipped_configs

timm = pytest.importorskip("timm", reason="needs the extra timm")

RECIPES = shipped_configs(("finetune",))
COST = re.compile(r"Cost: ([\d.]+) M parameters, ([\d.]+) GFLOPs per image")


def task_of(name: str) -> TaskConfig:
    return TaskConfig.from_yaml(RECIPES[name])


def test_there_is_one_for_each_kind_of_network() -> None:
    assert set(RECIPES) == {
        "convnext-tiny",
        "efficientnet-lite0",
        "resnet50",
        "vit-small-dinov2",
    }


def network_of(name: str) -> nn.Module:
    """Return the network of a recipe on the meta device: nothing is computed or initialized."""
    task = task_of(name)
    size = {"img_size": task.data.image_size} if "vit" in name else {}
    with torch.device("meta"):
        network: nn.Module = timm.create_model(
            task.model.name.removeprefix("timm/"), num_classes=10, **size
        )
    return network


def cost_told_by(name: str) -> tuple[float, float]:
    """Return millions of parameters and GFLOPs of the header."""
    header = RECIPES[name].read_text().split("\ndata:")[0]
    told = COST.search(" ".join(line.lstrip("# ") for line in header.splitlines()))
    assert told is not None
    return float(told[1]), float(told[2])


@pytest.mark.parametrize("name", RECIPES)
def test_the_header_has_source_command_and_the_parameters_that_are_counted(name: str) -> None:
    text, model = RECIPES[name].read_text(), task_of(name).model
    assert "\n# Source: " in text
    assert f"automix search --task configs/finetune/{name}.yaml --task.data.path FOLDER" in text
    assert model.weights == "pretrained"
    assert timm.models.is_model_pretrained(model.name.removeprefix("timm/")), "of name and tag"
    parameters = sum(one.numel() for one in network_of(name).parameters())
    assert cost_told_by(name)[0] == pytest.approx(parameters / 1e6, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_the_header_has_the_operations_that_are_counted(name: str) -> None:
    size = task_of(name).data.target_size
    assert size is not None
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network_of(name).eval()(torch.zeros(1, 3, *size, device="meta"))
    operations = counter.get_total_flops() / 1e9
    assert cost_told_by(name)[1] == pytest.approx(operations, rel=0.02)


@pytest.mark.parametrize("name", RECIPES)
def test_a_network_without_weights_is_built_and_takes_an_image(name: str) -> None:
    # Two patches of the transformer; the others halve an image five times.
    side = 28 if "vit" in name else 32
    model = build_model(
        task_of(name).model.model_copy(update={"weights": None}),
        num_classes=3,
        channels=3,
        generator=stream_generator(0, Stream.INITIALIZATION),
        image_size=(side, side),
    )
    assert model.eval()(torch.zeros(1, 3, side, side)).shape == (1, 3)


def test_a_recipe_is_named_by_its_stem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = read_arguments(COMMANDS["search"], ["--task", "resnet50", "--runs", "24"])
    assert arguments.config.task == task_of("resnet50")
