"""Comparisons: one training run serves both splits, and one split alone gives the same numbers."""

import json
from pathlib import Path
from typing import Any

import pytest

from automix.configuration.task import ComputeConfig
from automix.experiments.compare import run as module
from automix.experiments.compare.run import compare, format_table, predict_cost
from automix.experiments.config import CompareConfig
from envs.smoke import SMOKE_ENVIRONMENT, SMOKE_TASK
from tests.experiments.tiny_search import without_times

BOTH = CompareConfig(
    schedules=("none", "constant:mixup", "random"),
    num_seeds=3,
    split="both",
    task=SMOKE_TASK,
    environment=SMOKE_ENVIRONMENT,
    compute=ComputeConfig(workers=1, population=1),
)


def test_both_splits_come_from_one_set_of_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = compare(BOTH, tmp_path / "both")
    assert (tmp_path / "both" / "outcomes.jsonl").read_text().count("\n") == 9
    assert list(both["splits"]) == ["selection", "test"]
    for split in ("selection", "test"):
        alone = compare(BOTH.model_copy(update={"split": split}), tmp_path / split)
        assert without_times(alone["splits"]) == {split: without_times(both["splits"])[split]}
    monkeypatch.setattr(module, "train_all", None)
    assert compare(BOTH, tmp_path / "both") == both


def test_the_table_names_splits_schedules_and_statistics(tmp_path: Path) -> None:
    result = compare(BOTH, tmp_path)
    text = format_table(result)
    assert text.startswith(f"verdict: {result['verdict']['sentence']}\n"), "the verdict comes first"
    for part in ("on the selection split", "on the test split", "Holm", "mixup 1", "P(better)"):
        assert part in text


def outcomes(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "outcomes.jsonl").read_text().splitlines()
    times = {"seconds", "waited_seconds", "journal_sum"}
    return [{k: v for k, v in json.loads(line).items() if k not in times} for line in lines]


def test_populations_train_what_each_run_trains_alone(tmp_path: Path) -> None:
    joined = BOTH.model_copy(update={"compute": ComputeConfig(workers=1, population=5)})
    compare(BOTH, tmp_path / "alone")
    compare(joined, tmp_path / "joined")
    for alone, member in zip(
        outcomes(tmp_path / "alone"), outcomes(tmp_path / "joined"), strict=True
    ):
        assert alone["key"] == member["key"]
        for split, metrics in alone["metrics"].items():
            numbers = {name: value for name, value in metrics.items() if value is not None}
            joined_metrics = {name: member["metrics"][split][name] for name in numbers}
            assert joined_metrics == pytest.approx(numbers, rel=5e-3, abs=5e-3)
        # The test images choose nothing, not even a temperature.
        fitted = member["metrics"]["selection"]["temperature"]
        assert member["metrics"]["test"]["temperature"] == pytest.approx(fitted)
    # Cut in the middle of the second group of five and four: the same bits when it is resumed.
    path = tmp_path / "resumed" / "outcomes.jsonl"
    path.parent.mkdir()
    for name in ("config.yaml", "environment.json"):
        (path.parent / name).write_bytes((tmp_path / "joined" / name).read_bytes())
    lines = (tmp_path / "joined" / "outcomes.jsonl").read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:7]) + lines[7][:20])
    compare(joined, path.parent)
    assert outcomes(path.parent) == outcomes(tmp_path / "joined")


def test_two_splits_cost_one_set_of_runs() -> None:
    one, both = (
        predict_cost(BOTH.model_copy(update={"split": split})) for split in ("test", "both")
    )
    assert one.num_runs == both.num_runs == 9


def test_equal_schedules_are_trained_once(tmp_path: Path) -> None:
    schedules = ("none", "constant:mixup:1", "mixture:mixup:1", "constant:mixup:2:0")
    result = compare(BOTH.model_copy(update={"schedules": schedules}), tmp_path)
    assert (tmp_path / "outcomes.jsonl").read_text().count("\n") == 2 * 3
    rows = result["splits"]["test"]
    assert [(row["name"], row["also"]) for row in rows] == [
        ("none", ["constant:mixup:2:0"]),
        ("mixup 1", ["mixture:mixup:1"]),
    ]
    assert "mixup 1 = mixture:mixup:1" in format_table(result)
    assert result["verdict"]["selected"] == "mixup 1"
