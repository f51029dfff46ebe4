"""The configuration of `automix probe`."""

from typing import Annotated

from pydantic import Field

from automix.experiments.config import SearchConfig


class ProbeConfig(SearchConfig):
    """Find out whether a search can pay: a few constants and random schedules, a few seeds.

    Takes the configuration of the search that it is about.
    """

    num_seeds: Annotated[int, Field(ge=2)] = 6
    """Trainings per constant operator; training number i has the same seed for each."""

    every_strength: bool = False
    """Train every operator at each of its strengths instead of the middle one."""

    random_schedules: Annotated[int, Field(ge=2)] = 24
    """Trainings with random schedules, a new one each: where a search begins."""
