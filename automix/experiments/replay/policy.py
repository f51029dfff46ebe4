"""A policy as the source of decisions in a replay. Imported only where a run follows one."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

import automix
from agents.learned import FACTS_NAME, MAX_WEIGHTS_BYTES, WEIGHTS_NAME, LearnedPolicy, Policy
from automix.configuration.task import TaskConfig
from automix.data.splits import SearchData
from automix.errors import CheckpointError, ConfigError, DataError
from automix.experiments.common.kept_files import check_whole, keep
from automix.experiments.common.run_folder import CONFIG_NAME
from automix.experiments.config import SearchConfig
from automix.experiments.replay.deciders import (
    ENVIRONMENT_NAME,
    POLICY_NAME,
    SCHEDULE_NAME,
    Decider,
)
from automix.files import sha256_of
from automix.mixture import Mixing, Mixture
from automix.operator_info import Operator
from automix.readers import read_bytes
from automix.schedule import Schedule, Segment
from automix.training.distributed import on_main
from automix.training.metrics import TrainMetrics
from automix.training.trainer import ClassifierTrainer, segment_steps
from envs.actions import ActionCodec
from envs.config import EnvironmentConfig
from envs.measurement import Measurement, Reading
from envs.observations import ObservationBuilder, TaskFacts


class PolicyDecider(Decider):
    """Lets a policy decide, as in the environment it was learned in.

    It sees what the environment shows: the reward split, which is never trained on, and training
    images. Decisions hold for equal fractions of the training run, however long that is.
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
        """Decide for one training run of ``num_steps`` steps, at least one per segment."""
        self._policy = policy
        self._starts = environment.starts
        self._num_steps = num_steps
        self._actions = ActionCodec(environment)
        self._observations = ObservationBuilder(environment, TaskFacts.of(task, data))
        self._measurement = Measurement(task, environment, data)
        self._decisions: list[Mixing] = []
        # Measured at the last two decisions, as observations hold differences too.
        self._readings: list[Reading] = []
        # Since the last decision.
        self._stretches: list[TrainMetrics] = []

    @property
    def schedule(self) -> Schedule:
        """The decisions so far."""
        return Schedule(
            segments=tuple(
                Segment(start=start, mixture=Mixture.of(decision))
                for start, decision in zip(self._starts, self._decisions, strict=False)
            )
        )

    def decide(self, trainer: ClassifierTrainer, *, limit: int) -> tuple[Mixture, int]:
        """Return the decision of the segment, asked for at its first step, and its end."""
        count = len(self._decisions)
        if count < len(self._starts):
            start, _ = segment_steps(self._num_steps, self._starts, count)
            if trainer.step == start:
                self._ask(trainer)
        _, stop = segment_steps(self._num_steps, self._starts, len(self._decisions) - 1)
        return Mixture.of(self._decisions[-1]), min(stop, limit)

    def take_in(self, metrics: TrainMetrics) -> None:
        """Keep the metrics of a stretch for the next observation."""
        self._stretches.append(metrics)

    def state_dict(self) -> dict[str, Any]:
        """Return all decisions and measurements, as plain values."""
        return {
            "decisions": [Mixture.of(decision).to_entry() for decision in self._decisions],
            "readings": [reading.to_plain() for reading in self._readings],
            "stretches": [dataclasses.asdict(metrics) for metrics in self._stretches],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a state."""
        self._decisions = [_mixing(values) for values in state["decisions"]]
        self._readings = [Reading.from_plain(values) for values in state["readings"]]
        self._stretches = [TrainMetrics(**values) for values in state["stretches"]]

    def _ask(self, trainer: ClassifierTrainer) -> None:
        before = self._readings[-1] if self._readings else None
        # Measured by all processes together, each a part of the images.
        now = self._measurement.reading(
            trainer,
            train=_means(self._stretches) if self._stretches else None,
            decision=self._decisions[-1] if self._decisions else None,
            before=before,
        )
        observation = self._observations.build(now, before)
        # One process decides for all: the last bits of an observation may differ between machines.
        action = on_main(lambda: self._policy.act(observation).tolist())
        self._decisions.append(self._actions.decode(np.asarray(action)))
        self._readings = [reading for reading in (before, now) if reading]
        self._stretches = []


def _mixing(entry: dict[str, Any]) -> Mixing:
    mixture = Mixture.from_entry(entry)
    return mixture if len(mixture.decisions) > 1 else mixture.decision


def _means(stretches: list[TrainMetrics]) -> TrainMetrics:
    """Return the means over several stretches, as if they had been one."""

    def mean(pairs: list[tuple[float | None, float]]) -> float | None:
        # An accuracy is None where no image of its kind was seen: those weigh nothing.
        defined = [(value, weight) for value, weight in pairs if value is not None]
        total = sum(weight for _, weight in defined)
        return sum(value * weight for value, weight in defined) / total if total else None

    num_images = sum(stretch.num_images for stretch in stretches)
    num_mixed = sum(stretch.mixed_fraction * stretch.num_images for stretch in stretches)
    loss = mean([(stretch.loss, stretch.num_images) for stretch in stretches])
    assert loss is not None
    return TrainMetrics(
        loss=loss,
        clean_accuracy=mean(
            [(it.clean_accuracy, it.num_images * (1 - it.mixed_fraction)) for it in stretches]
        ),
        mixed_accuracy=mean(
            [(it.mixed_accuracy, it.num_images * it.mixed_fraction) for it in stretches]
        ),
        mixed_fraction=num_mixed / num_images,
        num_images=num_images,
        seconds=sum(stretch.seconds for stretch in stretches),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class PolicySource:
    """A saved policy, the environment it was learned in, and the content of its files by name."""

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
        folder = policy_folder(folder)
        where = folder if (folder / FACTS_NAME).exists() else folder / POLICY_NAME
        if not (where / FACTS_NAME).exists():
            raise CheckpointError(
                f"{folder}: expected the folder of a search, or of a policy, got one without "
                f"{FACTS_NAME}"
            )
        check_whole(where.parent)
        # A search has the environment in its configuration; a replay, in a file of its own.
        if (where / ENVIRONMENT_NAME).exists():
            environment = EnvironmentConfig.from_yaml(where / ENVIRONMENT_NAME)
        else:
            environment = SearchConfig.from_yaml(where.parent / CONFIG_NAME).environment
        return cls(
            policy=LearnedPolicy.load(where),
            environment=environment,
            files={
                name: read_bytes(where / name, limit=MAX_WEIGHTS_BYTES)
                for name in (FACTS_NAME, WEIGHTS_NAME)
            },
            where=where,
        )

    @property
    def identity(self) -> dict[str, str]:
        """The hash of its files."""
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
        if (folder / ENVIRONMENT_NAME).exists():
            if PolicySource.load(folder).identity != self.identity:
                raise CheckpointError(f"{run}: expected a run of this policy, got another's")
            return
        if (run / SCHEDULE_NAME).exists():
            raise CheckpointError(f"{run}: expected a run of this policy, got one of a schedule")
        for name, content in self.files.items():
            keep(run, f"{POLICY_NAME}/{name}", content)
        # Last, because it says that the others are there.
        environment = self.environment.to_yaml().encode()
        keep(run, f"{POLICY_NAME}/{ENVIRONMENT_NAME}", environment)

    def decider(self, task: TaskConfig, data: SearchData, *, num_steps: int) -> PolicyDecider:
        """Return the decider that asks the policy at the start of every segment.

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
                f"{self.where}: expected a training run of at least "
                f"{self.environment.num_segments} steps, one for each decision of the policy, "
                f"got {num_steps}"
            )
        observations = ObservationBuilder(self.environment, TaskFacts.of(task, data)).space
        self.check_spaces(observations, ActionCodec(self.environment).space)
        return PolicyDecider(self.policy, task, self.environment, data, num_steps=num_steps)

    def check_spaces(self, observations: spaces.Space[Any], actions: spaces.Space[Any]) -> None:
        """Refuse a policy that takes other observations or actions than its environment.

        Raises:
            CheckpointError: it does.
        """
        # It would still give actions, just meaningless ones.
        network = self.policy.network
        assert isinstance(observations, spaces.Box)
        assert isinstance(network.observation_space, spaces.Box)
        assert isinstance(actions, spaces.MultiDiscrete)
        assert isinstance(network.action_space, spaces.MultiDiscrete)
        if (network.observation_space, network.action_space) != (observations, actions):
            raise CheckpointError(
                f"{self.where}: expected a policy of {_described(observations, actions)} within "
                f"the bounds of its environment, got one of "
                f"{_described(network.observation_space, network.action_space)}"
            )


def policy_folder(folder: Path) -> Path:
    """Return the folder of a policy: one on the disk, or else one that ships, by its name.

    Examples:
        >>> policy_folder(Path("runs/mine")).as_posix()
        'runs/mine'
    """
    # A file of the package: policies that ship lie beside its modules.
    shipped = Path(automix.__file__).parent / "policies" / folder
    is_name = len(folder.parts) == 1 and folder.name not in ("", "..")
    return shipped if is_name and not folder.exists() and shipped.is_dir() else folder


def _described(observations: spaces.Box, actions: spaces.MultiDiscrete) -> str:
    choices = " x ".join(map(str, actions.nvec.tolist()))
    return f"{observations.shape[0]} features and {choices} choices"
