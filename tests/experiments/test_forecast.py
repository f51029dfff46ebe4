"""The forecast of a probe, against searches simulated on known effects with the agent's own fit."""

import math

import numpy as np
import pytest

from agents.additive import fit_additive
from automix.experiments.forecast import MOST_EPISODES, Forecast, SearchPlan, forecast_episodes
from automix.schedule import Decision, Schedule
from automix.schedule_builders import constant_schedule, even_schedule
from automix.vocabulary import Operator

S = 6
CHOICES = (
    Decision(operator=Operator.NONE),
    Decision(operator=Operator.MIXUP, strength=0.2),
    Decision(operator=Operator.MIXUP, strength=2.0),
    Decision(operator=Operator.CUTMIX, strength=0.2),
    Decision(operator=Operator.CUTMIX, strength=2.0),
)
PLAN = SearchPlan(
    choices=CHOICES, constants=CHOICES, num_segments=S, num_seeds=40, episodes_per_rollout=16
)
NOISE = 0.02


class World:
    """Known effects of (S, D) decisions; constants have ``penalty`` less of value."""

    def __init__(self, size: float, *, seed: int, penalty: float = 0.0) -> None:
        """Draw effects: half of the variance of a mix is its operator's; segments resemble."""
        self.generator = np.random.default_rng(seed)
        none, mixup, cutmix, *own = self.generator.standard_normal((7, S))
        half = math.sqrt(0.5)
        rows = [none, *(half * (mixup + each) for each in own[:2])]
        rows += [half * (cutmix + each) for each in own[2:]]
        effects = np.stack(rows, axis=1)
        for segment in range(1, S):
            effects[segment] = 0.3 * effects[segment - 1] + math.sqrt(0.91) * effects[segment]
        self.effects = size * effects
        self.penalty = penalty

    def value(self, schedule: Schedule) -> float:
        taken = [CHOICES.index(schedule.at(segment / S)) for segment in range(S)]
        less = self.penalty if len(set(taken)) == 1 else 0.0
        return float(self.effects[np.arange(S), taken].sum()) - less

    def loss(self, schedule: Schedule) -> float:
        return -self.value(schedule) + NOISE * float(self.generator.standard_normal())

    def random(self) -> Schedule:
        return even_schedule([CHOICES[each] for each in self.generator.integers(5, size=S)])

    def forecast(self, *, num_random: int = 40, num_seeds: int = 8) -> Forecast:
        schedules = [constant_schedule(each) for each in CHOICES for _ in range(num_seeds)]
        schedules += [self.random() for _ in range(num_random)]
        return forecast_episodes(schedules, list(map(self.loss, schedules)), PLAN, seed=0)

    def needed(self) -> float:
        """Return after how many episodes the mean of 6 searches leads as is asked for."""
        best = max(self.value(constant_schedule(each)) for each in CHOICES)
        wanted = best + 2 * NOISE * math.sqrt(2 / PLAN.num_seeds)
        for count in (16, 32, 48, 64, 96, 128, 192, 256, 384):
            if np.mean([self._searched(count) for _ in range(6)]) >= wanted:
                return count
        return math.inf

    def _searched(self, count: int) -> float:
        schedules = [self.random() for _ in range(count)]
        values = [-self.loss(each) for each in schedules]
        return self.value(fit_additive(schedules, values, CHOICES, num_segments=S).best_schedule())


def test_the_forecast_is_what_searches_with_the_agents_fit_need() -> None:
    """In the median over worlds; in a single one a probe says too little."""
    worlds = [World(0.012, seed=seed) for seed in range(7)]
    forecasts = [world.forecast() for world in worlds]
    needs = [world.needed() for world in worlds]
    ratios = [
        (forecast.episodes or math.inf) / need
        for forecast, need in zip(forecasts, needs, strict=True)
        if math.isfinite(need)
    ]
    assert len(ratios) >= 4
    assert 0.5 <= np.median(ratios) <= 2
    inside = [
        (forecast.low or math.inf) <= need <= (forecast.high or math.inf)
        for forecast, need in zip(forecasts, needs, strict=True)
    ]
    assert np.mean(inside) >= 0.7


def test_noise_takes_more_episodes_than_effects() -> None:
    large = [World(0.02, seed=seed).forecast().episodes or MOST_EPISODES for seed in range(3)]
    small = [World(0.006, seed=seed).forecast().episodes or MOST_EPISODES for seed in range(3)]
    assert np.mean(np.log(large)) < np.mean(np.log(small))
    assert all(count % 16 == 0 for count in large + small)


def test_where_schedules_do_not_differ_no_search_is_expected_to_pay() -> None:
    """A few trainings may suggest it by chance, but never exclude that it does not."""
    forecasts = [World(0.0, seed=seed).forecast() for seed in range(5)]
    assert sum(forecast.episodes is None for forecast in forecasts) >= 3
    assert all(forecast.high is None for forecast in forecasts)


@pytest.mark.parametrize("seed", range(2))
def test_constants_below_all_others_are_easily_beaten(seed: int) -> None:
    """That variety helps by itself is not taken for an effect of any decision."""
    same = World(0.004, seed=seed).forecast()
    below = World(0.004, seed=seed, penalty=0.05).forecast()
    assert below.episodes == 16
    assert same.episodes is None or same.episodes > 16


def test_the_same_trainings_give_the_same_forecast() -> None:
    assert World(0.01, seed=3).forecast() == World(0.01, seed=3).forecast()
