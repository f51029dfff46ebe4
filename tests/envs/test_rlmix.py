"""RL-Mix: the recorded outputs of the published code, and an environment that keeps its word."""

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env as check_with_gymnasium
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as check_with_stable_baselines3
from torch import Tensor
from torch.nn import functional as F

from agents.ppo import isolated_generators
from automix.configuration.task import TaskConfig
from automix.data.splits import SearchData
from automix.errors import ConfigError
from automix.files import read_checkpoint, write_checkpoint
from automix.mixing import StepKey
from automix.operators.rmix import RMixDraws
from automix.training.step import MicroBatch
from envs.rlmix.config import RewardName, RLMixConfig
from envs.rlmix.env import RLMixEnv, SeenBatch, mix
from envs.rlmix.similarity import batch_similarity, gradient_cells, image_similarity
from envs.smoke import SMOKE_TASK
from tests.equality import assert_same, untouched_generators
from tests.saliency.test_gradient_published import network, read

REWARDS: tuple[RewardName, ...] = ("validation_gain", "gradient_similarity", "image_similarity")
BATCH, STEPS = 10, 12


def make(data: SearchData, *, seed: int | None = 0, **fields: object) -> RLMixEnv:
    return RLMixEnv(SMOKE_TASK, RLMixConfig.model_validate(fields), data=data, seed=seed)


def action_of(step: int) -> NDArray[np.int64]:
    return np.random.default_rng(step).integers(10, size=BATCH)


def play(env: RLMixEnv, *, first: int = 0, count: int = STEPS) -> list[Any]:
    return [env.step(action_of(step)) for step in range(first, first + count)]


def test_rewards_are_those_of_the_published_code(shared_folder: Path) -> None:
    arrays = read(shared_folder, "rlmix_reward")
    for a, b, reward in zip(arrays["a"], arrays["b"], arrays["reward"], strict=True):
        torch.testing.assert_close(batch_similarity(a, b), reward.float(), atol=1e-5, rtol=0)


def test_a_step_is_that_of_the_published_code(shared_folder: Path) -> None:
    arrays = read(shared_folder, "rlmix_step_32x32")
    model, images, labels = network(arrays), arrays["x"], arrays["y"]
    cells, logits = gradient_cells(model, images, labels, cells=8)
    targets = F.one_hot(labels, 10).float()
    key = StepKey(seed=0, step=0)
    clean = MicroBatch(images=images, targets=targets, labels=labels, key=key, is_mixed=False)
    for index, action in enumerate(arrays["action"]):
        assert_same_maps(cells, arrays["saliency_clean"][index])
        draws = RMixDraws(
            partner=arrays["perm"][index],
            percentile=torch.zeros(len(images)),
            lam=arrays["w"][index, 0].expand(len(images)),
        )
        grid = int(arrays["grid"][index])
        mixed = mix(
            SeenBatch(clean=clean, cells=cells, logits=logits, draws=draws, grid=grid), action
        )
        torch.testing.assert_close(mixed.images, arrays["x_mixed"][index], atol=1e-5, rtol=0)
        torch.testing.assert_close(mixed.targets, arrays["target"][index], atol=1e-5, rtol=0)
        after, _ = gradient_cells(model, mixed.images, mixed.targets, cells=8)
        assert_same_maps(after, arrays["saliency_mixed"][index])
        reward = batch_similarity(cells, after)
        torch.testing.assert_close(reward, arrays["reward"][index].float(), atol=1e-5, rtol=0)


def assert_same_maps(maps: Tensor, expected: Tensor) -> None:
    """Compare up to one factor for the batch, within 1e-4 of the mean."""
    torch.testing.assert_close(maps / maps.mean(), expected / expected.mean(), atol=1e-4, rtol=0)


def test_one_image_decides_the_published_reward_but_not_the_mean_of_cosines() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(100, 8, 8, generator=generator)
    mixed = torch.rand(100, 8, 8, generator=generator)
    before = float(batch_similarity(clean, mixed)), float(image_similarity(clean, mixed).mean())
    clean[0] = mixed[0] = 1000.0
    after = float(batch_similarity(clean, mixed)), float(image_similarity(clean, mixed).mean())
    assert before[0] < 0.8
    assert after[0] > 0.999
    assert abs(after[1] - before[1]) < 0.01


