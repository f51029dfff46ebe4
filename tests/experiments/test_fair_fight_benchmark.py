"""The fair fight of searchers: equal budgets, and tables whose unit is the search."""

import math

import pytest

from automix.experiments.config import CompareConfig
from automix.experiments.search.estimate import count_runs
from benchmarks.fair_fight import Row, from_csv, interval_of_mean, table, to_csv
from benchmarks.fair_fight_runs import RACE_ALONE, SEARCHERS, search_config
from envs.smoke import SMOKE_TASK

TASK = CompareConfig(task=SMOKE_TASK)


@pytest.mark.parametrize("runs", [200, 240, 426])
def test_every_searcher_has_the_budget_the_race_and_the_selection_of_the_others(runs: int) -> None:
    counts = {name: count_runs(search_config(TASK, name, seed=1, runs=runs)) for name in SEARCHERS}
    greedy = {name: count.pop("greedy episodes") for name, count in counts.items()}
    assert set(greedy.values()) == {0, 4}
    first = counts["race, PPO"]
    for name, count in counts.items():
        assert count == first or name == RACE_ALONE
        assert 0.85 * runs <= sum(count.values()) <= runs
    assert counts[RACE_ALONE]["final"] == first["final"]
    assert counts[RACE_ALONE]["learning"] == counts[RACE_ALONE]["selection"] == 0


def row(searcher: str, output: str, seed: int, *losses: float) -> Row:
    return Row("digits", searcher, output, seed, 200, "0: none", math.nan, losses)


ROWS = [
    row("none", "", -1, 0.3, 0.3),
    *(row(RACE_ALONE, "winner", seed, 0.2, 0.2) for seed in range(3)),
    *(row("race, PPO", "winner", seed, 0.2, 0.18 - 0.02 * seed) for seed in range(2)),
]


def test_files_are_read_as_they_were_written() -> None:
    assert to_csv(from_csv(to_csv(ROWS))) == to_csv(ROWS)
    assert [row[:6] for row in from_csv(to_csv(ROWS))] == [row[:6] for row in ROWS]


def test_differences_are_paired_by_search_seed() -> None:
    text = table(ROWS, "digits")
    assert "digits: 3 search seeds" in text
    # One schedule that nobody searched, against three searches.
    assert "| none |  | 200 | 0.3000 | +0.1000 [+0.1000, +0.1000] | 0 of 3 |" in text
    # -0.01 and -0.02: t with one degree of freedom.
    assert f"{interval_of_mean([-0.01, -0.02])} | 2 of 2 |" in text
    assert interval_of_mean([-0.01, -0.02]) == "-0.0150 [-0.0785, +0.0485]"
    assert f"| {RACE_ALONE} | winner | 200 | 0.2000 |  |  |" in text
