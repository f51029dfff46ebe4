"""Learning from a race: a model that knows it, and a policy that begins with it."""

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback

from agents.additive_columns import decision_covariance
from agents.config import AgentConfig
from agents.credit import fit_episodes
from agents.learned import LearnedPolicy, roll_out
from agents.ppo import AgentState, Episode, RolloutCheckpoint, train_ppo
from automix.operator_info import Operator
from automix.schedule import (
    Decision,
    Schedule,
    constant_schedule,
    equal_mixture,
    even_schedule,
    mix_then_off,
    mixture_then_off,
)
from envs.observations import features_of, random_observations
from tests.agents.test_ppo_learns import NOISE
from tests.agents.toy import (
    ENVIRONMENT,
    NUM_SEGMENTS,
    STATIONARY,
    SWITCH,
    Toy,
    ToyEnv,
    best_return,
    race_of_constants,
    toy_vec_env,
    whole_agent,
)
from tests.equality import assert_same

NONE, MIXUP, CUTMIX = (Decision(operator=name) for name in ("none", "mixup", "cutmix"))
BOTH = equal_mixture([MIXUP, CUTMIX])
# One rollout, whose steps are too small to matter: what the policy can, the race has taught it.
IDLE = AgentConfig(episodes=16, learning_rate=1e-9, warm_start=None)


def learned(
    toy: Toy,
    config: AgentConfig,
    *,
    race: list[Episode],
    callbacks: tuple[BaseCallback, ...] = (),
    state: AgentState | None = None,
) -> LearnedPolicy:
    model = train_ppo(
        toy_vec_env(toy, noise=NOISE, num_envs=config.num_environments),
        config,
        num_segments=NUM_SEGMENTS,
        seed=0,
        callbacks=[*callbacks, *whole_agent(config, [], race=race)],
        state=state,
    )
    return LearnedPolicy(model.policy)


def reached(toy: Toy, policy: LearnedPolicy) -> float:
    """Return the fraction of the best return that the greedy policy gains without noise."""
    return roll_out(policy, ToyEnv(toy, noise=0.0), training_seed=0)[1] / best_return(toy)


def episode(schedule: Schedule, potential: float, number: int = 0) -> Episode:
    return Episode(
        number=number,
        schedule=schedule,
        total_reward=0.0,
        potential=potential,
        training_seed=number,
        seconds=0.0,
    )


def test_a_mixture_is_worth_what_its_decisions_are_and_a_deviation_of_its_own() -> None:
    prior = decision_covariance([MIXUP, CUTMIX, BOTH, NONE])
    expected = np.array([[1, 0, 0.5, 0], [0, 1, 0.5, 0], [0.5, 0.5, 1, 0], [0, 0, 0, 1.0]])
    np.testing.assert_allclose(prior, expected)
    # Half of the batches: half of the effect, a quarter of the variance.
    half = Decision(operator=Operator.MIXUP, probability=0.5)
    np.testing.assert_allclose(decision_covariance([MIXUP, half]), [[1, 0.5], [0.5, 0.25]])
    apart = [Decision(operator=Operator.MIXUP, strength=it, probability=0.25) for it in (0.2, 2.0)]
    of_one_operator = decision_covariance([equal_mixture([*apart, *apart])])
    np.testing.assert_allclose(of_one_operator, [[0.25**2]])


def race_with_mixtures(*, best: float) -> list[Episode]:
    """Return a race in which only a mixture that stops is good, and stopping costs nothing."""
    values = [
        (constant_schedule(NONE), 0.0),
        (constant_schedule(MIXUP), 0.0),
        (constant_schedule(CUTMIX), 0.0),
        (mix_then_off(MIXUP), 0.0),
        (mixture_then_off([MIXUP, CUTMIX], off_from=0.75), best),
    ]
    generator = np.random.default_rng(0)
    return [
        episode(schedule, value + float(generator.normal(scale=0.01)), number=index)
        for index in range(4)
        for schedule, value in values
    ]


