"""Conventions of other libraries that environments follow: render modes, copies, vectors."""

import copy
import importlib.util
import multiprocessing
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env as check_with_gymnasium
from gymnasium.vector import AsyncVectorEnv
from gymnasium.wrappers import RecordVideo, RenderCollection
from stable_baselines3.common.env_checker import check_env as check_with_stable_baselines3
from stable_baselines3.common.env_util import make_vec_env

import envs
from automix.data.splits import Split
from tests.equality import assert_same

SMOKE = ("AutoMix/MixSchedule-Smoke-v0", "AutoMix/RLMix-Smoke-v0")
ALL = (*SMOKE, "AutoMix/MixSchedule-v0", "AutoMix/RLMix-v0")
Copier = Callable[[Any], Any]
COPIERS: dict[str, Copier] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda env: pickle.loads(pickle.dumps(env)),
}
smoke = pytest.mark.parametrize("name", SMOKE)


def plain(value: Any) -> Any:
    """Return nested values with lists in place of arrays, without times."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key != "seconds"}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.tolist() if isinstance(value, np.ndarray) else value


def play(env: gym.Env[Any, Any], *, count: int) -> list[Any]:
    """Take random steps of the environment's own generator; return all that must repeat."""
    log = []
    for _ in range(count):
        log.append(plain(env.step(env.action_space.sample())))
        if log[-1][2]:
            log.append(plain(env.reset()))
    return log


@pytest.mark.filterwarnings("ignore:.*with render_mode='gif'")
@pytest.mark.parametrize("name", ALL)
def test_every_environment_takes_the_render_modes(name: str) -> None:
    for mode in (None, "rgb_array"):
        env = gym.make(f"{envs.__name__}:{name}", render_mode=mode)
        assert env.render_mode == mode
        assert set(env.metadata["render_modes"]) == {"rgb_array"}
    with pytest.raises(ValueError, match="expected render_mode None or 'rgb_array', got 'gif'"):
        gym.make(name, render_mode="gif", disable_env_checker=True).unwrapped.reset()


@pytest.mark.parametrize("name", [*ALL, "AutoMix/MixSchedule-Discrete-Smoke-v0"])
def test_unknown_keywords_are_type_errors(name: str) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'frame_skip'"):
        gym.make(name, frame_skip=4)


def test_checkers_have_no_complaint_about_pictures() -> None:
    for check in (check_with_gymnasium, check_with_stable_baselines3):
        check(gym.make("AutoMix/RLMix-Smoke-v0", render_mode="rgb_array").unwrapped)


@smoke
def test_pictures_of_an_episode_are_a_film(name: str) -> None:
    env: Any = RenderCollection(gym.make(name, render_mode="rgb_array"))
    env.reset(seed=0)
    for _ in range(3):
        env.step(env.action_space.sample())
    frames = env.render()
    assert frames is not None
    assert len(frames) == 4
    assert len({(frame.shape, frame.dtype) for frame in frames}) == 1
    assert frames[0].dtype == np.uint8
    assert frames[0].shape[2:] == (3,)
    assert not np.array_equal(frames[0], frames[-1])


@smoke
@pytest.mark.skipif(importlib.util.find_spec("moviepy") is None, reason="moviepy is not installed")
def test_an_episode_is_recorded_as_a_video(name: str, tmp_path: Path) -> None:
    env: Any = RecordVideo(gym.make(name, render_mode="rgb_array"), str(tmp_path / "film"))
    env.reset(seed=0)
    for _ in range(2):
        env.step(env.action_space.sample())
    env.close()
    assert list((tmp_path / "film").glob("*.mp4"))


def test_small_images_are_enlarged_and_unmixed_at_first() -> None:
    env = gym.make("AutoMix/RLMix-Smoke-v0", render_mode="rgb_array")
    env.reset(seed=0)
    picture: Any = env.render()
    # Ten digits of 8 x 8 pixels in four columns and three rows, each pixel four wide.
    assert picture.shape == (3 * 34 + 2, 4 * 34 + 2, 3)
    tile = picture[2:34, 2:34, 0]
    assert np.array_equal(tile, tile[::4, ::4].repeat(4, axis=0).repeat(4, axis=1))


