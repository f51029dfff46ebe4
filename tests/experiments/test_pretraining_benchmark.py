"""The tables of `benchmarks.pretraining`, from numbers whose answer is known."""

from pathlib import Path

from benchmarks.pretraining import Row, from_csv, report, to_csv
from benchmarks.pretraining_runs import tasks_of


def rows() -> list[Row]:
    noise = [0.01 * (seed % 5) for seed in range(20)]
    offsets = {"none": 0.5, "recommended: x": 0.3, "mixup:1": 0.4, "cutmix:1": 0.45, "policy": 0.2}
    searched = {"with, 64 runs, search 0": 0.3, "without, 64 runs, search 0": 0.35}
    return [
        Row(study, "digits-20-8", name, tuple(offset + one for one in noise))
        for study, values in (("left-out", offsets), ("races", searched))
        for name, offset in values.items()
    ]


def test_differences_are_to_the_best_constant_to_what_ships_and_to_none() -> None:
    text = report(from_csv(to_csv(rows())))
    policy = "| digits-20-8 | policy | 0.2200 | -0.2000 [-0.2000, -0.2000] | "
    assert policy + "-0.1000 [-0.1000, -0.1000] | -0.3000 [-0.3000, -0.3000] |" in text
    assert "| digits-20-8 | mixup:1 | 0.4200 |  | +0.1000" in text
    assert "cutmix" not in text
    assert "| digits-20-8 | 64 | 0.3200 | 0.3700 | -0.0500 [-0.0500, -0.0500] |" in text


def test_tasks_of_a_source_fit_what_a_policy_was_pretrained_on() -> None:
    tasks = dict(tasks_of("digits", None)) | dict(tasks_of("hands", Path("photos")))
    assert len(tasks) == 8
    for task in tasks.values():
        steps = task.task.trainer.total_steps(10 * (task.task.data.labels_per_class or 0))
        assert 120 <= steps <= 200
