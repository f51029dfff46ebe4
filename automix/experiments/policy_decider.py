"""A policy in closed loop: it looks at the training before every segment, and decides."""

import dataclasses
from typing import Any

from agents.policies import Policy
from automix.data.splits import SearchData
from automix.schedule import Decision, Schedule, Segment
from automix.training.distributed import on_main
from automix.training.metrics import TrainMetrics
from automix.training.task import TaskConfig
from automix.training.trainer import ClassifierTrainer, segment_steps
from envs.actions import ActionCodec
from envs.config import EnvironmentConfig
from envs.measurement import Measurement
from envs.observations import ObservationBuilder
from envs.readings import Reading


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
        """Decide for one training.

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
