"""The whole return, paid at the end and standardized, in closed form."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

from agents.ppo import FinalReturn


class Scripted(gym.Env[Any, Any]):
    """Pays the rewards of a list, episode after episode, then begins again.

    A list that begins with (g,) resumes a run that had gained g.
    """

    observation_space = spaces.Box(0, 1, shape=(1,))
    action_space = spaces.Discrete(2)

    def __init__(self, episodes: list[list[Any]]) -> None:
        self._episodes, self._number, self._step = episodes, -1, 0

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        self._number, self._step = (self._number + 1) % len(self._episodes), 0
        first = self._episodes[self._number][0]
        gained = {"gain_so_far": first[0]} if isinstance(first, tuple) else {}
        return np.zeros(1, dtype=np.float32), gained

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        script = self._episodes[self._number]
        rewards = [reward for reward in script if isinstance(reward, float)]
        reward, self._step = rewards[self._step], self._step + 1
        return np.ones(1, dtype=np.float32), reward, self._step == len(rewards), False, {}


def start(*scripts: list[list[Any]]) -> FinalReturn:
    """Return what pays the returns of scripted environments that have just been reset."""
    makers = [(lambda script=script: Scripted(script)) for script in scripts]
    env = DummyVecEnv(makers)  # type: ignore[arg-type]
    env.reset()
    returns = FinalReturn(env)
    returns._on_training_start()
    return returns


def play(returns: FinalReturn, steps: int) -> tuple[list[list[float]], list[dict[str, Any]]]:
    """Step as a rollout does; return what is paid at each, and summaries of episodes."""
    rewards, summaries = [], []
    env = returns._env
    for _ in range(steps):
        _, paid, dones, infos = env.step(np.zeros(env.num_envs, dtype=np.int64))
        returns.locals = {"rewards": paid, "dones": dones, "infos": infos}
        assert returns._on_step()
        rewards.append([float(value) for value in paid])
        summaries += [info["episode"] for info in infos if "episode" in info]
    return rewards, summaries


def standardized(value: float, returns: list[float]) -> float:
    return float((value - np.mean(returns)) / np.std(returns, ddof=1))


def test_rewards_are_paid_at_the_end_standardized_by_all_returns_so_far() -> None:
    env = start([[1.0, 2.0], [4.0, 5.0], [0.5, -2.5]])
    rewards, summaries = play(env, 6)
    totals = [3.0, 9.0, -2.0]
    assert [summary["r"] for summary in summaries] == totals
    assert [summary["l"] for summary in summaries] == [2, 2, 2]
    expected = [0.0, standardized(9.0, totals[:2]), standardized(-2.0, totals)]
    assert [paid for (paid,) in rewards[1::2]] == pytest.approx(expected, abs=1e-6)
    assert [paid for (paid,) in rewards[::2]] == [0, 0, 0]
    assert env.statistics["count"] == 3
    assert env.statistics["mean"] == pytest.approx(np.mean(totals))
    assert env.statistics["squares"] == pytest.approx(2 * np.var(totals, ddof=1))


def test_returns_of_one_step_are_all_taken_in_before_any_is_paid() -> None:
    env = start([[1.0]], [[4.0]])
    rewards, _ = play(env, 1)
    expected = [standardized(1.0, [1.0, 4.0]), standardized(4.0, [1.0, 4.0])]
    assert rewards[0] == pytest.approx(expected, abs=1e-6)


def test_equal_returns_are_paid_zero() -> None:
    rewards, _ = play(start([[0.25]]), 4)
    assert rewards == [[0.0]] * 4


def test_episodes_of_different_lengths_are_kept_apart() -> None:
    env = start([[1.0, 1.0, 1.0]], [[5.0], [7.0]])
    _, summaries = play(env, 3)
    assert [(summary["r"], summary["l"]) for summary in summaries] == [
        (5.0, 1),
        (7.0, 1),
        (3.0, 3),
        (5.0, 1),
    ]


def test_unfinished_returns_are_handed_over() -> None:
    script = [[1.0, 2.0, 4.0]]
    first, second = start(script), start(script)
    play(first, 2)
    assert first.unfinished() == [(3.0, 2)]
    play(second, 2)
    second._env.reset()
    second._on_training_start()
    assert second.unfinished() == [(0.0, 0)]
    second.resume_episodes(first.unfinished())
    second.statistics = first.statistics
    _, summaries = play(second, 1)
    assert second.unfinished() == [(4.0, 3)]
    assert not summaries


def test_a_run_that_goes_on_is_paid_its_whole_gain() -> None:
    env = start([[1.0, 2.0], [(5.0,), -1.0], [(0.5,), 1.0, 1.0]])
    rewards, summaries = play(env, 5)
    totals = [3.0, 4.0, 2.5]
    assert [(summary["r"], summary["l"]) for summary in summaries] == [(3.0, 2), (4.0, 1), (2.5, 2)]
    assert rewards[2][0] == pytest.approx(standardized(4.0, totals[:2]), abs=1e-6)
    assert rewards[4][0] == pytest.approx(standardized(2.5, totals), abs=1e-6)


def test_a_first_episode_may_go_on_too() -> None:
    env = start([[(2.0,), 1.0]])
    assert env.unfinished() == [(2.0, 0)]
    _, summaries = play(env, 1)
    assert summaries[0]["r"] == 3.0
