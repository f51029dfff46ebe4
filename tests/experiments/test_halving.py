"""Successive halving: who is trained how often, and who wins."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automix.experiments.common.training_pool import TrainingJob, TrainingOutcome
from automix.experiments.config import SelectionConfig
from automix.experiments.search.halving import Candidate, Standing, doubling_rounds, halve
from automix.operator_info import Operator
from automix.random_streams import Stream
from automix.schedule import Decision, constant_schedule
from automix.training.metrics import EvalMetrics


def candidate(number: int, *, is_constant: bool = False, is_proposal: bool = False) -> Candidate:
    decision = Decision(operator=Operator.MIXUP, probability=number / 1000)
    return Candidate(
        name=f"candidate {number}",
        schedule=constant_schedule(decision),
        origin="constant" if is_constant else "learned",
        is_proposal=is_proposal,
    )


class FakeRuns:
    """Pretends to train: losses are drawn from a mean per candidate and a seed."""

    def __init__(self, means: Sequence[float], *, noise: float, salt: int = 0) -> None:
        self._means, self._noise, self._salt = means, noise, salt
        self.jobs: list[TrainingJob] = []
        self.rounds: list[int] = []

    def __call__(self, jobs: Sequence[TrainingJob]) -> list[TrainingOutcome]:
        self.jobs += jobs
        self.rounds.append(len(jobs))
        return [self._outcome(job) for job in jobs]

    def _outcome(self, job: TrainingJob) -> TrainingOutcome:
        number = round(job.schedule.segments[0].decision.probability * 1000)
        draw = np.random.default_rng((job.seed, number, self._salt)).standard_normal()
        loss = self._means[number] + self._noise * float(draw)
        metrics = EvalMetrics(
            nll=loss, calibrated_nll=loss, accuracy=0.5, temperature=1.0, num_images=10
        )
        return TrainingOutcome(
            metrics={"selection": metrics}, seconds=1.0, diverged=math.isnan(loss)
        )


MEANS = st.lists(st.floats(0.1, 1), min_size=1, max_size=20)
CONFIGS = st.builds(
    SelectionConfig,
    learned_candidates=st.just(1),
    first_seeds=st.integers(1, 3),
    rounds=st.integers(1, 4),
)


def select(
    candidates: Sequence[Candidate], config: SelectionConfig, fake: FakeRuns
) -> list[Standing]:
    rounds = doubling_rounds(
        len(candidates), first_seeds=config.first_seeds, num_rounds=config.rounds
    )
    return halve(candidates, rounds, split="selection", stream=Stream.SELECTION, seed=7, run=fake)


def planned_runs(config: SelectionConfig, *, num_candidates: int) -> int:
    rounds = doubling_rounds(
        num_candidates, first_seeds=config.first_seeds, num_rounds=config.rounds
    )
    return sum(one.num_runs for one in rounds)


def run(
    means: Sequence[float], constants: int, config: SelectionConfig, *, noise: float = 0.3
) -> tuple[list[Standing], FakeRuns]:
    fake_runs = FakeRuns(means, noise=noise)
    candidates = [candidate(number, is_constant=number < constants) for number in range(len(means))]
    return select(candidates, config, fake_runs), fake_runs


@settings(max_examples=20)
@given(MEANS, st.integers(0, 20), CONFIGS)
def test_the_winner_is_never_worse_than_the_best_constant_of_the_final(
    means: list[float], constants: int, config: SelectionConfig
) -> None:
    standings, fake_runs = run(means, constants, config)
    final = [standing for standing in standings if standing.rounds == config.rounds]
    assert standings[: len(final)] == final
    assert [standing.mean for standing in final] == sorted(standing.mean for standing in final)
    # All of the final were trained with the same seeds.
    assert len({len(standing.losses) for standing in final}) == 1
    assert len(fake_runs.jobs) == planned_runs(config, num_candidates=len(means))
    if constants:
        kept = [standing for standing in final if standing.candidate.is_constant]
        assert kept
        assert standings[0].mean <= min(standing.mean for standing in kept)


@settings(max_examples=20)
@given(MEANS, CONFIGS)
def test_the_best_constant_after_every_round_stays(
    means: list[float], config: SelectionConfig
) -> None:
    constants = max(1, len(means) // 2)
    standings, _ = run(means, constants, config)
    num_seeds = 0
    for number in range(1, config.rounds):
        num_seeds += config.first_seeds * 2 ** (number - 1)
        taking_part = [
            standing
            for standing in standings
            if standing.candidate.is_constant and standing.rounds >= number
        ]
        best = min(taking_part, key=lambda standing: float(np.mean(standing.losses[:num_seeds])))
        assert best.rounds > number


@settings(max_examples=20)
@given(MEANS, st.integers(0, 20), CONFIGS)
def test_the_proposal_reaches_the_last_round_beside_the_best_of_the_others(
    means: list[float], constants: int, config: SelectionConfig
) -> None:
    worst = int(np.argmax(means))
    candidates = [
        candidate(number, is_constant=number < constants, is_proposal=number == worst)
        for number in range(len(means))
    ]
    fake_runs = FakeRuns(means, noise=0.0)
    standings = select(candidates, config, fake_runs)
    final = [standing.candidate.name for standing in standings if standing.rounds == config.rounds]
    assert f"candidate {worst}" in final
    assert f"candidate {int(np.argmin(means))}" in final
    assert len(fake_runs.jobs) == planned_runs(config, num_candidates=len(means))


@pytest.mark.parametrize(
    ("num_candidates", "expected"),
    [
        (24, [24 * 2, 12 * 4, 6 * 8, 3 * 16]),
        (5, [10, 12, 24, 48]),
        (2, [4, 8, 16, 32]),
        (1, [2, 4, 8, 16]),
    ],
)
def test_halves_leave_and_seeds_double(num_candidates: int, expected: list[int]) -> None:
    config = SelectionConfig(first_seeds=2, rounds=4)
    _, fake_runs = run([0.5] * num_candidates, 1, config)
    assert fake_runs.rounds == expected
    assert planned_runs(config, num_candidates=num_candidates) == sum(expected)


def test_seeds_are_shared_within_a_round_and_fresh_in_the_next() -> None:
    _, fake_runs = run([0.5] * 4, 1, SelectionConfig(first_seeds=2, rounds=2))
    first, second = fake_runs.jobs[: 4 * 2], fake_runs.jobs[4 * 2 :]
    seeds = [{job.seed for job in jobs} for jobs in (first, second)]
    assert [len(of_round) for of_round in seeds] == [2, 4]
    assert not seeds[0] & seeds[1]
    assert {job.splits for job in fake_runs.jobs} == {("selection",)}
    for jobs in (first, second):
        pairs = {(job.schedule.decision_hash(), job.seed) for job in jobs}
        assert len(pairs) == len(jobs)


def test_it_is_deterministic() -> None:
    means = list(np.linspace(0.2, 0.4, 12))
    assert run(means, 3, SelectionConfig())[0] == run(means, 3, SelectionConfig())[0]


def test_a_clearly_best_candidate_wins_wherever_it_stands() -> None:
    for position in range(8):
        means = [0.5] * 8
        means[position] = 0.1
        standings, _ = run(means, 4, SelectionConfig(first_seeds=4, rounds=3), noise=0.02)
        assert standings[0].candidate.name == f"candidate {position}"
        assert standings[0].to_leader is None
        for standing in standings[1:]:
            assert standing.to_leader is not None
            assert standing.to_leader.low > 0
        for standing in standings:
            assert standing.interval is not None
            assert standing.interval.low <= standing.mean <= standing.interval.high


def test_diverged_runs_lose() -> None:
    means = [math.nan, 0.3, math.inf, 0.2]
    standings, _ = run(means, 1, SelectionConfig(first_seeds=2, rounds=2), noise=0.0)
    names = [standing.candidate.name for standing in standings[:3]]
    assert names == ["candidate 3", "candidate 1", "candidate 0"]
    assert standings[2].losses == (math.inf,) * 6  # kept as the only constant there is
    assert standings[2].to_leader is standings[2].interval is None


def test_everything_diverging_is_no_error() -> None:
    standings, _ = run([math.nan] * 3, 1, SelectionConfig(first_seeds=2, rounds=2))
    assert all(standing.mean == math.inf for standing in standings)
    assert all(standing.to_leader is None for standing in standings)


def test_a_single_seed_has_no_interval() -> None:
    standings, _ = run([0.3, 0.2], 1, SelectionConfig(first_seeds=1, rounds=1))
    assert [standing.to_leader for standing in standings] == [None, None]
    assert [standing.interval for standing in standings] == [None, None]
