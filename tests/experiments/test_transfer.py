"""Transfer from a small task to a longer one."""

import json
from pathlib import Path

import numpy as np
import pytest

from automix.errors import ConfigError
from automix.experiments.config import TransferConfig
from automix.experiments.search.transfer import format_findings, mixing_verdict, transfer
from tests.experiments.tiny_search import TINY

TRANSFER = TransferConfig(
    proxy=TINY.task,
    target=TINY.task.model_copy(
        update={"trainer": TINY.task.trainer.model_copy(update={"epochs": 6})}
    ),
    environment=TINY.environment,
    num_seeds=2,
    compute=TINY.compute,
)


def test_transfer_ranks_the_constants_of_both_tasks(tmp_path: Path) -> None:
    result = transfer(TRANSFER, tmp_path / "transfer")
    assert len(result["constants"]) == 7
    assert -1 <= result["spearman"]["estimate"] <= 1
    targets = [row["target"] for row in result["constants"]]
    assert targets == sorted(targets)
    assert result["constants"][0]["proxy"] != result["constants"][0]["target"]
    assert "rank correlation" in format_findings(result)
    assert transfer(TRANSFER, tmp_path / "transfer") == json.loads(json.dumps(result))


def test_a_transfer_without_a_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="target: expected a task other than the proxy"):
        transfer(TRANSFER.model_copy(update={"target": TRANSFER.proxy}), tmp_path / "transfer")
    few = TRANSFER.environment.model_copy(update={"operators": ("none", "mixup")[:1]})
    with pytest.raises(ConfigError, match=r"environment\.operators: expected operators with at"):
        transfer(TRANSFER.model_copy(update={"environment": few}), tmp_path / "transfer")
    assert not (tmp_path / "transfer").exists()


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
