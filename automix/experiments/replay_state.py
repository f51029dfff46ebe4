"""What a replay saves, and what makes a saved one fit."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

from torch import Tensor

from automix.checkpoints import CheckpointFolder, read_checkpoint, write_checkpoint
from automix.errors import CheckpointError
from automix.training.metrics import EvalMetrics, SumsState
from automix.training.trainer import TrainerState

CHECKPOINTS_NAME = "checkpoints"
_BEST_NAME = "best.ckpt"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The best validation so far.

    Attributes:
        step: optimiser steps before it.
        metrics: on the selection split.
    """

    step: int
    metrics: EvalMetrics

    def to_plain(self) -> dict[str, Any]:
        """Return nested dicts of numbers."""
        return dataclasses.asdict(self)

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> "Best":
        """Return the validation whose `to_plain` is ``values``."""
        return cls(step=values["step"], metrics=EvalMetrics(**values["metrics"]))


class ReplayState(TypedDict):
    """A checkpoint: tensors and plain values.

    Everything in it but ``seconds`` (wall-clock time of all attempts) is a function of
    configuration, data and step.
    """

    identity: dict[str, str]
    trainer: TrainerState
    sums: SumsState
    applied: list[dict[str, Any]]
    decider: dict[str, Any]
    best: dict[str, Any] | None
    seconds: float
    metrics_lines: int


class ReplayCheckpoints:
    """The newest checkpoints of a replay, and the weights of its best validation."""

    def __init__(self, run: Path, *, keep: int, identity: Mapping[str, str]) -> None:
        """Use the folder of checkpoints in the folder of a run.

        Args:
            run: folder of the run.
            keep: how many checkpoints are kept.
            identity: what must be the same for a checkpoint to be continued, by what it is called.
        """
        self._folder = CheckpointFolder(run / CHECKPOINTS_NAME, keep=keep)
        self.identity = dict(identity)

    def save(self, state: ReplayState) -> None:
        """Write a checkpoint; only then is the oldest one removed.

        Raises:
            OSError: it cannot be written; those before it are as they were.
        """
        self._folder.save(state["trainer"]["step"], {**state})

    def load_newest(self) -> ReplayState | None:
        """Return the newest readable state, or None if there never was one.

        Raises:
            CheckpointError: there are checkpoints, but of something else, or all are damaged.
        """
        state = self._folder.load_newest()
        if state is None:
            return None
        found = state.get("identity", {})
        for name, wanted in self.identity.items():
            if found.get(name) != wanted:
                raise CheckpointError(
                    f"{self._folder.path}: expected checkpoints with {name} {wanted}, got "
                    f"{found.get(name)}; continue what was begun, or begin in another folder"
                )
        return cast("ReplayState", state)

    def save_best(self, step: int, weights: dict[str, Tensor]) -> None:
        """Write the weights of the best validation so far."""
        write_checkpoint(self._folder.path / _BEST_NAME, {"step": step, "weights": weights})

    def load_best(self, step: int) -> dict[str, Tensor]:
        """Return the weights of the best validation, which was after ``step`` optimiser steps.

        Raises:
            CheckpointError: the file that holds them is missing, damaged, or of another validation.
        """
        path = self._folder.path / _BEST_NAME
        state = read_checkpoint(path)
        if state["step"] != step:
            raise CheckpointError(
                f"{path}: expected the weights after step {step}, got those after {state['step']}"
            )
        weights: dict[str, Tensor] = state["weights"]
        return weights
