"""Configuration that replay shares with other commands. Free of torch, envs and agents."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from automix.configuration.base import Config
from automix.configuration.task import TaskConfig


class ComputeConfig(Config):
    """Processes and threads of training runs. On a CPU, sums are split among the threads."""

    workers: Annotated[int, Field(ge=1, le=1024)] = 2
    """Training runs in parallel, one process each, outside the search. The results do not depend on
    it."""

    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """CPU threads per training run. The last bits of the results depend on it."""


class CheckpointConfig(Config):
    """Checkpoints of a training run.

    One is written at its end, and one when it is interrupted, whatever is set here.
    """

    every_minutes: Annotated[float, Field(gt=0)] | None = 10.0
    """Minutes between checkpoints; null: no checkpoints by time."""

    every_steps: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps between checkpoints; null: no checkpoints by steps."""

    keep: Annotated[int, Field(ge=1)] = 2
    """Number of most recent checkpoints to keep. With 2 or more, a damaged one can be skipped. The
    best one on the selection split is kept in addition."""


class ReplayConfig(Config):
    """Train one classifier with a schedule and evaluate it."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Random seed of the training run: initialization, order of the images, augmentation and
    mixing."""

    task: TaskConfig = Field(default_factory=TaskConfig)
    """Dataset, model and training recipe. Any length, model and dataset will do: a schedule is
    stated in fractions of a training run."""

    validations: Annotated[int, Field(ge=0)] = 10
    """Number of evaluations on the selection split, evenly spaced, the last one at the end of the
    training run. None without a selection split (task.data.selection-size 0)."""

    weights: Literal["last", "best"] = "last"
    """Weights that are exported and evaluated on the test split: the last ones, or the best ones,
    those with the lowest calibrated NLL among the validations."""

    checkpoints: CheckpointConfig = Field(default_factory=CheckpointConfig)
    """Checkpoints during the training run."""

    compute: ComputeConfig = Field(default_factory=ComputeConfig)
    """Threads of the training run."""

    @model_validator(mode="after")
    def _the_best_is_of_some(self) -> Self:
        if self.weights == "best" and not self.validations:
            raise ValueError("expected validations of at least 1 with weights best, got 0")
        return self


class RunFlags(Config):
    """Flags of commands that write a run folder."""

    output: Path | None = None
    """Folder of the run. Default: a folder in runs/ named after the configuration. An interrupted
    run in it is resumed, a finished one is left alone."""

    dry_run: bool = False
    """Print the training runs and the predicted time, and exit."""


class ReplayFlags(RunFlags):
    """Flags of `automix replay`."""

    policy: Path | None = None
    """Instead of a schedule: folder of a search, whose policy then decides before every segment,
    from what it observes of this training run. The reward split that it observes is not trained on.
    Its decisions are written to schedule.json."""

    resume: Path | None = None
    """Instead of everything else: folder of an interrupted replay, which is resumed bit for bit,
    with as many processes as it was started with."""
