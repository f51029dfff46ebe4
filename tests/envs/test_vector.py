"""Environments side by side: in this process and in worker processes."""

import functools
import logging
import os
import signal
import time
from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest
import torch
import torch._dynamo
import torch._dynamo.utils
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from automix.configuration.task import TaskConfig
from automix.configuration.trainer import TrainerConfig
from automix.data.splits import SearchData
from envs.smoke import SMOKE_ENVIRONMENT, SMOKE_TASK
from envs.vector import (
    JoinedVecEnv,
    PopulationVecEnv,
    VecEnvKind,
    choose_kind,
    make_vec_env,
    stop_vec_env,
)

ACTIONS = [np.array([[1, 1, 0], [2, 0, 1]]), np.array([[0, 0, 0], [1, 0, 1]])]


def make(
    kind: VecEnvKind, *, num_envs: int = 2, seed: int = 3, task: TaskConfig = SMOKE_TASK
) -> VecEnv:
    return make_vec_env(task, SMOKE_ENVIRONMENT, num_envs=num_envs, kind=kind, seed=seed)


@pytest.fixture(scope="module")
def workers() -> Iterator[VecEnv]:
    env = make("subprocess")
    yield env
    stop_vec_env(env)
    env.close()  # closing twice does no harm


def play(env: VecEnv, *, steps: int) -> list[object]:
    log: list[object] = [env.reset().tolist()]  # type: ignore[union-attr]
    for step in range(steps):
        observations, rewards, dones, infos = env.step(ACTIONS[step % 2])
        for info in infos:
            info.pop("seconds", None)
            if "terminal_observation" in info:
                info["terminal_observation"] = info["terminal_observation"].tolist()
        log.append([observations.tolist(), rewards.tolist(), dones.tolist(), list(infos)])  # type: ignore[union-attr]
    return log


def test_workers_and_this_process_give_the_same_numbers(workers: VecEnv) -> None:
    # More than one episode, so that automatic resets are compared, too.
    assert play(workers, steps=5) == play(make("in_process"), steps=5)


def test_states_travel_between_workers_and_this_process(workers: VecEnv) -> None:
    workers.reset()
    workers.step(ACTIONS[0])
    states = workers.env_method("get_state")
    expected = [workers.step(ACTIONS[step])[:3] for step in range(2)]
    here = make("in_process", seed=8)
    here.reset()
    for index, state in enumerate(states):
        here.env_method("set_state", state, indices=index)
    for step in range(2):
        for result, reference in zip(here.step(ACTIONS[step])[:3], expected[step], strict=True):
            np.testing.assert_array_equal(result, reference)


def test_environments_differ_from_each_other_and_with_the_seed() -> None:
    rewards = set()
    for env in (make("in_process", seed=seed) for seed in (1, 2)):
        env.reset()
        rewards.update(env.step(np.zeros((2, 3), dtype=np.int64))[1].tolist())
    assert len(rewards) == 4


def test_splits_are_shared_in_this_process_only(smoke_data: SearchData) -> None:
    env = make_vec_env(
        SMOKE_TASK, SMOKE_ENVIRONMENT, num_envs=2, kind="in_process", seed=0, data=smoke_data
    )
    assert all(data is smoke_data for data in env.get_attr("data"))
    with pytest.raises(ValueError, match="expected data=None with subprocess"):
        make_vec_env(
            SMOKE_TASK, SMOKE_ENVIRONMENT, num_envs=2, kind="subprocess", seed=0, data=smoke_data
        )


def test_stopping_in_the_middle_of_a_training_is_immediate() -> None:
    long = TrainerConfig(epochs=1_000_000, batch_size=10)
    env = make("subprocess", task=SMOKE_TASK.model_copy(update={"trainer": long}))
    assert isinstance(env, JoinedVecEnv)
    env.reset()
    env.step_async(ACTIONS[0])
    time.sleep(0.1)
    # The training run would take hours.
    stop_vec_env(env)
    env.close()


def test_stopping_in_this_process_closes() -> None:
    env = make("in_process", num_envs=1)
    env.reset()
    stop_vec_env(env)


@pytest.mark.parametrize(
    ("device", "cores", "num_envs", "expected"),
    [
        ("cpu", 2, 1, "in_process"),
        ("cpu", 1, 4, "in_process"),
        ("cpu", 2, 4, "subprocess"),
        ("cuda", 8, 4, "in_process"),
        ("cuda", 8, 1, "in_process"),
    ],
)
def test_the_kind_is_chosen_by_what_is_there(
    monkeypatch: pytest.MonkeyPatch, device: str, cores: int, num_envs: int, expected: str
) -> None:
    monkeypatch.setattr("envs.vector.training_device", lambda: torch.device(device))
    monkeypatch.setattr("envs.vector.num_cores", lambda: cores)
    kind, reason = choose_kind(num_envs)
    assert kind == expected
    assert reason


def test_the_choice_is_reported(smoke_data: SearchData, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="envs.vector"):
        env = make_vec_env(
            SMOKE_TASK, SMOKE_ENVIRONMENT, num_envs=1, kind="auto", seed=0, data=smoke_data
        )
    assert isinstance(env, DummyVecEnv)
    messages = [record.message for record in caplog.records if record.name == "envs.vector"]
    assert messages == ["environments: 1, in_process (one group)"]


