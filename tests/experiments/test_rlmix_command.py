"""RL-Mix from end to end: its agent is learned, compared, and resumed."""

from pathlib import Path

import pytest

from agents.config import RLMixAgentConfig
from automix.configuration.task import ComputeConfig
from automix.errors import AutoMixError, ConfigError
from automix.experiments.compare.run import compare
from automix.experiments.config import CompareConfig, RLMixRunConfig
from automix.experiments.rlmix.run import format_result, predict_cost, run_rlmix
from envs.smoke import SMOKE_TASK
from tests.experiments.tiny_search import without_times

CONFIG = RLMixRunConfig(
    task=SMOKE_TASK,
    agent=RLMixAgentConfig(episodes=2, n_steps=8, minibatch_size=8),
    schedules=("none",),
    num_seeds=2,
    compute=ComputeConfig(workers=1, population=1),
)


def test_an_agent_is_learned_compared_and_resumed(tmp_path: Path) -> None:
    result = run_rlmix(CONFIG, tmp_path)
    names = [row["name"] for row in result["comparison"]["splits"]["test"]]
    assert names == ["none", f"rlmix:random@{tmp_path}", f"rlmix:{tmp_path}"]
    assert len(result["learning"]["potentials"]) == 2
    assert "learned from 2 training runs" in format_result(result)
    # Without its results, nothing is learned again, and everything is as it was.
    written = (tmp_path / "policy" / "policy.safetensors").stat().st_mtime_ns
    for name in ("result.json", "compare/result.json", "compare/policies.jsonl"):
        (tmp_path / name).unlink()
    assert without_times(run_rlmix(CONFIG, tmp_path)) == without_times(result)
    assert (tmp_path / "policy" / "policy.safetensors").stat().st_mtime_ns == written
    # On batches of another size, and refused where the classes are others.
    trainer = SMOKE_TASK.trainer.model_copy(update={"batch_size": 7})
    task = SMOKE_TASK.model_copy(update={"trainer": trainer})
    config = CompareConfig(
        schedules=("none", f"rlmix:{tmp_path}"), num_seeds=2, task=task, compute=CONFIG.compute
    )
    rows = compare(config, tmp_path / "other")["splits"]["test"]
    assert rows[1]["calibrated_nll"]["mean"] is not None


def test_it_costs_its_episodes_and_the_comparison() -> None:
    assert predict_cost(CONFIG).num_runs == 2 + 3 * 2


def test_what_is_no_agent_is_one_line(tmp_path: Path) -> None:
    config = CompareConfig(schedules=("none", "rlmix:"), num_seeds=2, task=SMOKE_TASK)
    with pytest.raises(ConfigError, match="expected rlmix:FOLDER"):
        compare(config, tmp_path / "run")
    missing = config.model_copy(update={"schedules": ("none", f"rlmix:{tmp_path}")})
    with pytest.raises(AutoMixError, match=r"policy\.json"):
        compare(missing, tmp_path / "run")
    assert not (tmp_path / "run").exists()
