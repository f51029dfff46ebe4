"""Sources of decisions in a replay: a schedule file or a learned policy."""

import dataclasses
from pathlib import Path
from typing import Any, Protocol

from gymnasium import spaces

from agents.learned import FACTS_NAME, WEIGHTS_NAME, LearnedPolicy, Policy
from automix.configuration.task import TaskConfig
from automix.data.splits import SearchData
from automix.errors import CheckpointError, ConfigError, DataError
from automix.experiments.common.run_folder import CONFIG_NAME
from automix.experiments.config import SearchConfig
from automix.files import sha256_of, write_bytes, write_text
from automix.operator_info import Operator
from automix.schedule import Decision, Schedule, Segment
from automix.training.distributed import on_main
from automix.training.metrics import TrainMetrics
from automix.training.trainer import ClassifierTrainer, segment_steps
from envs.actions import ActionCodec
from envs.config import EnvironmentConfig
from envs.measurement import Measurement, Reading
from envs.observations import ObservationBuilder


class Decider(Protocol):
    """Says how the next step of a training run is mixed, and how long that holds."""

    def decide(self, trainer: ClassifierTrainer) -> Decision:
        """Return the decision for the next step; asked before every stretch of steps."""
        ...

    def holds_until(self, step: int, *, limit: int, num_steps: int) -> int:
        """Return the first step after ``step`` of another decision, or ``limit`` if that is before.

        Args:
            step: the step that `decide` was asked for.
            limit: a later one, or the number of steps.
            num_steps: of the whole training run.
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


class PolicyDecider:
    """Lets a policy decide, as in the environment it was learned in.

    It sees what the environment shows: the reward split, which is never trained on, and training
    images. One decision holds for an equal share of the training, however long that is.
    """

    def __init__(
        self,
        policy: Policy,
        task: TaskConfig,
        environment: EnvironmentConfig,
        data: SearchData,
        *,
        num_steps: int,
    ) -> None:
        """Decide for one training run.

        Args:
            policy: what is asked.
            task: what is trained.
            environment: segments, choices and observation of the policy.
            data: with a reward split.
            num_steps: of the training, at least one per segment.
        """
        self._policy = policy
        self._num_segments = environment.num_segments
        self._num_steps = num_steps
        self._actions = ActionCodec(environment)
        self._observations = ObservationBuilder(environment, num_classes=data.num_classes)
        self._measurement = Measurement(task, environment, data)
        self._decisions: list[Decision] = []
        self._readings: list[Reading] = []
        self._stretches: list[TrainMetrics] = []

    def decide(self, trainer: ClassifierTrainer) -> Decision:
        """Return the decision of the segment; at its first step, ask the policy for it."""
        start, _ = segment_steps(self._num_steps, self._num_segments, len(self._decisions))
        if trainer.step == start:
            self._ask(trainer)
        return self._decisions[-1]

    def holds_until(self, step: int, *, limit: int, num_steps: int) -> int:
        """Return the end of the segment that was last decided for, or ``limit``."""
        _, stop = segment_steps(num_steps, self._num_segments, len(self._decisions) - 1)
        return min(stop, limit)

    def take_in(self, metrics: TrainMetrics) -> None:
        """Keep the metrics of a stretch for the next observation."""
        self._stretches.append(metrics)

    def schedule(self) -> Schedule:
        """Return the decisions so far as a schedule."""
        return Schedule(
            segments=tuple(
                Segment(start=index / self._num_segments, decision=decision)
                for index, decision in enumerate(self._decisions)
            )
        )

    def state_dict(self) -> dict[str, Any]:
        """Return decisions, what was seen of the last two segments, and of the one under way."""
        return {
            "decisions": [decision.model_dump(mode="json") for decision in self._decisions],
            "readings": [reading.to_plain() for reading in self._readings],
            "stretches": [dataclasses.asdict(metrics) for metrics in self._stretches],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._decisions = [Decision.from_plain(values) for values in state["decisions"]]
        self._readings = [Reading.from_plain(values) for values in state["readings"]]
        self._stretches = [TrainMetrics(**values) for values in state["stretches"]]

    def _ask(self, trainer: ClassifierTrainer) -> None:
        before = self._readings[-1] if self._readings else None
        now = self._measurement.reading(
            trainer,
            train=_means(self._stretches) if self._stretches else None,
            decision=self._decisions[-1] if self._decisions else None,
            before=before,
        )
        observation = self._observations.build(now, before)
        # One process decides for all: the last bits of an observation may differ between machines.
        action = on_main(lambda: self._policy.act(observation))
        self._decisions.append(self._actions.decode(action))
        self._readings = [reading for reading in (before, now) if reading]
        self._stretches = []


def _means(stretches: list[TrainMetrics]) -> TrainMetrics:
    """Return the means over several stretches, as if they had been one."""
    num_images = sum(each.num_images for each in stretches)
    num_mixed = sum(each.mixed_share * each.num_images for each in stretches)

    def mean(pairs: list[tuple[float | None, float]]) -> float | None:
        known = [(value, weight) for value, weight in pairs if value is not None]
        weights = sum(weight for _, weight in known)
        return sum(value * weight for value, weight in known) / weights if weights else None

    loss = mean([(each.loss, each.num_images) for each in stretches])
    assert loss is not None
    return TrainMetrics(
        loss=loss,
        clean_accuracy=mean(
            [(each.clean_accuracy, each.num_images * (1 - each.mixed_share)) for each in stretches]
        ),
        mixed_accuracy=mean(
            [(each.mixed_accuracy, each.num_images * each.mixed_share) for each in stretches]
        ),
        mixed_share=num_mixed / num_images,
        num_images=num_images,
        seconds=sum(each.seconds for each in stretches),
    )


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
        """Return what decides in a training run of ``num_steps`` steps that has not begun."""
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
                f"{self.where}: expected a run of at least {self.environment.num_segments} "
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
