"""A network that cannot be trained on the data is refused before anything is written."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from automix.configuration.task import ModelConfig, SaliencyConfig
from automix.data.splits import Split
from automix.errors import ConfigError
from automix.operator_info import Operator, SaliencyKind
from automix.training import check as build
from automix.training.check import check_model
from automix.training.trainer import load_search_data
from tests.training.conftest import TASK


class WithoutLogits(nn.Module):
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"features": images}


class Features(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images


class TooSmall(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        raise RuntimeError("Kernel size can't be greater than actual input size\nand more")


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (WithoutLogits(), "network: expected .*, got dict with features; wrap .*"),
        (Features(), r"its output is no logits of 10 classes, but \(2, 1, 8, 8\)"),
        (TooSmall(), "Kernel size can't be greater than actual input size"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_one_line_says_why(
    network: nn.Module, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "build_model", lambda *_, **__: network)
    data = load_search_data(TASK.data)
    expected = r"task\.model\.name: expected a classifier that trains on batches of 2 images of "
    with pytest.raises(ConfigError, match=f"^{expected}1 x 8 x 8, got '[a-z_]+': {reason}$"):
        check_model(TASK, data)


def test_dropout_draws_nothing_that_counts() -> None:
    state = torch.get_rng_state()
    check_model(TASK, load_search_data(TASK.data))
    assert torch.get_rng_state().equal(state)


@pytest.mark.parametrize(("width", "is_refused"), [(4, True), (8, False)])
def test_a_format_in_which_torch_overwrites_memory_is_refused(width: int, is_refused: bool) -> None:
    trainer = TASK.trainer.model_copy(update={"channels_last": True})
    model = ModelConfig(name="preact_resnet18", width=width)
    task = TASK.model_copy(update={"trainer": trainer, "model": model})
    data = load_search_data(TASK.data)
    if not is_refused or torch.accelerator.is_available():
        check_model(task, data)
        return
    expected = "1x1 convolution, got 4 in stage2.0.shortcut"
    with pytest.raises(ConfigError, match=f"^task.trainer.channels_last: .* {expected}$"):
        check_model(task, data)


def test_what_an_operator_of_the_run_needs_is_checked() -> None:
    data = load_search_data(TASK.data)
    check_model(TASK, data, operators=list(Operator))
    missing = SaliencyConfig(source=SaliencyKind.LAYER_GRADIENT, layer="stage9")
    task = TASK.model_copy(update={"saliency": missing})
    check_model(task, data, operators=[Operator.CUTMIX])
    with pytest.raises(ConfigError, match=r"^task: .*expected the name of a module .* 'stage9'"):
        check_model(task, data, operators=[Operator.CUTMIX, Operator.RMIX])
    assert isinstance(data.train, Split)
    tiny = dataclasses.replace(data.train, images=data.train.images[:, :, :2, :2])
    small = dataclasses.replace(data, train=tiny)
    with pytest.raises(ConfigError, match=r"^task: grid: expected 1 to 2 cells"):
        check_model(TASK, small, operators=[Operator.RMIX])
    alone = TASK.trainer.model_copy(update={"batch_size": 4, "accumulation": 4})
    with pytest.raises(ConfigError, match=r"^task.trainer.batch_size: .* for cutmix, got 1$"):
        check_model(TASK.model_copy(update={"trainer": alone}), data, operators=[Operator.CUTMIX])
