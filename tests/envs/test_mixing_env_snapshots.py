"""Episodes that start from snapshots."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as check_with_gymnasium
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.env_checker import check_env as check_with_stable_baselines3

from agents.config import AgentConfig
from agents.ppo import AgentState, RolloutCheckpoint, train_ppo
from automix.errors import ConfigError
from automix.files import read_checkpoint, write_checkpoint
from envs.config import EnvironmentConfig
from envs.mixing_env import MixingEnv, Snapshots, fresh_run
from envs.smoke import SMOKE_ENVIRONMENT, SMOKE_TASK
from envs.vector import make_vec_env
from tests.envs.conftest import ACTIONS, MakeEnv
from tests.equality import are_same, assert_same

# Half of the episodes start from snapshots.
EXPLORING: dict[str, Any] = {"snapshot_fraction": 0.5, "snapshot_capacity": 3}


def choose(number: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the action of a step, a function of its number."""
    return ACTIONS[(number * 7 + number // 3) % 3]


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key != "seconds"}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def log_of(env: MixingEnv, *, first: int, count: int) -> list[object]:
    """Take steps, with resets where episodes end; return all that must repeat."""
    log: list[object] = []
    for number in range(first, first + count):
        observation, reward, terminated, truncated, info = env.step(choose(number))
        info.pop("seconds", None)
        log.append([observation.tolist(), reward, terminated, truncated, info])
        if terminated:
            observation, info = env.reset()
            log.append([observation.tolist(), info])
    return log


def test_an_episode_goes_on_from_a_snapshot(make_env: MakeEnv) -> None:
    env, other = make_env(seed=1), make_env(seed=2)
    env.reset()
    start = env.step(ACTIONS[0])
    snapshot = env.get_state()
    rest = [env.step(action) for action in ACTIONS[1:]]
    observation, info = other.reset(options={"snapshot": snapshot})
    np.testing.assert_array_equal(observation, start[0])
    assert info == {
        "training_seed": snapshot["training_seed"],
        "start_segment": 1,
        "gain_so_far": start[1],
    }
    again = [other.step(action) for action in ACTIONS[1:]]
    for step, reference in zip(again, rest, strict=True):
        np.testing.assert_array_equal(step[0], reference[0])
        assert step[1:4] == reference[1:4]
    assert again[-1][4]["schedule"] == rest[-1][4]["schedule"]
    total = info["gain_so_far"] + sum(step[1] for step in again)
    assert total == pytest.approx(start[1] + sum(step[1] for step in rest), abs=1e-12)
    assert_same(env.trainer.state_dict(), other.trainer.state_dict())


def test_a_snapshot_is_used_again_and_again(make_env: MakeEnv) -> None:
    env = make_env()
    env.reset()
    env.step(ACTIONS[1])
    snapshot = env.get_state()
    rewards = []
    for _ in range(2):
        env.reset(options={"snapshot": snapshot})
        rewards.append([env.step(action)[1] for action in ACTIONS[1:]])
    assert rewards[0] == rewards[1]
    env.reset(options={"snapshot": snapshot})
    assert env.step(ACTIONS[2])[1] != rewards[0][0]


def test_a_snapshot_before_the_first_decision_names_a_training_run(make_env: MakeEnv) -> None:
    env, other = make_env(seed=1), make_env(seed=2)
    first, _ = env.reset()
    second, info = other.reset(options={"snapshot": env.get_state()})
    np.testing.assert_array_equal(first, second)
    assert info["start_segment"] == 0


def test_snapshots_that_do_not_fit_are_refused(make_env: MakeEnv) -> None:
    env = make_env()
    env.reset()
    env.step(ACTIONS[0])
    inner = env.get_state()
    for action in ACTIONS[1:]:
        env.step(action)
    with pytest.raises(ValueError, match="expected a snapshot between two segments"):
        env.reset(options={"snapshot": env.get_state()})
    with pytest.raises(ValueError, match="expected a snapshot at step 2 after 1 segments, got"):
        make_env(num_segments=6).reset(options={"snapshot": inner})
    with pytest.raises(ValueError, match="expected options among"):
        env.reset(options={"snapshot": inner, "training_seed": 1})
    diverging = make_env(trainer={"learning_rate": 1e30})
    diverging.reset()
    diverging.step(ACTIONS[0])
    with pytest.raises(ValueError, match="expected a snapshot with a finite loss"):
        diverging.reset(options={"snapshot": diverging.get_state()})


def test_some_episodes_start_from_snapshots_and_all_rewards_are_gains(make_env: MakeEnv) -> None:
    env = make_env(**EXPLORING)
    _, info = env.reset()
    starts, totals, number = [info["start_segment"]], [info["gain_so_far"]], 0
    while len(starts) < 16:
        _, reward, terminated, truncated, info = env.step(choose(number))
        number += 1
        totals[-1] += reward
        assert not truncated
        if terminated:
            first = env._potential_of(env._readings[0])
            assert totals[-1] == pytest.approx(info["potential"] - first, abs=1e-12)
            _, info = env.reset()
            starts.append(info["start_segment"])
            totals.append(info["gain_so_far"])
    assert starts[0] == 0
    assert {1, 2} <= set(starts)
    assert 0.25 < np.mean(np.array(starts) > 0) < 0.75
    assert len(env._snapshots.runs) == EXPLORING["snapshot_capacity"]


def test_episodes_that_were_asked_for_are_not_kept(make_env: MakeEnv) -> None:
    env = make_env(**EXPLORING)
    env.reset()
    _, info = env.reset(options={"training_seed": 3})
    assert info["start_segment"] == 0
    assert [env.step(action)[2] for action in ACTIONS] == [False, False, True]
    assert env._snapshots.runs == []
    env.reset()
    for action in ACTIONS:
        env.step(action)
    assert len(env._snapshots.runs) == 1


def test_the_same_seed_gives_the_same_sequence(make_env: MakeEnv) -> None:
    logs = []
    for env in (make_env(seed=5, **EXPLORING), make_env(seed=6, **EXPLORING)):
        env.reset()
        log_of(env, first=3, count=7)  # what was kept before is forgotten
        env.reset(seed=5)
        logs.append(log_of(env, first=0, count=24))
    assert logs[0] == logs[1]


@pytest.mark.parametrize("count", [20, pytest.param(29, marks=pytest.mark.slow), 31])
def test_a_state_carries_snapshots_through_a_file(
    make_env: MakeEnv, tmp_path: Path, count: int
) -> None:
    env, other = make_env(seed=1, **EXPLORING), make_env(seed=2, **EXPLORING)
    env.reset()
    log_of(env, first=0, count=count)
    state = env.get_state()
    assert state["kept"]
    write_checkpoint(tmp_path / "env.bin", {"env": state})
    other.reset()
    log_of(other, first=1, count=5)
    loaded = read_checkpoint(tmp_path / "env.bin")
    other.set_state(loaded["env"])
    assert log_of(other, first=count, count=16) == log_of(env, first=count, count=16)
    assert_same(without_times(env.get_state()), without_times(other.get_state()))


def test_a_state_says_whether_an_episode_begins_and_whether_it_is_over(make_env: MakeEnv) -> None:
    env, other = make_env(), make_env()
    env.reset()
    assert env.get_state()["is_start"]
    env.step(ACTIONS[0])
    snapshot = env.get_state()
    assert not snapshot["is_start"]
    env.reset(options={"snapshot": snapshot})
    assert env.get_state()["is_start"]
    for action in ACTIONS[1:]:
        env.step(action)
    other.set_state(env.get_state())
    with pytest.raises(RuntimeError, match=r"expected reset\(\)"):
        other.step(ACTIONS[0])


def checked_env() -> MixingEnv:
    env = gym.make("AutoMix/MixSchedule-Smoke-v0", **EXPLORING).unwrapped
    assert isinstance(env, MixingEnv)
    return env


def test_the_checkers_have_no_complaint() -> None:
    check_with_gymnasium(checked_env(), skip_render_check=True)
    check_with_stable_baselines3(checked_env(), skip_render_check=True)


@given(st.integers(2, 12), st.integers(0, 2**40), st.integers(0, 10_000))
def test_one_inner_boundary_is_kept_of_each_episode(
    num_segments: int, seed: int, episode: int
) -> None:
    config = EnvironmentConfig(num_segments=num_segments, snapshot_fraction=0.5)
    kept = Snapshots(config)
    for start in range(num_segments):
        due = [
            segment
            for segment in range(start + 1, num_segments + 1)
            if kept.is_due(segment, start=start, seed=seed, episode=episode)
        ]
        assert len(due) == (start < num_segments - 1)
        assert all(start < segment < num_segments for segment in due)


def test_the_oldest_leave_and_shares_are_kept() -> None:
    kept = Snapshots(EnvironmentConfig(snapshot_fraction=0.25, snapshot_capacity=2))
    assert kept.draw(seed=0, episode=0) is None
    for seed in range(5):
        kept.add(fresh_run(seed))
    assert [run["training_seed"] for run in kept.runs] == [3, 4]
    drawn = [kept.draw(seed=0, episode=episode) for episode in range(2000)]
    taken = [run["training_seed"] for run in drawn if run]
    assert len(taken) / 2000 == pytest.approx(0.25, abs=0.04)
    assert np.mean(np.array(taken) == 3) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"snapshot_capacity": 4}, "expected snapshot_capacity 16 without snapshot_fraction"),
        ({"snapshot_fraction": 1.0}, "snapshot_fraction: expected"),
        ({"snapshot_fraction": 0.5, "num_segments": 1}, "expected at least 2 segments"),
    ],
)
def test_options_without_effect_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EnvironmentConfig.from_mapping(fields, source="here")


