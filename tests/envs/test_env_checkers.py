"""The registered environments pass the checkers of Gymnasium and Stable-Baselines3."""

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as check_with_gymnasium
from stable_baselines3.common.env_checker import check_env as check_with_stable_baselines3

import envs
from envs.mixing_env import MixingEnv

SMOKE = "AutoMix/MixSchedule-Smoke-v0"
DEFAULT = "AutoMix/MixSchedule-v0"


def test_gymnasium_has_no_complaint() -> None:
    env = gym.make(SMOKE, render_mode="rgb_array").unwrapped
    assert env.spec is not None
    assert not env.spec.nondeterministic  # the checker tests determinism only then
    check_with_gymnasium(env)


def test_stable_baselines3_has_no_complaint() -> None:
    check_with_stable_baselines3(gym.make(SMOKE, render_mode="rgb_array").unwrapped)


def test_the_module_prefix_finds_the_environment_and_renders() -> None:
    env = gym.make(f"{envs.__name__}:{SMOKE}", render_mode="rgb_array")
    env.reset(seed=0)
    env.step(env.action_space.sample())
    picture = env.render()
    assert isinstance(picture, np.ndarray)
    assert picture.dtype == np.uint8
    assert picture.shape[2:] == (3,)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 2


def test_the_default_environment_is_the_digits() -> None:
    env = gym.make(DEFAULT).unwrapped
    assert isinstance(env, MixingEnv)
    assert env.task.data.source == "digits"
    assert env.data.num_classes == 10
    assert env.spec is not None
    assert env.spec.id == DEFAULT


def test_keyword_arguments_reach_the_environment() -> None:
    env = gym.make(SMOKE, seed=3)
    _, info = env.reset()
    _, expected = MixingEnv(env.unwrapped.task, env.unwrapped.config, seed=3).reset()  # type: ignore[attr-defined]
    assert info == expected


def test_an_unknown_render_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="expected render_mode None or 'rgb_array', got 'human'"):
        MixingEnv(render_mode="human")


@pytest.mark.parametrize(
    ("module", "absent"),
    [("envs", "torch"), ("envs.config", "torch"), ("envs.mixing_env", "matplotlib")],
)
def test_importing_a_module_leaves_heavy_libraries_alone(module: str, absent: str) -> None:
    code = f"import sys, {module}; sys.exit({absent!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
