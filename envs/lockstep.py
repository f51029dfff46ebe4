"""Environments in this process whose classifiers are trained in lock-step."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from automix.training.lockstep import LockstepTrainers
from envs.mixing_env import MixingEnv


class LockstepVecEnv(DummyVecEnv):
    """Steps all environments at once: one forward and one backward pass for all classifiers.

    What an environment measures after a segment is measured one environment after the other.
    """

    def __init__(self, makers: Sequence[Callable[[], MixingEnv]]) -> None:
        """Make the environments; they share a task."""
        super().__init__(list(makers))
        self._trainers: LockstepTrainers | None = None

    def step_wait(self) -> VecEnvStepReturn:
        """Train the next segment of every environment, and reset those whose episode is over."""
        environments = self._environments()
        if self._trainers is None:
            self._trainers = LockstepTrainers(
                [env.trainer for env in environments], image_shape=environments[0].data.image_shape
            )
        plans = [
            env.plan_segment(action) for env, action in zip(environments, self.actions, strict=True)
        ]
        metrics = self._trainers.train(plans)
        for index, (decision, _) in enumerate(plans):
            observation, reward, terminated, _, info = environments[index].finish_segment(
                decision, metrics[index]
            )
            info["TimeLimit.truncated"] = False
            self.buf_rews[index], self.buf_dones[index] = reward, terminated
            if terminated:
                info["terminal_observation"] = observation
                observation, self.reset_infos[index] = environments[index].reset()
            self.buf_infos[index] = info
            self._save_obs(index, observation)
        return (
            self._obs_from_buf(),
            np.copy(self.buf_rews),
            np.copy(self.buf_dones),
            copy.deepcopy(self.buf_infos),
        )

    def _environments(self) -> list[MixingEnv]:
        found: list[Any] = [env.unwrapped for env in self.envs]
        return found
