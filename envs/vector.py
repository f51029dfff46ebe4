"""Vectorized environments: in this process, one process each, or trained as a population."""

import copy
import functools
import logging
import os
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from automix.configuration.task import TaskConfig
from automix.data.load import holding_device
from automix.data.splits import SearchData
from automix.random_streams import Stream, derived_seed
from automix.training.distributed import prepare_worker, start_method
from automix.training.population import Population
from automix.training.trainer import load_search_data, training_device
from envs.config import EnvironmentConfig
from envs.mixing_env import MixingEnv

ChosenKind = Literal["in_process", "subprocess", "population"]
VecEnvKind = Literal["auto"] | ChosenKind
_LOG = logging.getLogger(__name__)


def make_vec_env(
    task: TaskConfig,
    config: EnvironmentConfig,
    *,
    num_envs: int,
    kind: VecEnvKind,
    seed: int,
    data: SearchData | None = None,
) -> VecEnv:
    """Return ``num_envs`` environments for Stable-Baselines3; number i is seeded by (seed, i).

    They use ``data``, or load the splits of ``task``. "auto" is what `choose_kind` says, and never
    "subprocess" where there are ``data``: those processes load theirs.
    """
    if kind == "auto":
        kind, reason = choose_kind(num_envs)
        if kind == "subprocess" and data is not None:
            kind, reason = "in_process", "splits are given"
        _LOG.info("environments: %s (%s)", kind, reason)
    seeds = [derived_seed(seed, Stream.EPISODE, rank=index) for index in range(num_envs)]
    if kind == "subprocess":
        if data is not None:
            raise ValueError("expected data=None with subprocess environments, got splits")
        # Each process maps the data into memory by itself, and computes with as many threads as
        # this one: sums that are split among another number have other bits.
        make = functools.partial(_make_env_in_worker, task, config, torch.get_num_threads())
        return SubprocVecEnv(
            [functools.partial(make, env_seed) for env_seed in seeds],
            start_method=start_method(__name__),
        )
    # One copy of the images, where the training runs want them.
    data = data or load_search_data(task.data)
    device = holding_device(data.num_bytes, device=training_device(), placement=task.data.placement)
    shared = data if data.train.device == device else data.to(device)
    makers = [
        functools.partial(MixingEnv, task, config, data=shared, seed=env_seed) for env_seed in seeds
    ]
    return PopulationVecEnv(makers) if kind == "population" else DummyVecEnv(makers)  # type: ignore[arg-type]


def choose_kind(num_envs: int) -> tuple[ChosenKind, str]:
    """Return the fastest kind of environments here, and why in a few words."""
    # Small networks trained at once fill an accelerator; on a CPU each core trains one. The kind is
    # part of the result where it is "population": its sums run in another order.
    device, cores = training_device(), _num_cores()
    if num_envs == 1:
        return "in_process", "one environment"
    if device.type != "cpu":
        return "population", f"{num_envs} environments share one {device.type} device"
    if cores > 1:
        return "subprocess", f"{num_envs} environments, {cores} cores, no accelerator"
    return "in_process", f"{num_envs} environments, one core, no accelerator"


def _num_cores() -> int:
    # Of this process, where the system says so: a container may hold fewer than the machine.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def stop_vec_env(env: VecEnv) -> None:
    """Close environments at once: worker processes in the middle of a training run are ended."""
    base = env.unwrapped
    if not isinstance(base, SubprocVecEnv):
        env.close()
        return
    # `close` would wait for the segment that each worker trains.
    for process in base.processes:
        process.kill()
    for process in base.processes:
        process.join()
    for remote in base.remotes:
        remote.close()
    base.closed = True


def _make_env_in_worker(
    task: TaskConfig, config: EnvironmentConfig, num_threads: int, seed: int
) -> MixingEnv:
    prepare_worker(num_threads)
    return MixingEnv(task, config, seed=seed)


class PopulationVecEnv(DummyVecEnv):
    """Trains and measures the segments of all environments at once, as one `Population`."""

    def __init__(self, makers: Sequence[Callable[[], MixingEnv]]) -> None:
        super().__init__(list(makers))
        self._population: Population | None = None

    def step_wait(self) -> VecEnvStepReturn:
        """Train the next segment of every environment, and reset those whose episode is over."""
        environments: list[MixingEnv] = [env.unwrapped for env in self.envs]  # type: ignore[misc]
        if self._population is None:
            self._population = Population([env.trainer for env in environments])
        plans = [
            env.plan_segment(action) for env, action in zip(environments, self.actions, strict=True)
        ]
        trained = self._population.train(plans)
        readings = environments[0].measurement.readings(
            self._population,
            train=trained,
            decisions=[decision for decision, _ in plans],
            before=[env.last_reading for env in environments],
        )
        for index, env in enumerate(environments):
            observation, reward, terminated, _, info = env.step(
                self.actions[index], outcome=(trained[index], readings[index])
            )
            # As `DummyVecEnv` does: the last observation goes into the info.
            info["TimeLimit.truncated"] = False
            self.buf_rews[index], self.buf_dones[index] = reward, terminated
            if terminated:
                info["terminal_observation"] = observation
                observation, self.reset_infos[index] = env.reset()
            self.buf_infos[index] = info
            self._save_obs(index, observation)
        return (
            self._obs_from_buf(),
            np.copy(self.buf_rews),
            np.copy(self.buf_dones),
            copy.deepcopy(self.buf_infos),
        )
