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

    An episode that goes on from a snapshot is paid the gain of its whole run, what the run had
    gained before included, so that all returns are on one scale and a state is worth the same
    however it was reached.

    The raw return and its length stay in ``info["episode"]``.
    """

    def __init__(self, venv: VecEnv) -> None:
        super().__init__(venv)
        self.statistics = ReturnStatistics(count=0, mean=0.0, squares=0.0)
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, dtype=np.int64)

    def reset(self) -> VecEnvObs:
        """Reset all environments and forget unfinished returns."""
        observations = self.venv.reset()
        for index in range(self.num_envs):
            self._begin(index)
        return observations

    def step_wait(self) -> VecEnvStepReturn:
        """Hold rewards back until the end of each episode."""
        observations, rewards, dones, infos = self.venv.step_wait()
        self._returns += rewards
        self._lengths += 1
        paid = np.zeros(self.num_envs, dtype=np.float32)
        finished = np.flatnonzero(dones).tolist()
        for index in finished:
            self._take_in(float(self._returns[index]))
        for index in finished:
            paid[index] = self._standardised(float(self._returns[index]))
            infos[index]["episode"] = self._summary(index)
            self._begin(index)
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

    def _begin(self, index: int) -> None:
        """Start from what the run of a new episode had gained before, see `MixingEnv`."""
        self._returns[index] = self.venv.reset_infos[index].get("gain_so_far", 0.0)
        self._lengths[index] = 0

    def _summary(self, index: int) -> dict[str, Any]:
        return {"r": float(self._returns[index]), "l": int(self._lengths[index]), "t": 0.0}

    def _take_in(self, value: float) -> None:
        count = self.statistics["count"] + 1
        delta = value - self.statistics["mean"]
        mean = self.statistics["mean"] + delta / count
        squares = self.statistics["squares"] + delta * (value - mean)
        self.statistics = ReturnStatistics(count=count, mean=mean, squares=squares)

    @property
    def deviation(self) -> float:
        """Standard deviation of all returns so far: one unit of what is paid."""
        if self.statistics["count"] < 2:
            return math.inf
        return math.sqrt(self.statistics["squares"] / (self.statistics["count"] - 1)) + 1e-8

    def _standardised(self, value: float) -> float:
        return (value - self.statistics["mean"]) / self.deviation
