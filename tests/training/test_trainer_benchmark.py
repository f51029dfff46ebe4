"""The benchmark of the trainer runs, names its rows and computes its ratios."""

import json
from pathlib import Path

import pytest

from automix.configuration.task import ModelConfig
from automix.operator_info import OPERATOR_FACTS, Operator
from benchmarks.trainer import BARE, main, row_of
from benchmarks.trainer_loops import PLAIN, Options, all_cases


def test_table_and_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "trainer.json"
    held = "saliency_grafting, input gradient every 4 steps"
    main(
        Options(
            model=ModelConfig(width=2),
            batch_size=4,
            size=8,
            classes=3,
            rounds=2,
            only=(PLAIN, "cutmix", held),
            json=figures,
        )
    )
    printed = capsys.readouterr().out
    assert "small_cnn, batch 4, 8 x 8, fp32, 1 thread(s), cpu" in printed
    rows = json.loads(figures.read_text())["rows"]
    assert [row["name"] for row in rows] == [BARE, PLAIN, "cutmix", held]
    assert rows[0]["multiple"] == 1
    assert all(row["images_per_second"] > 0 and row["matmul_fraction"] > 0 for row in rows)
    assert [row["limit"] for row in rows] == [None, 1.03, 1.05, 1.25]


def test_every_operator_and_a_cheap_source_have_a_row() -> None:
    cases = all_cases()
    for operator, facts in OPERATOR_FACTS.items():
        if operator is not Operator.NONE:
            assert cases[operator.value].limit == (1.75 if facts.needs_saliency else 1.05)
    assert cases["saliency_grafting, reduced gradient"].limit == 1.25


def test_a_ratio_is_the_median_over_rounds() -> None:
    seconds = {BARE: [1.0, 2.0, 4.0], "slow": [2.0, 3.0, 4.0]}
    row = row_of("slow", seconds, Options(batch_size=6), limit=None)
    assert row.multiple == 1.5
    assert row.images_per_second == 2.0