def learn(states: list[AgentState], *, state: AgentState | None = None) -> dict[str, Any]:
    """Learn for three rollouts, or resume; return the weights of the agent."""
    config = EnvironmentConfig.model_validate(SMOKE_ENVIRONMENT.model_dump() | EXPLORING)
    model = train_ppo(
        make_vec_env(SMOKE_TASK, config, num_envs=2, kind="in_process", seed=2),
        AgentConfig(episodes=24, episodes_per_rollout=8, num_environments=2),
        num_segments=config.num_segments,
        seed=1,
        state=state,
        callbacks=[RolloutCheckpoint(states.append)],
    )
    return dict(model.policy.state_dict())


@pytest.mark.slow
def test_learning_with_snapshots_continues_bit_for_bit(tmp_path: Path) -> None:
    states: list[AgentState] = []
    whole = learn(states)
    assert len(states) == 3
    assert any(env["kept"] for env in states[-1]["environments"])
    write_checkpoint(tmp_path / "agent.bin", {"agent": states[2]})
    loaded = read_checkpoint(tmp_path / "agent.bin")
    assert_same(whole, learn([], state=loaded["agent"]))
    changed = loaded["agent"]
    for env in changed["environments"]:
        env["kept"] = []
    assert not are_same(whole, learn([], state=changed))
