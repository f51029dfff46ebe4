"""RL-Mix: learn its agent on whole training runs, then compare it on fresh ones."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from agents.rlmix import RLMixFacts, num_features, save_actor, train_rlmix
from automix.data.load import load_data
from automix.errors import ConfigError
from automix.experiments.common.cost import CostEstimate, estimate_cost
from automix.experiments.common.run_folder import ProgressBar, RunFolder
from automix.experiments.common.run_logs import Journal
from automix.experiments.compare.run import compare, format_table
from automix.experiments.config import CompareConfig, RLMixRunConfig
from automix.models.pretrained import images_of
from automix.operator_info import Operator
from automix.random_streams import Stream, derived_seed
from automix.training.check import check_model
from automix.training.trainer import load_search_data
from envs.rlmix.env import RLMixEnv

POLICY_FOLDER = "policy"
COMPARE_FOLDER = "compare"
JOURNAL_NAME = "episodes.jsonl"
_COST_NAME = "learning"


def run_rlmix(config: RLMixRunConfig, output: Path) -> dict[str, Any]:
    """Learn the agent in ``output/policy``, compare in ``output/compare``; return both results.

    An agent that is there is not learned again; learning that was interrupted starts over.

    Raises:
        AutoMixError: configuration, data or folder do not fit.
    """
    data = load_data(images_of(config.task)).for_search()
    check_model(config.task, data, operators=[Operator.RMIX])
    if data.has_label_rows:
        raise ConfigError("task.data.labels: expected images with one class each, got a file")
    torch.set_num_threads(config.compute.threads)
    with RunFolder(output, config) as run:
        if (finished := run.result()) is not None:
            return finished
        journal = Journal(run.path / JOURNAL_NAME)
        if (learning := journal.get(_COST_NAME)) is None:
            learning = _learn(config, run.path / POLICY_FOLDER)
            journal.add(_COST_NAME, learning)
        rows = (*config.schedules, f"rlmix:random@{run.path}", f"rlmix:{run.path}")
        comparison = CompareConfig(
            schedules=rows,
            num_seeds=config.num_seeds,
            seed=derived_seed(config.seed, Stream.FINAL),
            split=config.split,
            task=config.task,
            compute=config.compute,
        )
        result = compare(comparison, run.path / COMPARE_FOLDER)
        return run.finish({"kind": "rlmix", "learning": learning, "comparison": result})


def _learn(config: RLMixRunConfig, folder: Path) -> dict[str, Any]:
    data, started = load_search_data(images_of(config.task)), time.perf_counter()
    env = RLMixEnv(config.task, config.rlmix, data=data, seed=config.seed)
    potentials: list[float] = []
    with ProgressBar("rlmix", config.agent.episodes) as bar:

        def report(info: dict[str, Any]) -> None:
            potentials.append(info["potential"])
            bar.advance()

        inputs = num_features(config.rlmix, data.num_classes)
        actor = train_rlmix(env, config.agent, inputs=inputs, seed=config.seed, report=report)
    facts = RLMixFacts(
        rlmix=config.rlmix, num_classes=data.num_classes, hidden_sizes=config.agent.hidden_sizes
    )
    save_actor(actor, facts, folder)
    return {"seconds": time.perf_counter() - started, "potentials": potentials}


def predict_cost(config: RLMixRunConfig) -> CostEstimate:
    """Return what the training runs will cost, those of the agent included; nothing is written."""
    num_rows = len(config.schedules) + 2
    return estimate_cost(
        config.task,
        load_data(images_of(config.task)).for_search(),
        operators=[Operator.RMIX],
        num_runs=config.agent.episodes + num_rows * config.num_seeds,
        evaluations_per_run=1,
        compute=config.compute,
    )


def format_result(result: Mapping[str, Any]) -> str:
    """Return what learning cost and gained, and the table of the comparison."""
    learning = result["learning"]
    potentials = learning["potentials"]
    count = max(1, len(potentials) // 4)
    first, last = (sum(part) / count for part in (potentials[:count], potentials[-count:]))
    return (
        f"learned from {len(potentials)} training runs in {learning['seconds']:.0f} s; calibrated "
        f"NLL on the reward split {-first:.4f} in the first quarter of them, {-last:.4f} in the "
        f"last\n{format_table(result['comparison'])}"
    )
