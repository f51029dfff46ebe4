"""The recurrent agent: learns, is saved and loaded, continues bit for bit, and names its extra."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO

from agents.callbacks import RolloutCheckpoint
from agents.config import AgentConfig
from agents.learned import LearnedPolicy
from agents.policies import roll_out
from agents.ppo import AgentState, policy_of, train_ppo
from automix.errors import ConfigError
from tests.agents.toy import NUM_SEGMENTS, SWITCH, ToyEnv, best_return, toy_vec_env

CONFIG = AgentConfig(episodes=320, num_environments=16, lstm_size=16, warm_start=None)
SHORT = CONFIG.model_copy(update={"episodes": 64})


def learn(config: AgentConfig, *, state: AgentState | None = None) -> tuple[PPO, list[AgentState]]:
    states: list[AgentState] = []
    env = toy_vec_env(SWITCH, noise=0.05, num_envs=config.num_environments)
    model = train_ppo(
        env,
        config,
        num_segments=NUM_SEGMENTS,
        seed=0,
        state=state,
        callbacks=[RolloutCheckpoint(states.append)],
    )
    return model, states


def weights(model: PPO) -> list[torch.Tensor]:
    return list(model.policy.state_dict().values())


def test_it_learns_and_its_policy_is_a_file(tmp_path: Path) -> None:
    policy = policy_of(learn(CONFIG)[0])
    env = ToyEnv(SWITCH, noise=0.0)
    schedule, gain = roll_out(policy, env, training_seed=0)
    assert gain > 0.8 * best_return(SWITCH)
    policy.save(tmp_path)
    loaded = LearnedPolicy.load(tmp_path)
    # Twice: nothing of the first episode is remembered in the second.
    for _ in range(2):
        assert roll_out(loaded, env, training_seed=0) == (schedule, gain)


def test_it_remembers_within_an_episode() -> None:
    policy = policy_of(learn(SHORT)[0])
    first, second = np.random.default_rng(0).random((2, *policy.network.observation_space.shape))  # type: ignore[misc]
    policy.start_episode()
    policy.act(first.astype(np.float32))
    assert policy._memory is not None
    remembered = [part.copy() for part in policy._memory]
    policy.act(second.astype(np.float32))
    assert not np.array_equal(policy._memory[0], remembered[0])


def test_it_continues_with_the_same_bits() -> None:
    whole, states = learn(SHORT)
    assert len(states[2]["memory"]) == 4
    continued, _ = learn(SHORT, state=states[2])
    assert all(map(torch.equal, weights(continued), weights(whole)))
    elsewhere = states[2] | {"memory": [part + 1 for part in states[2]["memory"]]}
    # Episodes begin at the boundary: what was remembered before does not matter then.
    again, _ = learn(SHORT, state=elsewhere)
    assert all(map(torch.equal, weights(again), weights(whole)))


def test_a_missing_extra_and_an_impossible_choice_are_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigError, match=r"expected warm_start null with lstm_size, got 0\.5"):
        AgentConfig.from_mapping({"lstm_size": 8}, source="test")
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    with pytest.raises(ConfigError, match=r"pip install 'automix\[recurrent\]'"):
        learn(SHORT)
