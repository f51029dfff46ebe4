"""Rounds of training runs of a family's tasks: what chooses the actions, and what is kept."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from agents.ppo import Episode
from automix.mixture import Mixture
from automix.random_streams import Stream, derived_seed
from automix.schedule import Schedule
from envs.actions import ActionCodec
from envs.config import EnvironmentConfig

Actor: TypeAlias = Callable[[NDArray[np.float32], int], NDArray[np.int64]]
"""From (N, F) observations and the number of the segment to (N, P) actions."""


def train_round(env: VecEnv, position: int, act: Actor, *, num_segments: int) -> list[Episode]:
    """Return the training runs of one position, in the order of the environments."""
    num_envs = env.num_envs
    state = {"position": position, "is_start": True}
    observations = np.stack(env.env_method("set_state", state))
    seen: list[NDArray[np.float32]] = []
    infos: Sequence[dict[str, Any]] = ()
    for segment in range(num_segments):
        seen.append(observations)
        observations, _, _, infos = env.step(act(observations, segment))  # type: ignore[assignment]
    return [
        Episode.from_info(
            info,
            number=position * num_envs + index,
            total_reward=info["potential"],
            observations=[rows[index] for rows in seen],
        )
        for index, info in enumerate(infos)
    ]


def random_actor(
    environment: EnvironmentConfig, *, num_envs: int, seed: int, position: int
) -> Actor:
    """Return what draws every decision of a round by itself, uniformly among the actions."""
    sizes = ActionCodec(environment).space.nvec
    generator = np.random.default_rng(derived_seed(seed, Stream.POLICY, step=position))
    shape = (environment.num_segments, num_envs, len(sizes))
    actions = generator.integers(sizes, size=shape)
    return lambda _, segment: actions[segment]


def schedule_actor(environment: EnvironmentConfig, schedule: Schedule, *, num_envs: int) -> Actor:
    """Return what follows a schedule, averaged over each segment, whatever is observed.

    Raises:
        ValueError: no action means what the schedule says.
    """
    codec = ActionCodec(environment)
    every = [np.array(action, dtype=np.int64) for action in np.ndindex(*codec.space.nvec)]
    meaning = [Mixture.of(codec.decode(action)) for action in every]
    mixtures = schedule.averaged(environment.starts)
    if unreachable := next((one for one in mixtures if one not in meaning), None):
        raise ValueError(f"expected a mixture that the actions reach, got {unreachable.label()}")
    actions = [every[meaning.index(one)] for one in mixtures]
    return lambda _, segment: np.repeat(actions[segment][None], num_envs, axis=0)