def test_what_only_the_race_mixes_comes_after_the_choices() -> None:
    fit = fit_episodes((), [NONE, MIXUP, CUTMIX], num_segments=4, race=race_with_mixtures(best=0.2))
    assert [it.label() for it in fit.choices] == ["none", "mixup 1", "cutmix 1", BOTH.label()]
    assert fit.effects.shape == (4, 4)
    # The mixture where it was tried, and each of its decisions gains a little.
    assert fit.best_schedule().mixture_at(0.0) == BOTH
    assert fit.effects[0].argmax() == 3
    assert (fit.effects[0, 1:3] > fit.effects[0, 0]).all()
    # Where it ends inside a segment, that is a mixture with less of it.
    halves = fit_episodes((), [NONE], num_segments=2, race=race_with_mixtures(best=0.2))
    assert "mixup 1 p=0.25 + cutmix 1 p=0.25" in [it.label() for it in halves.choices]


def test_episodes_come_after_the_race_rollout_by_rollout() -> None:
    race = race_with_mixtures(best=0.2)
    later = [episode(even_schedule([MIXUP, NONE]), 0.1 * number, number) for number in range(4)]
    together = fit_episodes(later, [NONE, MIXUP, CUTMIX], num_segments=2, race=race)
    without = fit_episodes((), [NONE, MIXUP, CUTMIX], num_segments=2, race=race)
    assert together.choices == without.choices
    assert not np.array_equal(together.effects, without.effects)


def test_the_policy_begins_with_what_won_the_race_and_keeps_exploring() -> None:
    race = race_of_constants(STATIONARY, noise=NOISE, seed=0)
    policy = learned(STATIONARY, IDLE, race=race)
    assert reached(STATIONARY, policy) > 0.95
    blind = learned(STATIONARY, IDLE.model_copy(update={"race_start": False}), race=race)
    assert reached(STATIONARY, blind) < 0.9
    generator = np.random.default_rng(1)
    states = random_observations(ENVIRONMENT, 0.5, count=20, generator=generator)
    seen = torch.tensor(states, dtype=torch.float32)
    entropies = [it.network.get_distribution(seen).entropy() for it in (policy, blind)]
    assert entropies[0] is not None
    assert entropies[1] is not None
    assert (entropies[0] > 0.3 * entropies[1]).all()


def test_states_are_random_but_for_their_progress() -> None:
    generator = np.random.default_rng(0)
    rows = random_observations(ENVIRONMENT, 0.625, count=50, generator=generator)
    features = features_of(ENVIRONMENT.operators, ENVIRONMENT.observation)
    columns = dict(zip([feature.name for feature in features], rows.T, strict=True))
    assert set(columns["progress"]) == {0.625}
    assert (set(columns["stage_2"]), set(columns["stage_3"])) == ({0.5}, {0.5})
    assert np.ptp(columns["reward_nll"]) > 1
    assert all(
        (feature.low <= columns[feature.name]).all()
        and (columns[feature.name] <= feature.high).all()
        for feature in features
    )


@pytest.mark.parametrize("number", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_learning_from_a_race_resumes_bit_for_bit(number: int) -> None:
    race = race_of_constants(SWITCH, noise=NOISE, seed=0)
    # Without credit, which reads the earlier episodes of a log.
    changed = {"episodes": 32, "learning_rate": 0.01, "credit": False}
    config = IDLE.model_copy(update=changed)
    states: list[AgentState] = []
    whole = learned(SWITCH, config, race=race, callbacks=(RolloutCheckpoint(states.append),))
    again = learned(SWITCH, config, race=race, state=states[number])
    assert_same(whole.network.state_dict(), again.network.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_race_that_misleads_does_not_trap_the_policy(seed: int) -> None:
    """No constant shows that mixing helps first and harms later: the race prefers none."""
    race = race_of_constants(SWITCH, noise=NOISE, seed=seed)
    config = AgentConfig(episodes=320)
    assert reached(SWITCH, learned(SWITCH, config, race=race)) >= 0.95
