"""A portfolio by regret on toys with a known answer, and runs that share their beginning."""

import json
from pathlib import Path

import numpy as np
import pytest

from automix.schedule import Schedule
from automix.training.trainer import build_trainer, load_search_data
from benchmarks import recommended
from benchmarks.portfolio import collect, from_csv, report, to_csv
from benchmarks.portfolio_candidates import candidates, constants
from benchmarks.portfolio_choice import choose, leave_one_out, regrets, relative
from benchmarks.portfolio_runs import JOURNAL_NAME, train_sharing
from tests.training.conftest import TASK

# Two specialists, one that is good everywhere, one that is bad everywhere.
LOSSES = np.array([[0.0, 1.0, 1.0], [1.4, 1.0, 0.9], [0.3, 1.2, 1.2], [2.0, 2.0, 2.0]])


def test_a_generalist_comes_first_then_the_specialists() -> None:
    differences = regrets(LOSSES)
    np.testing.assert_allclose(differences[2], [0.3, 0.2, 0.3])
    # Means of the regrets: 0.033, 0.467, 0.267, 1.7; after the first, row 1 wins 0.1 on task 2.
    assert choose(differences, size=10) == [0, 1]
    assert choose(differences, size=1) == [0]


def test_relative_to_the_median_every_task_counts_alike() -> None:
    differences = regrets(np.array([[0.0, 3.0], [1.0, 0.0], [2.0, 6.0]]))
    np.testing.assert_allclose(relative(differences), np.array([[0, 1], [1, 0], [2, 2]]))
    # Where most schedules are the best there is nothing to divide by.
    most_are_best = np.array([[0.0], [0.0], [0.5]])
    np.testing.assert_allclose(relative(most_are_best), most_are_best)


def test_a_left_out_task_does_not_choose() -> None:
    results = leave_one_out(regrets(LOSSES), size=10)
    # Without task 0, row 1 has no regret at all; on task 0 it has 1.4.
    assert (results[0].rows, results[0].first, results[0].best) == ([1], 1.4, 1.4)
    assert results[2].rows == [0]
    assert results[2].first == pytest.approx(0.1)


def test_a_schedule_that_diverges_is_never_first() -> None:
    assert choose(regrets(np.array([[0.0, np.inf], [0.5, 0.5]])), size=2) == [1, 0]


def test_runs_with_a_common_beginning_have_the_bits_of_whole_runs() -> None:
    data = load_search_data(TASK.data)
    trainer = build_trainer(TASK, data, seed=0)
    everything = constants() | candidates()
    names = (
        "mixup 1",
        "none",
        "mixup 1, off from 3/4",
        "cutmix 1 or mixup 1, off from 5/8",
        "cutmix 1 or mixup 1, off from 5/8, mixup 0.2 from 7/8",
    )
    schedules: dict[str, Schedule] = {name: everything[name] for name in names}
    shared: dict[str, float] = {}

    def record(name: str) -> None:
        shared[name] = trainer.evaluate(data.selection).nll

    num_steps = train_sharing(trainer, schedules, seed=3, finished=record)
    assert num_steps < 4 * trainer.total_steps
    for name, schedule in schedules.items():
        trainer.reset(3)
        for _ in trainer.replay(schedule):
            pass
        assert trainer.evaluate(data.selection).nll == shared[name], name


def test_outcomes_go_to_a_file_and_back_without_the_seed_in_progress(tmp_path: Path) -> None:
    names = [*constants(), *candidates()]
    for shift, task in enumerate(("bright", "dark")):
        (tmp_path / task).mkdir()
        lines = [
            {"key": f"{seed}/{name}", "accuracy": 0.5}
            | {"calibrated_nll": round(0.1 * seed + 0.01 * abs(place - 20 * shift), 4)}
            for seed in range(3)
            for place, name in enumerate(names[: 9 if seed == 2 else None])
        ]
        (tmp_path / task / JOURNAL_NAME).write_text("\n".join(map(json.dumps, lines)) + "\n")
    outcomes = from_csv(to_csv(collect(tmp_path)))
    assert list(outcomes) == ["bright", "dark"]
    assert set(outcomes["dark"]) == set(names)
    np.testing.assert_allclose(outcomes["bright"]["none"][1], [0.0, 0.1])
    text = report(outcomes)
    # On one task nothing is better than none, on the other the schedule of place 20 is best.
    assert "bright, 2 seeds; best constant with hindsight: none" in text
    assert f"\n| {names[20]} | 0.0500 | 0.500 |" in text
    assert "Leave one task out" in text


def test_comparisons_of_what_ships_become_a_table(tmp_path: Path) -> None:
    first = next(iter(Schedule.portfolio()))
    losses = {first: [0.2, 0.3], "none": [0.4, 0.5], "mixup 1": [0.3, 0.4], "s64-1": [0.1, 0.2]}
    rows = [
        {"name": name, "accuracy": {"mean": 0.9}, "calibrated_nll": {"values": values}}
        for name, values in losses.items()
    ]
    folder = tmp_path / "digits"
    folder.mkdir()
    result = {"kind": "compare", "splits": {"test": rows}}
    (folder / "result.json").write_text(json.dumps(result))
    outcomes = from_csv(to_csv(recommended.collect(tmp_path)))
    assert "| digits | 2 | 0.2500 | 0.4500 | +0.2000 [+0.2000, +0.2000] | mixup 1 0.3500 | " in (
        recommended.table(outcomes)
    )
    # A search is no constant, however good.
    row = recommended.searched_table(outcomes).splitlines()[-1]
    assert row == (
        "| digits | s64-1 | 2 | 0.1500 | -0.1000 [-0.1000, -0.1000] | -0.2000 [-0.2000, -0.2000] |"
    )
