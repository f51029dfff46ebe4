"""One training run mixed as a policy says: the end of all of these programs."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym

import envs  # noqa: F401 - registers the environments
from automix.schedule import Schedule

ENVIRONMENT = "AutoMix/MixSchedule-Smoke-v0"
"""A few digits for a few steps; ``AutoMix/MixSchedule-v0`` is the search of the documents."""
DISCRETE = "AutoMix/MixSchedule-Discrete-Smoke-v0"
"""The same, with one integer per action."""


def play(act: Callable[[Any], Any], *, name: str = ENVIRONMENT, seed: int = 0) -> Schedule:
    """Return the schedule of a run whose segments are mixed as ``act(observation)`` says.

    Its `Schedule.save` writes what `automix replay` and `ScheduledMix` read.
    """
    env = gym.make(name)
    observation, info = env.reset(seed=seed)
    terminated = False
    while not terminated:
        observation, _, terminated, _, info = env.step(act(observation))
    schedule: Schedule = info["schedule"]
    return schedule


def show(schedule: Schedule) -> None:
    """Print what is mixed in each segment."""
    for segment in schedule.segments:
        print(f"from {segment.start:4.0%} of the run: {segment.mixture.label()}")
