"""Finished training runs are not run again, whatever a crash left in their file."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from automix.experiments.common.run_folder import ProgressBar
from automix.experiments.common.run_logs import Journal
from automix.experiments.common.training_pool import (
    JobGroup,
    TrainingJob,
    TrainingOutcome,
    run_jobs,
)
from automix.operator_info import Operator
from automix.schedule import Decision, constant_schedule
from automix.training.metrics import EvalMetrics

SCHEDULE = constant_schedule(Decision(operator=Operator.MIXUP))
JOBS = [TrainingJob(schedule=SCHEDULE, seed=seed, splits=("selection",)) for seed in range(4)]


class Pool:
    """Trains nothing, counts, and may be interrupted."""

    def __init__(self, *, stop_after: int | None = None) -> None:
        self.seeds: list[int] = []
        self._stop_after = stop_after

    def __call__(self, groups: Sequence[JobGroup]) -> Iterator[list[TrainingOutcome]]:
        for group in groups:
            if len(self.seeds) == self._stop_after:
                raise KeyboardInterrupt
            self.seeds += [job.seed for job in group]
            yield [outcome(job.seed) for job in group]


class Count(ProgressBar):
    """Counts what was run and what was not."""

    def __init__(self) -> None:
        super().__init__("test", 0, is_shown=False)
        self.run = self.skipped = 0

    def advance(self, count: int = 1, *, note: str = "") -> None:
        self.run += count

    def skip(self, count: int) -> None:
        self.skipped += count


def outcome(seed: int) -> TrainingOutcome:
    loss = float("nan") if seed == 2 else seed / 3
    metrics = EvalMetrics(
        nll=loss, calibrated_nll=loss, accuracy=0.5, temperature=1.0, num_images=10
    )
    return TrainingOutcome(metrics={"selection": metrics}, seconds=0.1, diverged=seed == 2)


def run(
    path: Path, jobs: Sequence[TrainingJob], pool: Pool, *, population: int = 1
) -> tuple[list[str], int]:
    """Return what came back, as text because NaN does not equal NaN, and how much was counted."""
    count, before = Count(), len(pool.seeds)
    outcomes = run_jobs(jobs, pool, Journal(path), count, population=population)
    assert count.run == len(pool.seeds) - before
    return list(map(str, outcomes)), count.run + count.skipped


EXPECTED = [str(outcome(job.seed)) for job in JOBS], 4


def test_an_interrupted_command_resumes(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.jsonl"
    first, second, third = Pool(stop_after=2), Pool(), Pool()
    with pytest.raises(KeyboardInterrupt):
        run(path, JOBS, first)
    assert run(path, JOBS, second) == EXPECTED
    assert run(path, JOBS, third) == EXPECTED
    assert (first.seeds, second.seeds, third.seeds) == ([0, 1], [2, 3], [])


def test_a_population_of_which_a_crash_left_a_part_is_trained_as_a_whole(tmp_path: Path) -> None:
    path, whole, second = tmp_path / "outcomes.jsonl", Pool(), Pool()
    assert run(path, JOBS, whole, population=3) == EXPECTED
    # Two groups of two; of the second one only the first line was written.
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    assert run(path, JOBS, second, population=3) == EXPECTED
    assert (whole.seeds, second.seeds) == ([0, 1, 2, 3], [2, 3])
    assert len(path.read_bytes().splitlines()) == 4


def test_order_is_that_of_the_jobs_and_equal_jobs_run_once(tmp_path: Path) -> None:
    path, pool = tmp_path / "outcomes.jsonl", Pool()
    run(path, JOBS[2:3], pool)
    outcomes, count = run(path, [JOBS[3], JOBS[2], JOBS[3], JOBS[0]], pool)
    assert outcomes == [str(outcome(seed)) for seed in (3, 2, 3, 0)]
    assert pool.seeds == [2, 3, 0]
    assert count == 4


def test_split_seed_and_schedule_tell_jobs_apart(tmp_path: Path) -> None:
    other = constant_schedule(Decision(operator=Operator.CUTMIX))
    jobs = [
        JOBS[0],
        TrainingJob(schedule=SCHEDULE, seed=0, splits=("reward",)),
        TrainingJob(schedule=other, seed=0, splits=("selection",)),
        TrainingJob(schedule=SCHEDULE, seed=1, splits=("selection",)),
    ]
    pool = Pool()
    run(tmp_path / "outcomes.jsonl", jobs, pool)
    assert len(pool.seeds) == 4


@pytest.mark.parametrize(
    "tail",
    [
        b"",
        b'{"key": "abc", "met',
        b"\x00\x00\x00\x00",
        b"\xff\xfe\n",
        b"{}\n",
        b"[1]\n",
        b"null\n",
        b'{"key": "a", "metrics": {"nll": 1}, "seconds": 1, "diverged": false}\n',
        b'{"key": "a", "metrics": {"test": {"nll": 1}}, "seconds": 1, "diverged": false}\n',
    ],
)
def test_what_a_crash_left_is_dropped(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "outcomes.jsonl"
    run(path, JOBS[:2], Pool())
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    pool = Pool()
    assert run(path, JOBS, pool) == EXPECTED
    assert pool.seeds == [2, 3]
    lines = path.read_text().splitlines()
    assert len(lines) == 4
    assert all(json.loads(line)["key"] for line in lines)
