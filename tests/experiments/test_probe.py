"""Probe and transfer: what they find on a small task."""

import json
from pathlib import Path

import numpy as np
import pytest

from automix.errors import ConfigError
from automix.experiments.compare.transfer import format_findings as format_transfer
from automix.experiments.compare.transfer import transfer
from automix.experiments.config import ProbeConfig, TransferConfig
from automix.experiments.search.probe import format_findings, mixing_verdict, predict_cost, probe
from automix.experiments.search.run import count_trainings
from tests.experiments.tiny_search import TINY

SMALL = ProbeConfig.from_mapping(
    TINY.model_dump(mode="json") | {"num_seeds": 2, "random_schedules": 3}, source="test"
)
TRANSFER = TransferConfig(
    proxy=SMALL.task,
    target=SMALL.task.model_copy(
        update={"trainer": SMALL.task.trainer.model_copy(update={"epochs": 6})}
    ),
    environment=SMALL.environment,
    num_seeds=2,
    compute=SMALL.compute,
)


def test_a_probe_trains_each_constant_with_each_seed(tmp_path: Path) -> None:
    result = probe(SMALL, tmp_path / "probe")
    names = {row["name"] for row in result["constants"]}
    assert names == {"none", "mixup 1", "cutmix 1"}
    assert all(len(row["values"]) == 2 for row in result["constants"])
    means = [row["interval"]["estimate"] for row in result["constants"]]
    assert means == sorted(means)
    assert predict_cost(SMALL).num_trainings == 9
    assert len((tmp_path / "probe" / "outcomes.jsonl").read_text().splitlines()) == 9
    assert probe(SMALL, tmp_path / "probe") == json.loads(json.dumps(result))
    text = format_findings(result)
    assert "share of the variance" in text
    assert result["search_trainings"] == sum(count_trainings(SMALL).values())
    assert f"takes {result['search_trainings']} training runs" in text
    assert all(name in text for name in names)


def test_a_training_that_underfits_is_warned_of(tmp_path: Path) -> None:
    """Twelve steps are too few for mixing to help."""
    result = probe(SMALL.model_copy(update={"num_seeds": 4}), tmp_path / "probe")
    assert result["mixing"]["verdict"] != "yes"
    assert any("underfits" in warning for warning in result["warnings"])


def test_mixing_helps_where_it_does() -> None:
    generator = np.random.default_rng(0)
    none = 0.2 + 0.01 * generator.standard_normal(8)
    losses = {"none": none, "mixup 1": none - 0.05, "cutmix 1": none + 0.05}
    verdict = mixing_verdict(losses, seed=0)
    assert verdict is not None
    assert (verdict["name"], verdict["verdict"]) == ("mixup 1", "yes")
    worse = mixing_verdict({"none": none, "cutmix 1": none + 0.05}, seed=0)
    assert worse is not None
    assert worse["verdict"] == "no"
    assert mixing_verdict({"mixup 1": none}, seed=0) is None


def test_transfer_ranks_the_constants_of_both_tasks(tmp_path: Path) -> None:
    result = transfer(TRANSFER, tmp_path / "transfer")
    assert len(result["constants"]) == 7
    assert -1 <= result["spearman"]["estimate"] <= 1
    targets = [row["target"] for row in result["constants"]]
    assert targets == sorted(targets)
    assert result["constants"][0]["proxy"] != result["constants"][0]["target"]
    assert "rank correlation" in format_transfer(result)
    assert transfer(TRANSFER, tmp_path / "transfer") == json.loads(json.dumps(result))


def test_a_transfer_without_a_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="target: expected a task other than the proxy"):
        transfer(TRANSFER.model_copy(update={"target": TRANSFER.proxy}), tmp_path / "transfer")
    few = TRANSFER.environment.model_copy(update={"operators": ("none", "mixup")[:1]})
    with pytest.raises(ConfigError, match=r"environment\.operators: expected operators with at"):
        transfer(TRANSFER.model_copy(update={"environment": few}), tmp_path / "transfer")
    assert not (tmp_path / "transfer").exists()