def test_splits_that_are_given_stay_in_this_process(
    smoke_data: SearchData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("envs.vector.num_cores", lambda: 2)
    monkeypatch.setattr("envs.vector.training_device", lambda: torch.device("cpu"))
    env = make_vec_env(
        SMOKE_TASK, SMOKE_ENVIRONMENT, num_envs=2, kind="auto", seed=0, data=smoke_data
    )
    assert all(data is smoke_data for data in env.get_attr("data"))


def test_compiled_steps_survive_resets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graphs of the first episodes serve all others."""
    # The back end does not matter here, and compiling with the default one takes half a minute.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    trainer = TrainerConfig.model_validate(SMOKE_TASK.trainer.model_dump() | {"compile": True})
    task = SMOKE_TASK.model_copy(update={"trainer": trainer})
    env = make_vec_env(task, SMOKE_ENVIRONMENT, num_envs=1, kind="in_process", seed=0)
    env.reset()

    def graphs_after(num_steps: int, first: int) -> int:
        for step in range(first, first + num_steps):
            env.step(np.array([[step % 3, 1, 0]]))
        return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])

    torch._dynamo.utils.counters.clear()
    after_first = graphs_after(3, 0)
    assert after_first > 0
    assert graphs_after(6, 3) == after_first
    torch._dynamo.reset()


def test_a_population_behaves_as_in_this_process() -> None:
    logs = []
    for population in (1, 2):
        env = make_vec_env(
            SMOKE_TASK,
            SMOKE_ENVIRONMENT,
            num_envs=2,
            kind="in_process",
            seed=3,
            population=population,
        )
        assert isinstance(env, PopulationVecEnv) == (population == 2)
        log = [env.reset()]
        for step in range(5):
            observations, rewards, dones, infos = env.step(np.array([[step % 3, 1, 0], [2, 0, 1]]))
            log += [observations, rewards, dones]
            log += [
                info["terminal_observation"] for info in infos if "terminal_observation" in info
            ]
            assert all("TimeLimit.truncated" in info for info in infos)
        assert [info["training_seed"] for info in env.reset_infos] == [
            trainer.seed for trainer in env.get_attr("trainer")
        ]
        logs.append(log)
    assert len(logs[0]) == len(logs[1])
    for one_by_one, at_once in zip(*logs, strict=True):
        np.testing.assert_allclose(one_by_one, at_once, rtol=2e-3, atol=2e-3)


FOUR = np.array([[1, 1, 1], [2, 0, 1], [0, 0, 0], [2, 1, 1]])


def four(kind: VecEnvKind, *, seed: int, population: int = 2) -> VecEnv:
    env = make_vec_env(
        SMOKE_TASK, SMOKE_ENVIRONMENT, num_envs=4, kind=kind, seed=seed, population=population
    )
    env.reset()
    return env


def test_populations_repeat_and_resume_bit_for_bit_in_any_process() -> None:
    env = four("subprocess", seed=1)
    env.step(FOUR)
    states = env.env_method("get_state")
    expected = [env.step(FOUR)[:3] for _ in range(3)]
    stop_vec_env(env)
    other = four("in_process", seed=2)
    for index, state in enumerate(states):
        other.env_method("set_state", state, indices=index)
    results = [other.step(FOUR)[:3] for _ in range(3)]
    for result, reference in zip(results, expected, strict=True):
        for first, second in zip(result, reference, strict=True):
            np.testing.assert_array_equal(first, second)


def test_joined_environments_are_numbered_one_after_the_other() -> None:
    env = four("in_process", seed=1)
    assert env.num_envs == 4
    seeds = [trainer.seed for trainer in env.get_attr("trainer")]
    assert len(set(seeds)) == 4
    assert [trainer.seed for trainer in env.get_attr("trainer", [3, 0])] == [seeds[3], seeds[0]]
    env.set_attr("render_mode", "rgb_array", indices=2)
    assert env.get_attr("render_mode") == [None, None, "rgb_array", None]
    # Seeds and options for the next reset reach the environments that they are for.
    env.seed(5)
    env.set_options([{}, {}, {"training_seed": 7}, {}])
    env.reset()
    again = [info["training_seed"] for info in env.reset_infos]
    assert again[2] == 7
    env.seed(5)
    env.reset()
    assert [info["training_seed"] for info in env.reset_infos][:2] == again[:2]
    assert env.env_is_wrapped(gymnasium.Wrapper) == [False] * 4


def test_an_error_in_a_worker_is_raised_here() -> None:
    env = make("subprocess")
    env.reset()
    with pytest.raises(ValueError, match="expected"):
        env.step(np.full((2, 3), 99))
    with pytest.raises(RuntimeError, match="pickle"):
        env.get_attr("__dict__")
    stop_vec_env(env)


def workers_of(env: VecEnv) -> list[int]:
    """Return the processes of the parts."""
    assert isinstance(env, JoinedVecEnv)
    for part in env._parts:
        part.start(_process_of)
    return [part.finish() for part in env._parts]


def _process_of(env: VecEnv) -> int:
    return os.getpid()


def test_a_lost_worker_is_replaced_between_two_segments_with_the_same_bits() -> None:
    logs, infos = [], []
    for is_lost in (False, True):
        env = make_vec_env(
            SMOKE_TASK,
            SMOKE_ENVIRONMENT,
            num_envs=4,
            kind="subprocess",
            seed=3,
            population=2,
        )
        assert isinstance(env, JoinedVecEnv)
        env.set_attr("render_mode", "rgb_array", indices=3)
        log = [env.reset()]
        # In the first episode, at its end and in the second one.
        for step in range(5):
            if is_lost and step in (1, 3):
                os.kill(workers_of(env)[step // 2], signal.SIGKILL)
            observations, rewards, dones, _ = env.step(FOUR)
            log += [observations, rewards, dones]
        assert env.get_attr("render_mode") == [None, None, None, "rgb_array"]
        logs.append(log)
        infos.append(env.reset_infos)
        assert len(env.lost) == 2 * is_lost
        stop_vec_env(env)
    for first, second in zip(*logs, strict=True):
        np.testing.assert_array_equal(first, second)
    assert infos[0] == infos[1]
