"""File, flags and defaults together."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.config import AgentConfig
from automix.configuration.arguments import every_field, flag_name, read_arguments
from automix.configuration.base import Config
from automix.configuration.task import ReplayConfig, TaskConfig
from automix.errors import AutoMixError
from automix.experiments.commands import COMMANDS
from automix.experiments.config import (
    CompareConfig,
    PretrainConfig,
    RLMixRunConfig,
    SearchConfig,
    TransferConfig,
)
from automix.experiments.evaluate.config import EvaluateConfig
from tests.cli.running import RunCommand, leaves

ROOT = Path(__file__).parents[2]
# Sweeps, and what they build on, have a test of their own.
FILES = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if "ablation" not in path.parts)
MODELS: dict[str, type[Config]] = {
    "agent": AgentConfig,
    "search": SearchConfig,
    "transfer": TransferConfig,
    "replay": ReplayConfig,
    "compare": CompareConfig,
    "tasks": CompareConfig,
    # The section of a task, for every command that trains.
    "finetune": TaskConfig,
    "evaluate": EvaluateConfig,
    "rlmix": RLMixRunConfig,
    "pretrain": PretrainConfig,
}


SEARCH, REPLAY = COMMANDS["search"], COMMANDS["replay"]


def test_flags_come_before_the_file_and_the_file_before_defaults(folder: Path) -> None:
    Path("mine.yaml").write_text(
        "seed: 1\nagent: {episodes: 48, learning_rate: 1e-3}\ntask: {trainer: {epochs: 5}}\n"
    )
    argv = ["mine.yaml", "--agent.episodes", "64", "--task.trainer.batch-size", "10"]
    arguments = read_arguments(SEARCH, [*argv, "--output", "here", "--dry-run"])
    config, defaults = arguments.config, SearchConfig()
    assert config.seed == 1
    assert config.agent.episodes == 64
    assert config.agent.learning_rate == 1e-3
    assert config.task.trainer.epochs == 5
    assert config.task.trainer.batch_size == 10
    assert config.task.trainer.momentum == defaults.task.trainer.momentum
    assert config.environment == defaults.environment
    assert (arguments.flags.output, arguments.flags.dry_run) == (Path("here"), True)


def test_a_section_may_come_from_a_file(folder: Path) -> None:
    Path("parts").mkdir()
    Path("parts/agent.yaml").write_text("learning_rate: 0.5\nn_epochs: 8\nwarm_start: null\n")
    Path("mine.yaml").write_text("agent: {episodes: 48, learning_rate: 1e-3, clip_range: 0.1}\n")
    argv = ["mine.yaml", "--agent", "parts/agent.yaml", "--agent.n-epochs", "4"]
    agent = read_arguments(SEARCH, argv).config.agent
    assert agent == AgentConfig(
        episodes=48, learning_rate=0.5, clip_range=0.1, n_epochs=4, warm_start=None
    )
    Path("mine.yaml").write_text("agent: parts/agent.yaml\n")
    expected = AgentConfig(learning_rate=0.5, n_epochs=8, warm_start=None)
    assert read_arguments(SEARCH, ["mine.yaml"]).config.agent == expected


def test_sections_within_sections_come_after_them(folder: Path) -> None:
    Path("trainer.yaml").write_text("epochs: 7\n")
    Path("task.yaml").write_text("trainer: {epochs: 5, batch_size: 9}\n")
    argv = ["--task.trainer", "trainer.yaml", "--task", "task.yaml"]
    trainer = read_arguments(SEARCH, argv).config.task.trainer
    assert (trainer.epochs, trainer.batch_size) == (7, 9)


def test_the_tuned_agent_is_the_default_one() -> None:
    file = ROOT / "configs/agent/ppo.yaml"
    assert AgentConfig.from_yaml(file) == AgentConfig()
    # Budget and machine belong to a search.
    others = {"episodes", "episodes_per_rollout", "num_environments", "workers"}
    assert set(yaml.safe_load(file.read_text())) == set(AgentConfig.model_fields) - others


def test_a_flag_may_complete_a_file(folder: Path) -> None:
    Path("mine.yaml").write_text("task: {data: {source: folder}}\n")
    arguments = read_arguments(SEARCH, ["mine.yaml", "--task.data.path", "photos"])
    assert arguments.config.task.data.path == Path("photos")


def test_words_and_file_are_told_apart(folder: Path) -> None:
    Path("mine.yaml").write_text("seed: 4\n")
    arguments = read_arguments(REPLAY, ["schedule.json", "mine.yaml"])
    assert arguments.positionals == ("schedule.json",)
    assert arguments.config == ReplayConfig(seed=4)
    assert read_arguments(REPLAY, ["schedule.json"]).config == ReplayConfig()


@pytest.mark.parametrize("name", sorted(MODELS.keys() - {"agent", "tasks", "finetune"}))
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


FLAGS = sorted(
    [*(f"--{name}" for name in ("sed", "task", "task.trainer", "x.y")), "-x"]
    + [flag_name(path) for path, _ in leaves(every_field(SEARCH))]
)
VALUES = ["1", "0", "-1", "0.5", "1e-3", "1e999", "nan", "null", "true", "none", "mixup", "x", ""]


@settings(deadline=None, max_examples=12)
@given(
    argv=st.lists(
        st.sampled_from(FLAGS)
        | st.sampled_from(VALUES)
        | st.tuples(st.sampled_from(FLAGS), st.sampled_from(VALUES)).map("=".join)
        | st.text(max_size=5),
        max_size=6,
    )
)
def test_any_words_are_accepted_or_refused_in_one_line(argv: list[str]) -> None:
    if {"-h", "--help"} & set(argv):
        return
    try:
        arguments = read_arguments(SEARCH, [word for word in argv if not word.endswith(".yaml")])
    except AutoMixError as error:
        # The empty word is this folder, which has no images.
        message = str(error)
        assert "expected" in message
        assert ", got" in message
    else:
        assert arguments.config == SearchConfig.from_mapping(
            arguments.config.model_dump(mode="json"), source="again"
        )


def test_there_are_configurations() -> None:
    assert any(file.parent.name == "search" for file in FILES)
