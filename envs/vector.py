"""Several environments at once: in this process, one process each, or trained in lock-step."""

import logging
import os
from collections.abc import Callable
from typing import Literal

import torch
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from automix.data.placement import holding_device
from automix.data.splits import SearchData
from automix.random_streams import Stream, derived_seed
from automix.training.build import load_search_data, training_device
from automix.training.processes import prepare_worker, start_method
from automix.training.task import TaskConfig
from envs.config import EnvironmentConfig
from envs.lockstep import LockstepVecEnv
from envs.mixing_env import MixingEnv

ChosenKind = Literal["in_process", "subprocess", "lockstep"]
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
    """Return ``num_envs`` environments for Stable-Baselines3, each with a seed of its own.

    Args:
        task: what each episode trains.
        config: segments, choices and reward.
        num_envs: how many trainings run at the same time.
        kind: "in_process" runs them one after the other; "subprocess" in a process each, which
            loads the (memory-mapped) data by itself and computes with as many threads as this
            one; "lockstep" trains all classifiers at once on one device, with other last bits;
            "auto" is what `choose_kind` says, and never processes if there are ``data``.
        seed: names the sequences of episodes; environment i gets a hash of (seed, i).
        data: splits to use instead of loading those of ``task``; not with processes.
    """
    chosen = _chosen(num_envs, has_data=data is not None) if kind == "auto" else kind
    seeds = [derived_seed(seed, Stream.EPISODE, rank=index) for index in range(num_envs)]
    if chosen == "subprocess":
        if data is not None:
            raise ValueError("expected data=None with subprocess environments, got splits")
        return _in_subprocesses(task, config, seeds)
    shared = _on_training_device(task, data or load_search_data(task.data))
    makers = [_maker(task, config, shared, env_seed) for env_seed in seeds]
    if chosen == "lockstep":
        return LockstepVecEnv(makers)
    return DummyVecEnv(makers)  # type: ignore[arg-type]


def choose_kind(num_envs: int) -> tuple[ChosenKind, str]:
    """Return the fastest kind of environments here, and why in a few words.

    Small networks trained at once fill an accelerator; on a CPU each core trains one. The kind is
    part of the result where it is "lockstep": its sums run in another order.
    """
    device, cores = training_device(), len(_usable_cores())
    if num_envs == 1:
        return "in_process", "one environment"
    if device.type != "cpu":
        return "lockstep", f"{num_envs} environments share one {device.type} device"
    if cores > 1:
        return "subprocess", f"{num_envs} environments, {cores} cores, no accelerator"
    return "in_process", f"{num_envs} environments, one core, no accelerator"


def _chosen(num_envs: int, *, has_data: bool) -> ChosenKind:
    kind, reason = choose_kind(num_envs)
    if has_data and kind == "subprocess":
        kind, reason = "in_process", "splits are given"
    _LOG.info("environments: %s (%s)", kind, reason)
    return kind


def stop_vec_env(env: VecEnv) -> None:
    """Close environments at once: worker processes in the middle of a training are ended."""
    base = env.unwrapped
    if isinstance(base, SubprocVecEnv):
        for process in base.processes:
            process.kill()
        for process in base.processes:
            process.join()
        for remote in base.remotes:
            remote.close()
        base.closed = True
    else:
        env.close()


def _usable_cores() -> set[int]:
    """Return the cores that this process may run on, where the system says so."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _on_training_device(task: TaskConfig, data: SearchData) -> SearchData:
    """Return ``data`` where trainings want it, so that they share it."""
    device = holding_device(data.num_bytes, device=training_device(), placement=task.data.placement)
    return data if data.train.device == device else data.to(device)


def _maker(
    task: TaskConfig, config: EnvironmentConfig, data: SearchData, seed: int
) -> Callable[[], MixingEnv]:
    return lambda: MixingEnv(task, config, data=data, seed=seed)


def _in_subprocesses(task: TaskConfig, config: EnvironmentConfig, seeds: list[int]) -> VecEnv:
    num_threads = torch.get_num_threads()

    def maker(seed: int) -> Callable[[], MixingEnv]:
        return lambda: _make_env_in_worker(task, config, seed, num_threads)

    return SubprocVecEnv(
        [maker(seed) for seed in seeds],
        start_method=start_method(task, module=__name__),
    )


def _make_env_in_worker(
    task: TaskConfig, config: EnvironmentConfig, seed: int, num_threads: int
) -> MixingEnv:
    prepare_worker(num_threads)
    return MixingEnv(task, config, seed=seed)