@pytest.mark.parametrize("layer", [None, "stage2"])
def test_the_reward_of_a_step_is_the_similarity_of_its_two_batches(
    smoke_data: SearchData, layer: str | None
) -> None:
    for name in ("gradient_similarity", "image_similarity"):
        env = make(smoke_data, reward=name, layer=layer)
        env.reset()
        for step in range(3):
            seen = env._seen
            assert seen is not None
            mixed = mix(seen, torch.from_numpy(action_of(step)))
            after, _ = gradient_cells(
                env.trainer.model, mixed.images, mixed.targets, cells=8, layer=layer
            )
            expected = {
                "gradient_similarity": batch_similarity(seen.cells, after),
                "image_similarity": image_similarity(seen.cells, after).mean(),
            }[name]
            _, reward, _, _, _ = env.step(action_of(step))
            assert reward == pytest.approx(float(expected), abs=1e-5)
            assert 0 <= reward <= 1


def test_validation_gains_sum_to_the_gain_of_the_training(smoke_data: SearchData) -> None:
    env = make(smoke_data, validate_every=5)
    env.reset()
    start = -env.trainer.evaluate(smoke_data.reward).calibrated_nll
    steps = play(env)
    rewards = [step[1] for step in steps]
    assert [reward != 0 for reward in rewards] == [step in (5, 10, 12) for step in range(1, 13)]
    end = -env.trainer.evaluate(smoke_data.reward).calibrated_nll
    assert sum(rewards) == pytest.approx(end - start, abs=1e-12)
    assert steps[-1][4]["potential"] == end


@pytest.mark.parametrize("reward", REWARDS)
def test_an_episode_is_one_training_and_every_observation_fits(
    smoke_data: SearchData, reward: RewardName
) -> None:
    env = make(smoke_data, reward=reward)
    first, _ = env.reset()
    steps = play(env)
    assert [step[2] for step in steps] == [False] * (STEPS - 1) + [True]
    assert not any(step[3] for step in steps)
    for observation in [first, *(step[0] for step in steps)]:
        assert env.observation_space.contains(observation)
        maps, logs = (observation[name].reshape(BATCH, -1) for name in ("saliency", "logits"))
        np.testing.assert_allclose(maps.sum(axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(np.exp(logs).sum(axis=1), 1, atol=1e-4)
    assert env.trainer.progress == 1
    assert {"metrics", "potential", "training_seed"} <= steps[-1][4].keys()
    with pytest.raises(RuntimeError, match=r"expected reset\(\)"):
        env.step(action_of(0))


def test_observing_leaves_no_trace_and_no_generator_moves(smoke_data: SearchData) -> None:
    with untouched_generators():
        env = make(smoke_data, reward="gradient_similarity")
        env.reset()
        before = {name: value.clone() for name, value in env.trainer.model.state_dict().items()}
        env._see()
        assert_same(before, env.trainer.model.state_dict())
        play(env, count=2)


def test_draws_can_be_observed(smoke_data: SearchData) -> None:
    env = make(smoke_data, observe_draws=True)
    observation, _ = env.reset()
    assert env.observation_space.contains(observation)
    seen = env._seen
    assert seen is not None
    partner = seen.draws.partner.numpy()
    maps, partners = (
        observation[name].reshape(BATCH, -1) for name in ("saliency", "partner_saliency")
    )
    np.testing.assert_array_equal(partners, maps[partner])
    np.testing.assert_array_equal(observation["lam"], seen.draws.lam.numpy())
    assert observation["grid"].tolist() == [seen.grid]
    grids = set()
    for step in range(STEPS):
        grids.add(env.step(action_of(step))[0]["grid"].item())
    assert grids == {2.0, 4.0}


def test_percentiles_matter(smoke_data: SearchData) -> None:
    rewards = []
    for level in (0, 9):
        env = make(smoke_data, reward="gradient_similarity")
        env.reset()
        rewards.append(env.step(np.full(BATCH, level))[1])
    assert rewards[0] != rewards[1]


def comparable(steps: list[Any]) -> list[Any]:
    return [
        [{name: value.tolist() for name, value in step[0].items()}, *step[1:]] for step in steps
    ]


@pytest.mark.parametrize("reward", REWARDS)
def test_the_same_seed_gives_the_same_episodes(smoke_data: SearchData, reward: RewardName) -> None:
    logs = []
    for seed in (4, 5):
        env = make(smoke_data, seed=seed, reward=reward)
        env.reset(seed=4)
        log = comparable(play(env))
        env.reset()
        logs.append([log, comparable(play(env))])
        assert logs[-1][0] != logs[-1][1]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("reward", REWARDS)
def test_a_state_continues_an_episode_through_a_file(
    smoke_data: SearchData, tmp_path: Path, reward: RewardName
) -> None:
    env, other = make(smoke_data, reward=reward), make(smoke_data, seed=9, reward=reward)
    env.reset()
    last = play(env, count=5)[-1]
    write_checkpoint(tmp_path / "env.bin", {"env": env.get_state()})
    other.reset()
    play(other, count=2)
    loaded = read_checkpoint(tmp_path / "env.bin")
    observation = other.set_state(loaded["env"])
    for name, values in last[0].items():
        np.testing.assert_array_equal(observation[name], values)
    rest = [play(either, first=5, count=STEPS - 5) for either in (env, other)]
    assert comparable(rest[0]) == comparable(rest[1])
    assert env.reset()[1] == other.reset()[1]
    assert_same(env.trainer.state_dict(), other.trainer.state_dict())


def test_a_diverged_training_ends(smoke_data: SearchData) -> None:
    trainer = SMOKE_TASK.trainer.model_copy(update={"learning_rate": 1e30})
    task = SMOKE_TASK.model_copy(update={"trainer": trainer})
    for reward in REWARDS:
        env = RLMixEnv(task, RLMixConfig(reward=reward), data=smoke_data, seed=0)
        env.reset()
        for step in range(STEPS):
            observation, paid, terminated, _, info = env.step(action_of(step))
            assert np.isfinite(paid)
            assert env.observation_space.contains(observation)
            if terminated:
                break
        assert info["diverged"]
        assert info["potential"] == pytest.approx(-np.log(10))


@pytest.mark.parametrize("reward", REWARDS)
def test_the_checkers_have_no_complaint(reward: RewardName) -> None:
    for check in (check_with_gymnasium, check_with_stable_baselines3):
        env = gym.make("AutoMix/RLMix-Smoke-v0", reward=reward).unwrapped
        check(env, skip_render_check=True)


def test_the_default_environment_is_the_digits() -> None:
    env = gym.make("AutoMix/RLMix-v0").unwrapped
    assert isinstance(env, RLMixEnv)
    assert env.task.data.source == "digits"
    assert env.spec is not None
    assert not env.spec.nondeterministic


def test_an_agent_trains_on_it() -> None:
    env = gym.make("AutoMix/RLMix-Smoke-v0", seed=0)
    with isolated_generators():
        model = PPO("MultiInputPolicy", env, n_steps=8, batch_size=8, seed=0, device="cpu")
        before = [parameter.clone() for parameter in model.policy.parameters()]
        model.learn(24)
    assert model.num_timesteps == 24
    after = list(model.policy.parameters())
    assert any((old != new).any() for old, new in zip(before, after, strict=True))
    assert all(parameter.isfinite().all() for parameter in after)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"reward": "accuracy"}, "reward: expected"),
        ({"reward": "image_similarity", "validate_every": 3}, "expected validate_every 20 without"),
        ({"grids": []}, "grids: expected"),
        ({"grids": [4, 2]}, "expected rising grids"),
        ({"grids": [0]}, "expected rising grids"),
        ({"strength": 0}, "strength: expected"),
    ],
)
def test_impossible_configurations_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RLMixConfig.from_mapping(fields, source="here")


