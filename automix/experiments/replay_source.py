"""What a replay follows: a schedule file, or a policy that decides as the training goes."""

import dataclasses
from pathlib import Path
from typing import Protocol

from gymnasium import spaces

from agents.learned import FACTS_NAME, WEIGHTS_NAME, LearnedPolicy
from automix.data.splits import SearchData
from automix.errors import CheckpointError, ConfigError, DataError
from automix.experiments.config import SearchConfig
from automix.experiments.deciders import Decider, ScheduleDecider
from automix.experiments.policy_decider import PolicyDecider
from automix.experiments.runs import CONFIG_NAME
from automix.files import sha256_of, write_bytes, write_text
from automix.schedule import Schedule
from automix.training.task import TaskConfig
from automix.vocabulary import Operator
from envs.actions import ActionCodec
from envs.config import EnvironmentConfig
from envs.observations import ObservationBuilder

SCHEDULE_NAME = "schedule.json"
POLICY_NAME = "policy"
_ENVIRONMENT_NAME = "environment.yaml"


class ReplaySource(Protocol):
    """Names what is followed, keeps a copy of it in the run, and makes a decider of it."""

    @property
    def identity(self) -> dict[str, str]:
        """Return a hash of it, by what it is called."""
        ...

    @property
    def operators(self) -> tuple[Operator, ...]:
        """Operators that it may choose."""
        ...

    def claim(self, run: Path) -> None:
        """Write a copy into the folder of a run, unless that run follows another one."""
        ...

    def decider(self, task: TaskConfig, data: SearchData, *, num_steps: int) -> Decider:
        """Return what decides in a training of ``num_steps`` steps that has not begun."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class ScheduleSource:
    """A schedule, whatever file it came from."""

    schedule: Schedule

    @property
    def identity(self) -> dict[str, str]:
        """Return the hash of its decisions."""
        return {"schedule": self.schedule.decision_hash()}

    @property
    def operators(self) -> tuple[Operator, ...]:
        """Operators of its segments."""
        return tuple(sorted({segment.decision.operator for segment in self.schedule.segments}))

    def claim(self, run: Path) -> None:
        """Write `schedule.json`.

        Raises:
            CheckpointError: there is one of other decisions, or a policy.
        """
        path = run / SCHEDULE_NAME
        is_other = path.exists() and Schedule.load(path).decision_hash() != (
            self.schedule.decision_hash()
        )
        if is_other or (run / POLICY_NAME).exists():
            raise CheckpointError(f"{run}: expected a run of this schedule, got another's")
        self.schedule.save(path)

    def decider(self, task: TaskConfig, data: SearchData, *, num_steps: int) -> ScheduleDecider:
        """Return what follows the schedule."""
        return ScheduleDecider(self.schedule)


@dataclasses.dataclass(frozen=True, slots=True)
class PolicySource:
    """A saved policy and the environment it was learned in.

    Attributes:
        policy: what decides.
        environment: segments, choices and observation it was learned with.
        files: content of the files it was read from, by name.
        where: folder of the policy, for messages.
    """

    policy: LearnedPolicy
    environment: EnvironmentConfig
    files: dict[str, bytes]
    where: Path

    @classmethod
    def load(cls, folder: Path) -> "PolicySource":
        """Read a policy from the folder of a search or of a replay, or the `policy` folder in it.

        Raises:
            CheckpointError: there is none, or it is damaged.
            ConfigError: the configuration of the environment is missing or wrong.
        """
        where = folder if (folder / FACTS_NAME).exists() else folder / POLICY_NAME
        if not (where / FACTS_NAME).exists():
            raise CheckpointError(
                f"{folder}: expected the folder of a search, or of a policy, got one without "
                f"{FACTS_NAME}"
            )
        if (where / _ENVIRONMENT_NAME).exists():
            environment = EnvironmentConfig.from_yaml(where / _ENVIRONMENT_NAME)
        else:
            environment = SearchConfig.from_yaml(where.parent / CONFIG_NAME).environment
        return cls(
            policy=LearnedPolicy.load(where),
            environment=environment,
            files={name: (where / name).read_bytes() for name in (FACTS_NAME, WEIGHTS_NAME)},
            where=where,
        )

    @property
    def identity(self) -> dict[str, str]:
        """Return the hash of its files."""
        environment = self.environment.to_yaml().encode()
        return {"policy": sha256_of(*self.files.values(), environment)[:16]}

    @property
    def operators(self) -> tuple[Operator, ...]:
        """Operators it chooses between."""
        return self.environment.operators

    def claim(self, run: Path) -> None:
        """Write the policy and its environment into the folder `policy`.

        Raises:
            CheckpointError: there is another policy, or the run follows a schedule.
        """
        folder = run / POLICY_NAME
        if (folder / _ENVIRONMENT_NAME).exists():
            if PolicySource.load(folder).identity != self.identity:
                raise CheckpointError(f"{run}: expected a run of this policy, got another's")
            return
        if (run / SCHEDULE_NAME).exists():
            raise CheckpointError(f"{run}: expected a run of this policy, got one of a schedule")
        for name, content in self.files.items():
            write_bytes(folder / name, content)
        # Last, because it says that the others are there.
        write_text(folder / _ENVIRONMENT_NAME, self.environment.to_yaml())

    def decider(self, task: TaskConfig, data: SearchData, *, num_steps: int) -> PolicyDecider:
        """Return what asks the policy at the start of every segment.

        Raises:
            DataError: there is no reward split for it to look at.
            ConfigError: there are more segments than steps.
            CheckpointError: the policy takes other observations or actions than its environment.
        """
        if not len(data.reward):
            raise DataError(
                "task.data.reward_size: expected more than 0, because a policy looks at the "
                "reward split, got 0"
            )
        if num_steps < self.environment.num_segments:
            raise ConfigError(
                f"{self.where}: expected a training of at least {self.environment.num_segments} "
                f"steps, one for each decision of the policy, got {num_steps}"
            )
        observations = ObservationBuilder(self.environment, num_classes=data.num_classes)
        actions = ActionCodec(self.environment)
        network = self.policy.network
        assert isinstance(network.observation_space, spaces.Box)
        assert isinstance(network.action_space, spaces.MultiDiscrete)
        if (network.observation_space, network.action_space) != (observations.space, actions.space):
            raise CheckpointError(
                f"{self.where}: expected a policy of "
                f"{_described(observations.space, actions.space)} within the bounds of its "
                f"environment, got one of "
                f"{_described(network.observation_space, network.action_space)}"
            )
        return PolicyDecider(self.policy, task, self.environment, data, num_steps=num_steps)


def _described(observations: spaces.Box, actions: spaces.MultiDiscrete) -> str:
    choices = " x ".join(map(str, actions.nvec.tolist()))
    return f"{observations.shape[0]} features and {choices} choices"


def source_in(run: Path) -> ReplaySource:
    """Return what the run in a folder follows.

    Raises:
        AutoMixError: it is no folder of a replay, or a file in it is damaged.
    """
    if (run / POLICY_NAME / _ENVIRONMENT_NAME).exists():
        return PolicySource.load(run / POLICY_NAME)
    if (run / SCHEDULE_NAME).exists():
        return ScheduleSource(Schedule.load(run / SCHEDULE_NAME))
    what = "one without a schedule and a policy" if run.is_dir() else "nothing there"
    raise CheckpointError(f"{run}: expected the folder of a replay, got {what}")
