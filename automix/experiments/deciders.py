"""Where the decisions of a replay come from."""

from typing import Any, Protocol

from automix.schedule import Decision, Schedule
from automix.training.metrics import TrainMetrics
from automix.training.trainer import ClassifierTrainer


class Decider(Protocol):
    """Says how the next step of a training is mixed, and how long that holds."""

    def decide(self, trainer: ClassifierTrainer) -> Decision:
        """Return the decision for the next step; asked before every stretch of steps."""
        ...

    def holds_until(self, step: int, *, limit: int, num_steps: int) -> int:
        """Return the first step after ``step`` of another decision, or ``limit`` if that is before.

        Args:
            step: the step that `decide` was asked for.
            limit: a later one, or the number of steps.
            num_steps: of the whole training.
        """
        ...

    def take_in(self, metrics: TrainMetrics) -> None:
        """Learn what came of a stretch: the steps up to a logged one or to another decision."""
        ...

    def schedule(self) -> Schedule:
        """Return the schedule of all decisions, once the training is over."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what it needs to go on, as plain values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        ...


class ScheduleDecider:
    """Follows a schedule file."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule

    def decide(self, trainer: ClassifierTrainer) -> Decision:
        """Return what the schedule says at this share of the training."""
        return self._schedule.at(trainer.progress)

    def holds_until(self, step: int, *, limit: int, num_steps: int) -> int:
        """Return the next step of another decision, at most ``limit``."""
        return self._schedule.holds_until(step, limit=limit, num_steps=num_steps)

    def take_in(self, metrics: TrainMetrics) -> None:
        """Ignore it: a schedule is fixed."""

    def schedule(self) -> Schedule:
        """Return the schedule."""
        return self._schedule

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the step of the training says all."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing."""
