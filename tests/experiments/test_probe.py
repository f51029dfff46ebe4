"""Probe on a small task."""

import json
from pathlib import Path

import numpy as np

from automix.experiments.config import ProbeConfig
from automix.experiments.search.probe import format_findings, mixing_verdict, predict_cost, probe
from automix.experiments.search.run import count_runs
from tests.experiments.tiny_search import TINY

SMALL = ProbeConfig.from_mapping(
    TINY.model_dump(mode="json") | {"num_seeds": 2, "random_schedules": 3}, source="test"
)


def test_a_probe_trains_each_constant_with_each_seed(tmp_path: Path) -> None:
    result = probe(SMALL, tmp_path / "probe")
    names = {row["name"] for row in result["constants"]}
    assert names == {"none", "mixup 1", "cutmix 1"}
    assert all(len(row["values"]) == 2 for row in result["constants"])
    means = [row["interval"]["estimate"] for row in result["constants"]]
    assert means == sorted(means)
    assert predict_cost(SMALL).num_runs == 9
    assert len((tmp_path / "probe" / "outcomes.jsonl").read_text().splitlines()) == 9
    assert probe(SMALL, tmp_path / "probe") == json.loads(json.dumps(result))
    text = format_findings(result)
    assert "fraction of the variance" in text
    assert result["search_trainings"] == sum(count_runs(SMALL).values())
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
