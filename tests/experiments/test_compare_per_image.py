"""Policies per image as rows of a comparison."""

from pathlib import Path

import pytest

from automix.configuration.task import ComputeConfig
from automix.errors import ConfigError
from automix.experiments.compare.run import LOOPS_NAME, compare
from automix.experiments.config import CompareConfig
from envs.smoke import SMOKE_TASK
from tests.experiments.tiny_search import without_times

ROWS = ("none", "gate:cutmix:0.5", "a2c:mixup", "constant:adautomix")
CONFIG = CompareConfig(
    schedules=ROWS, num_seeds=2, task=SMOKE_TASK, compute=ComputeConfig(workers=1, population=1)
)


def test_a_gate_and_an_actor_critic_are_rows_that_resume(tmp_path: Path) -> None:
    result = compare(CONFIG, tmp_path)
    rows = result["splits"]["test"]
    assert [row["name"] for row in rows] == [*ROWS[:3], "adautomix 1"]
    assert len({tuple(row["calibrated_nll"]["values"]) for row in rows}) == len(ROWS)
    assert "decided" not in result
    (tmp_path / "result.json").unlink()
    journal = tmp_path / LOOPS_NAME
    journal.write_text(journal.read_text().splitlines(keepends=True)[0])
    assert without_times(compare(CONFIG, tmp_path)) == without_times(result)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("gate:comixup", "expected an operator that mixes pairs of images, got comixup"),
        ("a2c:none", "expected an operator that mixes pairs of images, got none"),
        ("a2c:", "expected an operator among"),
        ("gate:mixup:99", "expected a strength in"),
    ],
)
def test_what_cannot_be_gated_is_one_line(tmp_path: Path, text: str, match: str) -> None:
    config = CONFIG.model_copy(update={"schedules": ("none", text)})
    with pytest.raises(ConfigError, match=match):
        compare(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
