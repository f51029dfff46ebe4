"""The configuration of `automix transfer`."""

from typing import Annotated

from pydantic import Field

from automix.config import Config
from automix.experiments.config import ComputeConfig
from automix.training.task import TaskConfig
from envs.config import EnvironmentConfig


class TransferConfig(Config):
    """Compare the ranking of constant operators on a cheap task and on the one that counts."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Names the training seeds."""

    proxy: TaskConfig = Field(default_factory=TaskConfig)
    """What a search would train."""

    target: TaskConfig = Field(default_factory=TaskConfig)
    """What its schedule is for."""

    environment: EnvironmentConfig = Field(default_factory=EnvironmentConfig)
    """The operators; each is held constant at each of its strengths."""

    num_seeds: Annotated[int, Field(ge=2)] = 4
    """Trainings per constant and task."""

    compute: ComputeConfig = Field(default_factory=ComputeConfig)
    """Where trainings run."""
