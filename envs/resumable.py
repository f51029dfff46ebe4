"""Conventions of Gymnasium that both environments follow: render modes, copies, pickles."""

import copy
import functools
import os
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, Self, TypeVar

import gymnasium as gym
import torch

from automix.configuration.task import TaskConfig
from automix.data.splits import SearchData

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")
ObservationType = TypeVar("ObservationType")
ActionType = TypeVar("ActionType")
# Arguments that make an environment like this one, each kept under its own name.
_ARGUMENTS = ("task", "config", "data", "render_mode")
# What Gymnasium keeps in an environment besides the episode: the generators of the spaces as well.
_KEPT = ("spec", "action_space", "observation_space", "_np_random", "_np_random_seed")


# Set in a process that was forked from one which had imported this.
_FORKED = threading.Event()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_FORKED.set)


def with_gradients(method: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """Let a method train, wherever it is called: without gradients, or in a forked process."""

    @functools.wraps(method)
    def training(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Returned:
        # Threads are not forked: where the parent had used torch's, the first operation on several
        # would wait for them forever (`gymnasium.make_vec` forks on Linux before Python 3.14).
        if _FORKED.is_set():
            torch.set_num_threads(1)
        # TorchRL's rollouts are within `torch.no_grad`. Turning inference mode off turns gradients
        # on as well.
        with torch.inference_mode(mode=False):
            return method(*args, **kwargs)

    return training


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
