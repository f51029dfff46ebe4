"""Comparisons: one training run serves both splits, and one split alone gives the same numbers."""

from pathlib import Path

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
    text = format_table(compare(BOTH, tmp_path))
    for part in ("on the selection split", "on the test split", "Holm", "mixup 1", "P(better)"):
        assert part in text


def test_two_splits_cost_one_set_of_runs() -> None:
    one, both = (
        predict_cost(BOTH.model_copy(update={"split": split})) for split in ("test", "both")
    )
    assert one.num_runs == both.num_runs == 9
