"""File, flags and defaults together."""

from pathlib import Path

import pytest
import yaml

from automix.cli.arguments import read_arguments
from automix.cli.commands import CONFIGS, REPLAY, SEARCH
from automix.config import Config
from automix.experiments.config import CompareConfig, ReplayConfig, SearchConfig
from tests.cli.running import RunCommand

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs").rglob("*.yaml"))
MODELS: dict[str, type[Config]] = {
    "search": SearchConfig,
    "replay": ReplayConfig,
    "compare": CompareConfig,
}


def test_flags_come_before_the_file_and_the_file_before_defaults(folder: Path) -> None:
    Path("mine.yaml").write_text(
        "seed: 1\nagent: {episodes: 48, learning_rate: 1e-3}\ntask: {trainer: {epochs: 5}}\n"
    )
    words = ["mine.yaml", "--agent.episodes", "64", "--task.trainer.batch-size", "10"]
    arguments = read_arguments(SEARCH, [*words, "--output", "here", "--dry-run"])
    config, defaults = arguments.config, SearchConfig()
    assert config.seed == 1
    assert config.agent.episodes == 64
    assert config.agent.learning_rate == 1e-3
    assert config.task.trainer.epochs == 5
    assert config.task.trainer.batch_size == 10
    assert config.task.trainer.momentum == defaults.task.trainer.momentum
    assert config.environment == defaults.environment
    assert (arguments.flags.output, arguments.flags.dry_run) == (Path("here"), True)


def test_a_flag_may_complete_a_file(folder: Path) -> None:
    Path("mine.yaml").write_text("task: {data: {source: folder}}\n")
    arguments = read_arguments(SEARCH, ["mine.yaml", "--task.data.path", "photos"])
    assert arguments.config.task.data.path == Path("photos")


def test_words_and_file_are_told_apart(folder: Path) -> None:
    Path("mine.yaml").write_text("seed: 4\n")
    arguments = read_arguments(REPLAY, ["schedule.json", "mine.yaml"])
    assert arguments.words == ("schedule.json",)
    assert arguments.config == ReplayConfig(seed=4)
    assert read_arguments(REPLAY, ["schedule.json"]).config == ReplayConfig()


@pytest.mark.parametrize("name", CONFIGS)
def test_a_printed_configuration_is_complete_and_reads_back(
    name: str, run_command: RunCommand
) -> None:
    printed = run_command("config", name, "--seed", "7")
    assert (printed.code, printed.err) == (0, "")
    Path("printed.yaml").write_text(printed.out)
    config = MODELS[name].from_yaml(Path("printed.yaml"))
    assert config == MODELS[name].model_validate({"seed": 7})
    assert set(yaml.safe_load(printed.out)) == set(MODELS[name].model_fields)
    assert run_command("config", name, "printed.yaml").out == printed.out


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_our_configurations_are_valid(file: Path) -> None:
    assert MODELS[file.parent.name].from_yaml(file)


def test_there_are_configurations() -> None:
    assert any(file.parent.name == "search" for file in FILES)
