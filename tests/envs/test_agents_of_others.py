"""Agents of other libraries run on our environments: the programs in `examples/rl/`."""

import importlib
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import yaml
from gymnasium.utils.env_checker import check_env

import envs
from agents.config import AgentConfig
from automix.schedule import Schedule
from envs.discrete import DiscreteActions
from tests.envs.test_conventions import plain

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "rl"
SMOKE = "AutoMix/MixSchedule-Smoke-v0"
DISCRETE = "AutoMix/MixSchedule-Discrete-Smoke-v0"
# As short as learning can be: these tests show that the libraries take our environments.
SHORT: dict[str, dict[str, int]] = {
    "random_search": {"num_rounds": 1},
    "stable_baselines3_ppo": {"num_rollouts": 1},
    "single_file_ppo": {"num_rollouts": 1},
    "torchrl_reinforce": {"num_episodes": 2},
    "rl_zoo3_train": {},
    "rllib_ppo": {"num_rollouts": 1},
}
EXTRAS = {"torchrl_reinforce": "torchrl", "rl_zoo3_train": "rl_zoo3", "rllib_ppo": "ray.rllib"}


def main_of(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    if name in EXTRAS:
        reason = f"{EXTRAS[name]} is an extra"
        pytest.importorskip(EXTRAS[name], reason=reason, exc_type=ImportError)
    # Before the folders of tests, one of which holds another module of that name.
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module(f"examples.rl.{name}").main


# Warnings of other libraries about themselves are theirs.
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", SHORT)
def test_an_agent_comes_to_a_schedule(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = main_of(name, monkeypatch)
    monkeypatch.chdir(tmp_path)
    schedule: Schedule = main(**SHORT[name])
    assert len(schedule.segments) == 3
    assert Schedule.from_json(schedule.to_json(), source="an agent") == schedule
    assert not list(tmp_path.iterdir())


def test_each_program_is_short_and_is_tried_here() -> None:
    programs = {path.stem: path for path in FOLDER.glob("*.py")}
    assert programs.keys() - {"__init__", "playing"} == SHORT.keys()
    for path in programs.values():
        assert len(path.read_text().splitlines()) <= 75, path


def test_an_integer_is_an_action() -> None:
    env: Any = gym.make(f"{envs.__name__}:{DISCRETE}")
    multi = gym.make(SMOKE)
    assert env.action_space == gym.spaces.Discrete(12)
    assert isinstance(env, DiscreteActions)
    parts: Any = multi.action_space
    expected = list(np.ndindex(*parts.nvec))
    assert [tuple(env.action(np.int64(it)).tolist()) for it in range(12)] == expected
    for wrapped in (env, multi):
        wrapped.reset(seed=5)
    number = np.int64(7)
    np.testing.assert_array_equal(env.step(number)[0], multi.step(np.array(expected[7]))[0])
    refused: list[Any] = [12, -1, 1.0]
    for action in refused:
        with pytest.raises(ValueError, match=r"expected an action in Discrete\(12\), got"):
            env.step(action)


@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")
def test_the_checker_has_no_complaint_about_integers() -> None:
    check_env(gym.make(DISCRETE), skip_render_check=True)


def test_actions_that_cannot_be_numbered_are_refused() -> None:
    for name, reason in (
        (DISCRETE, r"expected MultiDiscrete actions of one axis, got Discrete\(12\)"),
        ("AutoMix/RLMix-Smoke-v0", "expected at most 2.*31 actions, counted from 0"),
    ):
        with pytest.raises(TypeError, match=reason):
            DiscreteActions(gym.make(name))


@pytest.mark.parametrize("name", [SMOKE, "AutoMix/RLMix-Smoke-v0"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_environments_train_where_nothing_is_recorded(name: str, mode: Any) -> None:
    # As TorchRL's rollouts do, and agents that forget to leave such a block.
    def outcomes() -> list[Any]:
        env: Any = gym.make(name)
        env.reset(seed=1)
        action = env.action_space.sample() * 0
        reward = env.step(action)[1]
        env.unwrapped.set_state(env.unwrapped.get_state())
        return [reward, plain(env.step(action)[0])]

    expected = outcomes()
    with mode():
        assert outcomes() == expected
        assert not torch.is_grad_enabled()


def test_hyperparameters_for_the_zoo_are_those_of_our_agent() -> None:
    # RL Baselines3 Zoo reads this file with `yaml.safe_load`, too.
    settings = yaml.safe_load((ROOT / "configs/agent/rl_zoo3.yml").read_text())
    for name in settings:
        gym.spec(name)
    values, agent = settings["AutoMix/MixSchedule-v0"], AgentConfig()
    segments = gym.make("AutoMix/MixSchedule-v0").unwrapped.config.num_segments  # type: ignore[attr-defined]
    for field in ("n_epochs", "gae_lambda", "clip_range", "ent_coef", "vf_coef"):
        assert values[field] == getattr(agent, field)
    assert values["n_envs"] == agent.num_environments
    assert values["n_timesteps"] == agent.episodes * segments
    assert values["n_envs"] * values["n_steps"] == agent.episodes_per_rollout * segments
    assert values["batch_size"] == values["n_envs"] * values["n_steps"]
    assert values["learning_rate"] == f"lin_{agent.learning_rate}"
    assert values["policy_kwargs"] == f"dict(net_arch={list(agent.hidden_sizes)})"
