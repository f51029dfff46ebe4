"""One integer per decision, for agents that know `Discrete` actions alone."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray


class DiscreteActions(
    gym.ActionWrapper[Any, np.int64, NDArray[np.int64]], gym.utils.RecordConstructorArgs
):
    """Number the actions of a `MultiDiscrete` space from 0, the last part counting fastest.

    ``AutoMix/MixSchedule-Discrete-v0`` is the environment in this wrapper: single-file agents such
    as CleanRL's ``ppo.py`` and DQN take nothing else.

    Examples:
        >>> import envs, gymnasium
        >>> env = DiscreteActions(gymnasium.make("AutoMix/MixSchedule-Smoke-v0"))
        >>> env.action_space, env.action(7)
        (Discrete(12), array([1, 1, 1]))
    """

    def __init__(self, env: gym.Env[Any, NDArray[np.int64]]) -> None:
        """Wrap an environment.

        Raises:
            TypeError: its actions are no `MultiDiscrete` of one axis, counted from 0.
        """
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.ActionWrapper.__init__(self, env)
        space = env.action_space
        # As many parts as RL-Mix has images would be more actions than an integer can number.
        if not (isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1):
            raise TypeError(f"expected MultiDiscrete actions of one axis, got {space}")
        if space.start.any() or float(np.prod(space.nvec.astype(float))) > 2**31:
            raise TypeError(f"expected at most 2**31 actions, counted from 0, got {space}")
        self._parts = tuple(int(count) for count in space.nvec)
        self.action_space = spaces.Discrete(int(np.prod(self._parts)))

    def action(self, action: np.int64 | int) -> NDArray[np.int64]:
        """Return the parts of an action.

        Raises:
            ValueError: it is not within `action_space`.
        """
        if not self.action_space.contains(action):
            raise ValueError(f"expected an action in {self.action_space}, got {action!r}")
        return np.array(np.unravel_index(int(action), self._parts), dtype=np.int64)