@pytest.mark.parametrize(
    ("fields", "trainer", "message"),
    [
        ({"layer": "stage9"}, {}, r"rlmix.layer: expected a module .*stage1.*, got 'stage9'"),
        ({"grids": (2, 9)}, {}, "rlmix.grids: expected at most 8 cells .*, got 9"),
        ({}, {"accumulation": 2}, "task.trainer.accumulation: expected 1 with RL-Mix, got 2"),
        ({"reward": "image_similarity"}, {"compile": True}, "rlmix.layer: expected null with"),
    ],
)
def test_what_the_task_does_not_allow_is_refused(
    smoke_data: SearchData, fields: dict[str, Any], trainer: dict[str, Any], message: str
) -> None:
    updated = SMOKE_TASK.trainer.model_copy(update=trainer)
    task: TaskConfig = SMOKE_TASK.model_copy(update={"trainer": updated})
    with pytest.raises(ConfigError, match=message):
        RLMixEnv(task, RLMixConfig(**fields), data=smoke_data)


def test_bad_actions_and_options_are_refused(smoke_data: SearchData) -> None:
    env = make(smoke_data)
    with pytest.raises(RuntimeError, match=r"expected reset\(\)"):
        env.step(action_of(0))
    with pytest.raises(ValueError, match="expected no options"):
        env.reset(options={"training_seed": 1})
    env.reset()
    for action in (np.full(BATCH, 10), np.zeros(BATCH + 1, dtype=np.int64)):
        with pytest.raises(ValueError, match="expected an action in"):
            env.step(action)


def test_a_seen_batch_is_a_value(smoke_data: SearchData) -> None:
    env = make(smoke_data)
    env.reset()
    with pytest.raises(dataclasses.FrozenInstanceError):
        env._seen.grid = 3  # type: ignore[misc, union-attr]
