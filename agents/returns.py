"""The whole return at the end of an episode, on one scale: what the agent learns from."""

import math
from typing import Any, TypedDict

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn


class ReturnStatistics(TypedDict):
    """Count, mean and sum of squared deviations of all returns so far."""

    count: int
    mean: float
    squares: float


class FinalReturn(VecEnvWrapper):
    """Pays the sum of an episode's rewards at its end, standardised by all returns so far.

    Rewards are gains of a potential, so without discounting the sum is the same and so is the
    best policy. But the gains of the first segments are a hundred times larger than what a
    decision changes about the end, and a critic would have to learn them first. Paid at the end,
    the return varies only by what matters.

    The raw return, its length and its summary stay in ``info["episode"]``.
    """

    def __init__(self, venv: VecEnv) -> None:
        super().__init__(venv)
        self.statistics = ReturnStatistics(count=0, mean=0.0, squares=0.0)
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, dtype=np.int64)

    def reset(self) -> VecEnvObs:
        """Reset all environments and forget unfinished returns."""
        self._returns[:], self._lengths[:] = 0, 0
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        """Hold rewards back until the end of each episode."""
        observations, rewards, dones, infos = self.venv.step_wait()
        self._returns += rewards
        self._lengths += 1
        paid = np.zeros(self.num_envs, dtype=np.float32)
        ended = [index for index, done in enumerate(dones) if done]
        for index in ended:
            self._take_in(float(self._returns[index]))
        for index in ended:
            paid[index] = self._standardised(float(self._returns[index]))
            infos[index]["episode"] = self._summary(index)
            self._returns[index], self._lengths[index] = 0, 0
        return observations, paid, dones, infos

    def unfinished(self) -> list[tuple[float, int]]:
        """Return the sum of rewards and the length of each episode in progress."""
        return [
            (float(value), int(length))
            for value, length in zip(self._returns, self._lengths, strict=True)
        ]

    def continue_episodes(self, unfinished: list[tuple[float, int]]) -> None:
        """Put back what `unfinished` returned."""
        for index, (value, length) in enumerate(unfinished):
            self._returns[index], self._lengths[index] = value, length

    def _summary(self, index: int) -> dict[str, Any]:
        return {"r": float(self._returns[index]), "l": int(self._lengths[index]), "t": 0.0}

    def _take_in(self, value: float) -> None:
        count = self.statistics["count"] + 1
        delta = value - self.statistics["mean"]
        mean = self.statistics["mean"] + delta / count
        squares = self.statistics["squares"] + delta * (value - mean)
        self.statistics = ReturnStatistics(count=count, mean=mean, squares=squares)

    def _standardised(self, value: float) -> float:
        if self.statistics["count"] < 2:
            return 0.0
        deviation = math.sqrt(self.statistics["squares"] / (self.statistics["count"] - 1))
        return (value - self.statistics["mean"]) / (deviation + 1e-8)
