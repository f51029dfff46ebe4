"""Configuration that replay shares with other commands. Free of torch, envs and agents."""

from pathlib import Path
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


class RunFlags(Config):
    """Flags of commands that write a run folder."""

    output: Path | None = None
    """Folder of the run; by default one in runs/ that is named after the configuration. An
    interrupted run in it is resumed, a finished one is left alone."""

    dry_run: bool = False
    """Print what would be trained and about how long it would take, and stop."""


class ReplayFlags(RunFlags):
    """Flags of `automix replay`."""

    policy: Path | None = None
    """Instead of a schedule: the folder of a search, whose policy then decides before every segment
    by what it observes of this training run. The reward split that it observes is not trained on.
    Its decisions are written to schedule.json."""

    resume: Path | None = None
    """Instead of everything else: the folder of an interrupted replay, which is resumed bit for
    bit, on as many processes as it was started with."""
