"""Every file in configs/ is a valid configuration, and the protocols are what they say."""

from pathlib import Path

import pytest
import yaml

from automix.configuration.base import Config
from automix.configuration.data import Loading
from automix.configuration.task import ReplayConfig
from automix.configuration.trainer import TrainerConfig
from automix.experiments.config import CompareConfig, SearchConfig

FOLDER = Path(__file__).resolve().parents[1] / "configs"
COMMANDS: dict[str, type[Config]] = {
    "search": SearchConfig,
    "replay": ReplayConfig,
    "compare": CompareConfig,
    "tasks": CompareConfig,
}
OURS = {"digits", "cifar10-small"}
PROTOCOLS = sorted({path.stem for path in (FOLDER / "replay").glob("*.yaml")} - OURS)


def recipe(name: str) -> ReplayConfig:
    return ReplayConfig.from_yaml(FOLDER / "replay" / f"{name}.yaml")


@pytest.mark.parametrize(
    "path",
    [path for name in COMMANDS for path in sorted((FOLDER / name).glob("*.yaml"))],
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_every_file_is_valid_and_says_only_what_differs(path: Path) -> None:
    config = COMMANDS[path.parent.name].from_yaml(path)
    assert type(config).from_mapping(yaml.safe_load(config.to_yaml()), source="again") == config
    assert path.read_text(encoding="ascii").startswith("#")


def test_the_protocols_of_the_literature_are_there() -> None:
    assert {
        "cifar100-rmix", "cifar100-comixup", "cifar100-puzzlemix", "cifar100-openmixup-200",
        "cifar100-openmixup-400", "cifar100-openmixup-800", "tiny-imagenet-openmixup",
        "tiny-imagenet-comixup", "imagenet-openmixup-100",
    } <= set(PROTOCOLS)  # fmt: skip


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_names_its_source_its_result_and_what_differs(name: str) -> None:
    text = (FOLDER / "replay" / f"{name}.yaml").read_text(encoding="ascii")
    assert "# Source: github.com/" in text
    assert "# Reported: " in text
    assert "# Differs:\n# - " in text
    config = recipe(name)
    # They train on all images, choose nothing, and average no weights.
    assert (config.task.data.reward_size, config.task.data.selection_size) == (0, 0)
    assert config.task.trainer.ema_decay == 0
    assert config.task.trainer.weight_decay == 1e-4


def rates(config: TrainerConfig, *epochs: float) -> list[float]:
    return [config.learning_rate_at(epoch / config.epochs) for epoch in epochs]


def test_learning_rates_by_epoch() -> None:
    comixup = recipe("cifar100-comixup").task.trainer
    assert rates(comixup, 0, 99.99, 100, 199.99, 200, 299) == pytest.approx(
        [0.2, 0.2, 0.02, 0.02, 0.002, 0.002]
    )
    puzzlemix = recipe("cifar100-puzzlemix").task.trainer
    assert rates(puzzlemix, 399.99, 400, 800) == pytest.approx([0.1, 0.01, 0.001])
    tiny = recipe("tiny-imagenet-comixup").task.trainer
    assert rates(tiny, 599.99, 600, 900) == pytest.approx([0.2, 0.02, 0.002])
    for epochs in (200, 400, 800):
        openmixup = recipe(f"cifar100-openmixup-{epochs}").task.trainer
        assert openmixup.epochs == epochs
        assert rates(openmixup, 0, epochs / 2, epochs) == pytest.approx([0.1, 0.05, 0], abs=1e-9)
    rmix = recipe("cifar100-rmix").task.trainer
    assert rates(rmix, 90, 300) == pytest.approx([0.29947526988779305, 0], abs=1e-9)


def test_imagenet_is_streamed_and_cut_as_usual() -> None:
    data = recipe("imagenet-openmixup-100").task.data
    assert data.loading is Loading.STREAMING
    assert data.target_size == (224, 224)
    assert 224 / data.evaluation_crop == 256
    assert data.augment.resized_crop_scale == (0.08, 1.0)
