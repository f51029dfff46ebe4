"""Training runs of a race as episodes that learning starts from."""

import math

import pytest

from automix.experiments.common.training_pool import TrainingJob, TrainingOutcome
from automix.experiments.search.candidates import zero_search_candidates
from automix.experiments.search.halving import Standing, round_job
from automix.experiments.search.learning import race_episodes
from automix.random_streams import Stream
from automix.training.metrics import EvalMetrics
from automix.training.trainer import load_search_data
from tests.experiments.tiny_search import TINY

CANDIDATES = zero_search_candidates(TINY)[:2]
STANDINGS = [
    Standing(candidate=one, losses=losses, rounds=1, to_leader=None, interval=None)
    for one, losses in zip(CANDIDATES, [(0.5, 0.5), (math.inf,)], strict=True)
]


def outcome_of(job: TrainingJob) -> TrainingOutcome:
    diverges = job.schedule == CANDIDATES[1].schedule
    loss = math.nan if diverges else 0.5
    metrics = EvalMetrics(
        nll=loss, calibrated_nll=loss, accuracy=0.5, temperature=1.0, num_images=5
    )
    return TrainingOutcome(metrics={"reward": metrics}, seconds=2.0, diverged=diverges)


def test_every_training_run_of_the_race_is_an_episode() -> None:
    data = load_search_data(TINY.task.data)
    episodes = race_episodes(TINY, data, STANDINGS, outcome_of)
    assert [it.number for it in episodes] == [0, 1, 2]
    schedules = [CANDIDATES[place].schedule for place in (0, 0, 1)]
    assert [it.schedule for it in episodes] == schedules
    seeds = [
        round_job(CANDIDATES[place], index, "reward", Stream.RACE, seed=TINY.seed).seed
        for place, index in ((0, 0), (0, 1), (1, 0))
    ]
    assert [it.training_seed for it in episodes] == seeds
    # A run that diverged is worth as much as guessing.
    chance = -math.log(data.num_classes)
    assert [it.potential for it in episodes] == pytest.approx([-0.5, -0.5, chance])
    assert all(it.observations == () for it in episodes)


def test_a_race_that_does_not_know_the_reward_teaches_nothing() -> None:
    environment = TINY.environment.model_copy(update={"potential": "gradient_similarity"})
    config = TINY.model_copy(update={"environment": environment})
    assert race_episodes(config, load_search_data(TINY.task.data), STANDINGS, outcome_of) == []
