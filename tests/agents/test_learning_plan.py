"""Numbers of decisions that are taken, recorded and logged; when learning stops early."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.config import AgentConfig
from agents.ppo import Episode, EpisodeRecorder, ForwardLogs, plan_learning, train_ppo
from automix.errors import ConfigError
from tests.agents.toy import NUM_SEGMENTS, STATIONARY, SWITCH, toy_vec_env

SMALL = AgentConfig(episodes=24, episodes_per_rollout=4, num_environments=2, minibatch_size=16)


@given(st.integers(1, 500), st.integers(1, 20), st.integers(1, 8), st.integers(1, 16))
def test_a_plan_is_whole_rollouts_of_whole_episodes(
    episodes: int, multiple: int, num_environments: int, num_segments: int
) -> None:
    per_rollout = max(2, multiple * num_environments)
    if per_rollout % num_environments:
        per_rollout = 2 * num_environments
    decisions = per_rollout * num_segments
    config = AgentConfig(
        episodes=episodes,
        episodes_per_rollout=per_rollout,
        num_environments=num_environments,
        minibatch_size=decisions,
    )
    plan = plan_learning(config, num_segments=num_segments)
    assert plan.total_episodes == plan.num_rollouts * per_rollout
    assert episodes <= plan.total_episodes < episodes + per_rollout
    assert plan.total_steps == plan.total_episodes * num_segments
    assert plan.steps_per_environment * num_environments == decisions
    assert plan.steps_per_environment % num_segments == 0
    assert plan.minibatch_size == decisions
    whole = config.model_copy(update={"minibatch_size": None})
    assert plan_learning(whole, num_segments=num_segments) == plan


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"episodes_per_rollout": 5},
            r"agent\.episodes_per_rollout: expected a multiple of agent\.num_environments "
            r"\(2\), got 5",
        ),
        (
            {"minibatch_size": 7},
            r"agent\.minibatch_size: expected a divisor of the 32 decisions .*, got 7",
        ),
        ({"minibatch_size": 64}, r"expected a divisor of the 32 decisions .*, got 64"),
    ],
)
def test_numbers_that_do_not_divide_are_refused(fields: dict[str, int], message: str) -> None:
    config = SMALL.model_copy(update=fields)
    with pytest.raises(ConfigError, match=message):
        plan_learning(config, num_segments=NUM_SEGMENTS)
    env = toy_vec_env(SWITCH, noise=0.0, num_envs=2)
    with pytest.raises(ConfigError, match=message):
        train_ppo(env, config, num_segments=NUM_SEGMENTS, seed=0)


def learn(config: AgentConfig, *, patience: int | None, noise: float = 0.05) -> list[Episode]:
    episodes: list[Episode] = []
    seen: list[Episode] = []
    recorder = EpisodeRecorder(
        episodes,
        on_episode=seen.append,
        episodes_per_rollout=config.episodes_per_rollout,
        patience=patience,
    )
    env = toy_vec_env(STATIONARY, noise=noise, num_envs=config.num_environments)
    train_ppo(env, config, num_segments=NUM_SEGMENTS, seed=0, callbacks=[recorder])
    assert seen == episodes
    return episodes


def test_every_episode_is_recorded() -> None:
    episodes = learn(SMALL, patience=None)
    assert [episode.number for episode in episodes] == list(range(24))
    assert len({episode.training_seed for episode in episodes}) == 24
    for episode in episodes:
        assert len(episode.schedule.segments) == NUM_SEGMENTS
        # The loss of the toys begins at 1.
        assert episode.total_reward == pytest.approx(episode.potential + 1)
        assert Episode.from_dict(episode.to_dict()) == episode


def test_learning_stops_after_rollouts_without_a_better_mean() -> None:
    # Steps too small to matter: the means of rollouts are noise, and soon none is the best yet.
    config = SMALL.model_copy(update={"learning_rate": 1e-12, "episodes": 400})
    episodes = learn(config, patience=3)
    means = [
        sum(episode.total_reward for episode in episodes[first : first + 4]) / 4
        for first in range(0, len(episodes), 4)
    ]
    assert len(episodes) < 400
    assert len(episodes) % 4 == 0
    assert means.index(max(means)) == len(means) - 4
    for stop in range(1, len(means)):
        assert stop - 1 - means.index(max(means[:stop])) < 3


def test_without_patience_learning_never_stops_early() -> None:
    assert len(learn(SMALL.model_copy(update={"learning_rate": 1e-12}), patience=None)) == 24


def test_logs_of_every_update_are_forwarded() -> None:
    written: list[tuple[int, dict[str, float]]] = []
    env = toy_vec_env(SWITCH, noise=0.05, num_envs=2)
    logs = ForwardLogs(lambda values, step: written.append((step, values)))
    train_ppo(env, SMALL, num_segments=NUM_SEGMENTS, seed=0, callbacks=[logs])
    assert [step for step, _ in written] == [32 * (index + 1) for index in range(6)]
    for _, values in written:
        assert {"train/loss", "train/entropy_loss", "train/approx_kl"} <= values.keys()
        assert all(math.isfinite(value) for value in values.values())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("episodes", 0),
        ("episodes_per_rollout", 1),
        ("num_environments", 0),
        ("workers", "threads"),
        ("learning_rate", 0),
        ("gae_lambda", 1.5),
        ("clip_range", 0),
        ("ent_coef", -0.1),
        ("hidden_sizes", [0]),
        ("patience", 0),
        ("gamma", 0.99),
    ],
)
def test_impossible_configurations_are_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"here: {field}\S*: expected .*, got "):
        AgentConfig.from_mapping({field: value}, source="here")
