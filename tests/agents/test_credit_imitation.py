"""Imitation: once, at its fraction of the episodes, the policy learns what the episodes suggest."""

import numpy as np
import pytest
import torch

from agents import credit
from agents.config import AgentConfig
from agents.credit import imitate
from agents.learned import LearnedPolicy, roll_out
from agents.ppo import Episode, train_ppo
from envs.actions import ActionCodec
from envs.config import EnvironmentConfig
from tests.agents import toy as toys
from tests.agents.toy import (
    ENVIRONMENT,
    NUM_SEGMENTS,
    SWITCH,
    ToyEnv,
    best_return,
    toy_vec_env,
    whole_agent,
)

CODEC = ActionCodec(ENVIRONMENT)
# The steps of PPO are too small to learn anything: what the policy can, it has imitated.
IDLE = AgentConfig(episodes=96, num_environments=16, learning_rate=1e-9, warm_start=1.0)


def greedy_return(config: AgentConfig) -> float:
    episodes: list[Episode] = []
    callbacks = whole_agent(config, episodes)
    env = toy_vec_env(SWITCH, noise=0.05, num_envs=config.num_environments)
    model = train_ppo(env, config, num_segments=NUM_SEGMENTS, seed=0, callbacks=callbacks)
    return roll_out(LearnedPolicy(model.policy), ToyEnv(SWITCH, noise=0.0), training_seed=0)[1]


def test_the_policy_does_what_the_episodes_suggest() -> None:
    config = IDLE.model_copy(update={"episodes": 112, "warm_start": 6 / 7})
    assert greedy_return(config) > 0.8 * best_return(SWITCH)


@pytest.mark.parametrize("warm_start", [None, 1.0], ids=["never", "after the last rollout"])
def test_it_does_not_where_it_is_not_asked_to(warm_start: float | None) -> None:
    config = IDLE.model_copy(update={"warm_start": warm_start})
    assert greedy_return(config) < 0.7 * best_return(SWITCH)


def test_episodes_that_begin_late_are_imitated_by_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = ENVIRONMENT.model_dump() | {"snapshot_fraction": 0.5}
    monkeypatch.setattr(toys, "ENVIRONMENT", EnvironmentConfig.model_validate(changed))
    lessons: list[torch.Tensor] = []
    monkeypatch.setattr(credit, "imitate", lambda policy, seen, *rest: lessons.append(seen))
    config = AgentConfig(episodes=96, num_environments=2)
    episodes: list[Episode] = []
    callbacks = whole_agent(config, episodes)
    env = toy_vec_env(SWITCH, noise=0.05, num_envs=config.num_environments)
    train_ppo(env, config, num_segments=NUM_SEGMENTS, seed=0, callbacks=callbacks)
    # Progress is observed: it says which segment each row was seen before.
    assert len(lessons) == 1
    progress = np.round(np.array([row for e in episodes for row in e.observations])[:, 0], 4)
    segments = np.concatenate([episode.observed_segments for episode in episodes])
    np.testing.assert_allclose(progress, segments / NUM_SEGMENTS, atol=1e-3)
    # Some are whole; others begin at a snapshot, or were cut by the end of a rollout.
    starts = {episode.observed_segments.start for episode in episodes}
    assert 0 in starts
    assert len(starts) > 1


def test_probabilities_of_actions_become_those_taught() -> None:
    env = toy_vec_env(SWITCH, noise=0.0, num_envs=2)
    model = train_ppo(
        env,
        IDLE.model_copy(update={"episodes": 2, "episodes_per_rollout": 2, "num_environments": 2}),
        num_segments=NUM_SEGMENTS,
        seed=0,
    )
    observations = torch.rand(3, env.observation_space.shape[0])  # type: ignore[index]
    actions = torch.tensor(np.array([CODEC.encode(choice) for choice in CODEC.decisions()]))
    target = torch.zeros(3, len(actions))
    # Each a product of parts, as the policy is: one action, or two that differ in one part.
    target[0, 7], target[1, 3], target[2, [1, 2]] = 1.0, 1.0, 0.5
    critic = [w.clone() for name, w in model.policy.named_parameters() if "value" in name]
    imitate(model.policy, observations, actions, target)
    distribution = model.policy.get_distribution(observations)
    learned = torch.stack(
        [distribution.log_prob(action.expand(3, -1)) for action in actions], dim=1
    ).exp()
    torch.testing.assert_close(learned, target, atol=0.03, rtol=0)
    after = [w for name, w in model.policy.named_parameters() if "value" in name]
    assert all(torch.equal(*pair) for pair in zip(critic, after, strict=True))
