"""Conventions of Gymnasium that both environments follow: render modes, copies, pickles."""

import copy
from typing import Any, Self, TypeVar

import gymnasium as gym
import torch

from automix.configuration.task import TaskConfig
from automix.data.splits import SearchData

# A step of ours is training, which others call where nothing is recorded: TorchRL's rollouts within
# `torch.no_grad`. That inference mode is off turns gradients on again, too.
with_gradients = torch.inference_mode(mode=False)
ObservationType = TypeVar("ObservationType")
ActionType = TypeVar("ActionType")
# Arguments that make an environment like this one, each kept under its own name.
_ARGUMENTS = ("task", "config", "data", "render_mode")
# What Gymnasium keeps in an environment besides the episode: the generators of the spaces as well.
_KEPT = ("spec", "action_space", "observation_space", "_np_random", "_np_random_seed")


class ResumableEnv(gym.Env[ObservationType, ActionType]):
    """An environment whose copies, pickled ones as well, resume its episode with the same bits.

    A copy has a network of its own and shares the images; a pickle contains them.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 - declared so by Gymnasium
        "render_modes": ["rgb_array"],
        "render_fps": 1,
    }
    task: TaskConfig
    data: SearchData
    # The sequence of episodes, and the number of the one in progress: -1 before the first.
    _seed: int | None
    _episode: int

    def get_state(self) -> Any:
        """Return a copy of the state of the episode in progress."""
        raise NotImplementedError

    def set_state(self, state: Any) -> ObservationType:
        """Resume the episode that `get_state` captured; return its last observation."""
        raise NotImplementedError

    def _check_render_mode(self, render_mode: str | None) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"expected render_mode None or 'rgb_array', got {render_mode!r}")

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is made from: arguments, and the episode in progress if any."""
        return {
            "arguments": {name: vars(self)[name] for name in _ARGUMENTS},
            "kept": {name: vars(self)[name] for name in _KEPT if name in vars(self)},
            "seed": self._seed,
            "episode": self.get_state() if self._episode >= 0 else None,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Build the environment again, and resume its episode."""
        self.__init__(**state["arguments"])  # type: ignore[misc]
        if state["episode"] is not None:
            self.set_state(state["episode"])
        self._seed = state["seed"]
        vars(self).update(state["kept"])

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a copy that shares the images, which nothing changes."""
        memo[id(self.data)] = self.data
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return copied