@smoke
@pytest.mark.parametrize("copier", COPIERS)
@pytest.mark.parametrize("steps", [None, 0, 2])
def test_a_copy_resumes_with_the_same_bits(name: str, copier: str, steps: int | None) -> None:
    env = gym.make(name)
    env.action_space.seed(3)
    if steps is not None:
        env.reset(seed=1)
        play(env, count=steps)
    copied = COPIERS[copier](env)
    assert copied.spec == env.spec
    if steps is None:
        assert plain(env.reset(seed=2)) == plain(copied.reset(seed=2))
    # Over the end of an episode, and one after the other: they share nothing that changes.
    count = 13 if "RLMix" in name else 4
    expected = play(env, count=count)
    assert play(copied, count=count) == expected
    assert play(copied, count=1) == play(env, count=1)


def test_a_copy_shows_the_same_picture() -> None:
    env = gym.make(SMOKE[1], render_mode="rgb_array")
    env.reset(seed=0)
    play(env, count=1)
    for copier in COPIERS.values():
        np.testing.assert_array_equal(np.asarray(copier(env).render()), np.asarray(env.render()))


def test_a_copy_shares_the_images_and_nothing_else() -> None:
    env: Any = gym.make(SMOKE[0]).unwrapped
    env.reset(seed=0)
    copied = copy.deepcopy(env)
    assert copied.data is env.data
    assert copied.trainer is not env.trainer
    before = copy.deepcopy(env.get_state())
    play(copied, count=3)
    assert_same(env.get_state(), before)


@smoke
@pytest.mark.parametrize("mode", ["sync", pytest.param("async", marks=pytest.mark.slow)])
def test_vectors_of_gymnasium(name: str, mode: str) -> None:
    options = {"context": "spawn"} if mode == "async" else {}
    vector: Any = gym.make_vec(
        f"envs:{name}", num_envs=2, vectorization_mode=mode, vector_kwargs=options
    )
    assert isinstance(vector, AsyncVectorEnv) == (mode == "async")
    observations, _ = vector.reset(seed=[1, 2])
    single = gym.make(name)
    expected, _ = single.reset(seed=2)
    first = {"": observations} if isinstance(observations, np.ndarray) else observations
    for key, values in first.items():
        np.testing.assert_array_equal(values[1], expected[key] if key else expected)
    _, rewards, *_ = vector.step(vector.action_space.sample())
    assert rewards.shape == (2,)
    vector.close()


def train_one_segment(name: str) -> None:
    env = gym.make(f"envs:{name}")
    env.reset(seed=0)
    env.step(env.action_space.sample())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@smoke
def test_a_forked_process_does_not_wait_for_threads_of_its_parent(name: str) -> None:
    # Many threads, and work for them: none of it is there in the child.
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    torch.mm(torch.ones(256, 256), torch.ones(256, 256))
    process = multiprocessing.get_context("fork").Process(target=train_one_segment, args=(name,))
    process.start()
    torch.set_num_threads(before)
    process.join(timeout=120)
    process.kill()
    assert process.exitcode == 0


@smoke
def test_vectors_of_stable_baselines3(name: str) -> None:
    vector = make_vec_env(name, n_envs=2, seed=0)
    vector.reset()
    _, rewards, _, infos = vector.step([vector.action_space.sample()] * 2)  # type: ignore[arg-type]
    assert rewards.shape == (2,)
    assert len(infos) == 2
    vector.close()


def test_labels_from_one_are_refused() -> None:
    data = gym.make(SMOKE[0]).unwrapped.data.train  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="expected labels from 0 to 9, got 1 to 10"):
        Split(images=data.images, labels=data.labels + 1, num_classes=10)
