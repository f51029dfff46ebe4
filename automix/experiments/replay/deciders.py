"""Sources of decisions for a replay: the interface, and a schedule as the plainest of them."""

import dataclasses
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Protocol

from automix.configuration.task import TaskConfig
from automix.data.splits import SearchData
from automix.errors import CheckpointError
from automix.experiments.common.kept_files import keep
from automix.mixture import Mixture
from automix.operator_info import Operator
from automix.schedule import Schedule
from automix.training.metrics import TrainMetrics
from automix.training.trainer import ClassifierTrainer

SCHEDULE_NAME = "schedule.json"
POLICY_NAME, ENVIRONMENT_NAME = "policy", "environment.yaml"


class Decider(ABC):
    """Decides how the steps of one training run are mixed; by default without a state."""

    @property
    @abstractmethod
    def schedule(self) -> Schedule:
        """The schedule of all decisions, complete at the end of the training run."""

    @abstractmethod
    def decide(self, trainer: ClassifierTrainer, *, limit: int) -> tuple[Mixture, int]:
        """Return the mixture for the next step, and the step before which it ends or ``limit``."""

    def take_in(self, metrics: TrainMetrics) -> None:  # noqa: B027 - a schedule ignores it
        """Observe a stretch: the steps up to a logged one or to another decision."""

    def state_dict(self) -> dict[str, Any]:
        """Return plain values from which `load_state_dict` resumes."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 - as above
        """Resume from a state."""


class ReplaySource(Protocol):
    """A schedule or policy to follow."""

    @property
    def identity(self) -> dict[str, str]:
        """A hash of it, under the name of its kind."""

    @property
    def operators(self) -> tuple[Operator, ...]:
        """Operators that it may choose."""

    def claim(self, run: Path) -> None:
        """Write a copy into the folder of a run, unless that run follows another one."""

    def decider(self, task: TaskConfig, data: SearchData, *, num_steps: int) -> Decider:
        """Return the decider of a training run of ``num_steps`` steps that has not begun."""


@dataclasses.dataclass(frozen=True, slots=True)
class ScheduleSource(Decider):
    """A schedule, which is its own decider: it depends on nothing but the step."""

    schedule: Schedule

    @classmethod
    def of_run(cls, run: Path) -> "ScheduleSource":
        """Read the schedule that a replay in ``run`` follows; refuse any other folder."""
        if not (run / SCHEDULE_NAME).exists():
            content = "one without a schedule and a policy" if run.is_dir() else "nothing there"
            raise CheckpointError(f"{run}: expected the folder of a replay, got {content}")
        return cls(Schedule.load(run / SCHEDULE_NAME))

    @property
    def identity(self) -> dict[str, str]:
        """The hash of its decisions."""
        return {"schedule": self.schedule.decision_hash()}

    @property
    def operators(self) -> tuple[Operator, ...]:
        """Operators of its segments."""
        return self.schedule.operators

    def claim(self, run: Path) -> None:
        """Write `schedule.json`.

        Raises:
            CheckpointError: there is one with other decisions, or a policy.
        """
        path = run / SCHEDULE_NAME
        is_other = path.exists() and ScheduleSource(Schedule.load(path)).identity != self.identity
        if is_other or (run / POLICY_NAME).exists():
            raise CheckpointError(f"{run}: expected a run of this schedule, got another's")
        keep(run, SCHEDULE_NAME, self.schedule.to_json().encode())

    def decider(self, task: TaskConfig, data: SearchData, *, num_steps: int) -> Decider:
        """Return itself."""
        return self

    def decide(self, trainer: ClassifierTrainer, *, limit: int) -> tuple[Mixture, int]:
        """Return the mixture at this fraction of the training run, and how long it holds."""
        stop = self.schedule.holds_until(trainer.step, limit=limit, num_steps=trainer.total_steps)
        return self.schedule.mixture_at(trainer.progress), stop


def follows_policy(run: Path) -> bool:
    """Return whether the replay in ``run`` follows a policy, for `PolicySource.load`."""
    return (run / POLICY_NAME / ENVIRONMENT_NAME).exists()
