"""Several environments at once: in this process, or one process each."""

from collections.abc import Callable
from typing import Literal

import torch
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from automix.data.splits import SearchData
from automix.random_streams import Stream, derived_seed
from automix.training.processes import prepare_worker, start_method
from automix.training.task import TaskConfig
from envs.config import EnvironmentConfig
from envs.mixing_env import MixingEnv

VecEnvKind = Literal["in_process", "subprocess"]


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
        kind: "in_process" runs them one after the other, "subprocess" in a process each,
            which loads the (memory-mapped) data by itself.
        seed: names the sequences of episodes; environment i gets a hash of (seed, i).
        data: splits to use instead of loading those of ``task``; in this process only.
    """
    num_threads = torch.get_num_threads()

    def maker(index: int) -> Callable[[], MixingEnv]:
        env_seed = derived_seed(seed, Stream.EPISODE, rank=index)
        if kind == "in_process":
            return lambda: MixingEnv(task, config, data=data, seed=env_seed)
        return lambda: _make_env_in_worker(task, config, env_seed, num_threads)

    makers = [maker(index) for index in range(num_envs)]
    if kind == "in_process":
        return DummyVecEnv(makers)  # type: ignore[arg-type]
    if data is not None:
        raise ValueError("expected data=None with subprocess environments, got splits")
    return SubprocVecEnv(
        makers,  # type: ignore[arg-type]
        start_method=start_method(task, module=__name__),
    )


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


def _make_env_in_worker(
    task: TaskConfig, config: EnvironmentConfig, seed: int, num_threads: int
) -> MixingEnv:
    prepare_worker(num_threads)
    return MixingEnv(task, config, seed=seed)
