"""Configuration that replay shares with other commands. Free of torch, envs and agents."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from automix.configuration.base import Config
from automix.configuration.task import TaskConfig


class ComputeConfig(Config):
    """Where training runs are computed. On a CPU, threads decide the last bits: they split sums."""

    workers: Annotated[int, Field(ge=1, le=1024)] = 2
    """Processes that train at the same time outside the search, where it does not matter for the
    result."""

    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """CPU threads of each training run."""


class CheckpointConfig(Config):
    """What is kept of a training run while it runs.

    One checkpoint is written at its end, and one when it is stopped, whatever is set here.
    """

    every_minutes: Annotated[float, Field(gt=0)] | None = 10.0
    """Minutes between two checkpoints; null: none by time."""

    every_steps: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps between two checkpoints; null: none by steps."""

    keep: Annotated[int, Field(ge=1)] = 2
    """How many checkpoints are kept, the newest ones. With 2 or more, a damaged one can be passed
    over. The best on the selection split is kept besides."""


class ReplayConfig(Config):
    """Train one classifier with a schedule and evaluate it."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Names the initialization, the order of the images and all draws."""

    task: TaskConfig = Field(default_factory=TaskConfig)
    """What is trained, on which images, and how. Any length, model and dataset will do: a
    schedule counts in shares of a training run."""

    validations: Annotated[int, Field(ge=0)] = 10
    """How often the training is evaluated on the selection split, at equal distances, the last time
    at its end. Without a selection split (task.data.selection-size 0), never."""

    weights: Literal["last", "best"] = "last"
    """Which weights are exported and evaluated on the test split: those at the end of the training,
    or those of the lowest calibrated NLL among the validations."""

    checkpoints: CheckpointConfig = Field(default_factory=CheckpointConfig)
    """What is kept of the training while it runs."""

    compute: ComputeConfig = Field(default_factory=ComputeConfig)
    """Where the training runs."""

    @model_validator(mode="after")
    def _the_best_is_of_some(self) -> Self:
        if self.weights == "best" and not self.validations:
            raise ValueError("expected validations of at least 1 with weights best, got 0")
        return self
