"""`automix pretrain` from beginning to end on tiny tasks, and what is done with its folder."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from agents.outcomes import OutcomeTable
from automix.errors import ConfigError
from automix.experiments.config import PretrainConfig, SearchConfig
from automix.experiments.pretrain import run as pretraining
from automix.experiments.pretrain.rounds import train_round
from automix.experiments.pretrain.run import pretrain
from automix.experiments.pretrain.validation import summarize
from automix.experiments.replay.policy import PolicySource
from automix.experiments.search.pretrained import POLICY, PRIOR, started_from
from automix.experiments.search.run import search
from envs.config import EnvironmentConfig

CONFIG = PretrainConfig.from_plain(
    {
        "family": {
            "num_tasks": 2,
            "models": ["small_cnn:2"],
            "steps": [4, 6],
            "num_classes": [2, 3],
            "labels_per_class": [4, 6],
            "reward_size": 3,
        },
        "group_size": 2,
        "random_runs": 4,
        "environment": {
            "num_segments": 2,
            "actions": "mixtures",
            "operators": ["none", "mixup", "resizemix"],
            "num_strengths": 1,
            "probabilities": [1.0],
            "observation": ["progress", "losses", "last_decision", "task"],
            "probe_images": 20,
        },
        "agent": {
            "episodes": 8,
            "episodes_per_rollout": 4,
            "num_environments": 4,
            "hidden_sizes": [4],
            "warm_start": None,
        },
        "validation_tasks": 2,
        "compute": {"workers": 1},
    }
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrain") / "run"
    pretrain(CONFIG, folder)
    return folder


class StoppedError(Exception):
    """Stands for the end of the process."""


def outputs(folder: Path) -> dict[str, bytes]:
    names = (
        "policy/policy.safetensors",
        "policy/policy.json",
        "policy/environment.yaml",
        "outcomes.safetensors",
        "outcomes.json",
    )
    return {name: (folder / name).read_bytes() for name in names}


def test_the_result_says_what_the_policy_gains_in_tasks_it_has_not_seen(finished: Path) -> None:
    result: dict[str, Any] = json.loads((finished / "result.json").read_text())
    assert set(result["validation"]["gains"]) == {"none", "random"}
    assert len(result["tasks"]) == 4
    assert result["cost"]["trainings_of_the_policy"] == 2 * 4 + 8
    assert result["cost"]["trainings"] == 2 * 4 + 8 + 2 * 2 * 2
    lines = summarize(result).splitlines()
    assert lines[0] == "16 training runs to learn from"
    assert lines[1].startswith("policy against none: ")


def test_every_training_run_is_in_the_table(finished: Path) -> None:
    table = OutcomeTable.load(finished)
    assert len(table) == 16
    assert len(table.tasks) == 2
    # Random schedules have mean 0 and deviation 1 in their task, by what a deviation is.
    for task in range(2):
        of_task = [
            one for one, number in zip(table.outcomes, table.task_of, strict=True) if number == task
        ]
        assert sum(of_task[:4]) == pytest.approx(0, abs=1e-4)


def test_the_same_seed_gives_the_same_bytes_however_often_it_is_stopped(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = 0
    original = train_round

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal rounds
        rounds += 1
        if rounds == 2:
            raise StoppedError
        return original(*arguments, **named)

    monkeypatch.setattr(pretraining, "train_round", counted)
    folder = tmp_path / "again"
    with pytest.raises(StoppedError):
        pretrain(CONFIG, folder)
    learned = 0

    def log_episode(self: Any, log: Any, episode: Any) -> None:
        nonlocal learned
        learned += 1
        if learned == 6:
            raise StoppedError
        log.on_episode(episode)

    with monkeypatch.context() as inner:
        inner.setattr(pretraining._Pretraining, "_log_episode", log_episode)
        with pytest.raises(StoppedError):
            pretrain(CONFIG, folder)
    pretrain(CONFIG, folder)
    assert outputs(folder) == outputs(finished)


def test_its_folder_is_one_of_a_policy(finished: Path) -> None:
    source = PolicySource.load(finished)
    assert source.environment == CONFIG.environment


SEARCH: dict[str, Any] = {
    "task": {
        "data": {"labels_per_class": 4, "reward_size": 4, "selection_size": 4},
        "model": {"name": "small_cnn", "width": 2},
        "trainer": {"epochs": 2, "batch_size": 20},
    },
    "compute": {"workers": 1, "population": 1},
}


def test_a_race_tries_what_was_learned_in_other_tasks(finished: Path, tmp_path: Path) -> None:
    config = SearchConfig.from_plain(
        SEARCH | {"runs": 16, "pretrained": str(finished), "environment": {"num_segments": 2}}
    )
    result = search(config, tmp_path / "search")
    raced = {name for one in result["race"] for name in (one["name"], *one["also"])}
    assert {PRIOR, POLICY} <= raced
    kept = json.loads((tmp_path / "search" / "pretrained.json").read_text())
    assert set(kept) == {PRIOR, POLICY}


def started(folder: Path, learning_rate: float) -> SearchConfig:
    return SearchConfig.from_plain(
        SEARCH
        | {
            "portfolio": False,
            "agent": {
                "start_from": str(folder),
                "learning_rate": learning_rate,
                "episodes": 4,
                "episodes_per_rollout": 2,
                "num_environments": 2,
            },
            "selection": {
                "learned_candidates": 2,
                "first_seeds": 1,
                "rounds": 1,
                "final_seeds": 2,
            },
        }
    )


def test_ppo_continues_a_policy_in_its_environment(finished: Path, tmp_path: Path) -> None:
    config = started(finished, 1e-12)
    result = search(config, tmp_path / "search")
    # With the command, and with the configuration that it wrote.
    assert search(config, tmp_path / "search") == result
    written = SearchConfig.from_yaml(tmp_path / "search" / "config.yaml")
    assert search(written, tmp_path / "search") == result
    assert written.environment == CONFIG.environment
    before = PolicySource.load(finished).policy.network.state_dict()
    after = PolicySource.load(tmp_path / "search").policy.network.state_dict()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=1e-6)


def test_a_policy_of_another_environment_is_no_start(finished: Path) -> None:
    config = started(finished, 0.01)
    for name, other in (
        ("environment", {"environment": EnvironmentConfig(num_segments=3)}),
        ("agent.hidden_sizes", {"agent": config.agent.model_copy(update={"hidden_sizes": (5,)})}),
    ):
        with pytest.raises(ConfigError, match=f"^{name}: expected that of the policy in"):
            started_from(config.model_copy(update=other))
    with pytest.raises(ValidationError, match=r"expected searcher ppo with agent\.start_from"):
        SearchConfig.from_plain({"searcher": "tpe", "agent": {"start_from": "default"}})
