"""What a command will cost, measured on a few steps before anything is written."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch

from automix.configuration.task import TaskConfig
from automix.data.splits import SearchData, Split
from automix.experiments.common.config import ComputeConfig
from automix.experiments.common.run_folder import format_seconds
from automix.operator_info import Operator
from automix.schedule import Decision
from automix.training.trainer import ClassifierTrainer, build_trainer

_WARMUP_STEPS = 3
# Of each operator. A large network is timed by fewer steps: on a CPU, a step of PreActResNet-18
# takes seconds, and whoever asks for a prediction does not want to wait minutes for it.
_TIMED_STEPS = 20
_TIMED_SECONDS = 1.0
_TIMED_IMAGES = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class CostEstimate:
    """Predicted cost of a command.

    Attributes:
        num_trainings: how many classifiers are trained.
        seconds_per_training: mean time of one, with its evaluations.
        seconds: wall-clock time of all of them on the configured workers.
        steps_per_training: optimizer steps of one training run.
    """

    num_trainings: int
    seconds_per_training: float
    seconds: float
    steps_per_training: int

    def __add__(self, other: Self) -> Self:
        """Return the cost of one after the other; steps are those of the longer training runs."""
        count = self.num_trainings + other.num_trainings
        trained = (
            self.num_trainings * self.seconds_per_training
            + other.num_trainings * other.seconds_per_training
        )
        return replace(
            self,
            num_trainings=count,
            seconds_per_training=trained / count,
            seconds=self.seconds + other.seconds,
            steps_per_training=max(self.steps_per_training, other.steps_per_training),
        )

    def describe(self) -> str:
        """Return one line for people."""
        return (
            f"{self.num_trainings} training runs of {self.steps_per_training} steps, about "
            f"{self.seconds_per_training:.3g} s each: about {format_seconds(self.seconds)}"
        )


def estimate_cost(
    task: TaskConfig,
    data: SearchData,
    *,
    operators: Sequence[Operator],
    num_trainings: int,
    evaluations_per_training: int,
    compute: ComputeConfig,
) -> CostEstimate:
    """Time a few steps of each operator and an evaluation, and scale them up.

    Args:
        task: what is trained.
        data: its splits.
        operators: what batches are mixed with, in equal shares.
        num_trainings: training runs of the command.
        evaluations_per_training: passes over reward split and probe in one training run.
        compute: workers that share the training runs, and threads of each.
    """
    torch.set_num_threads(compute.threads)
    trainer = build_trainer(task, data, seed=0)
    trainer.train(
        Decision(operator=Operator.NONE), num_steps=min(_WARMUP_STEPS, trainer.total_steps)
    )
    per_step = [_seconds_per_step(trainer, operator) for operator in operators]
    # A replay may do without one of these splits, or without both.
    split = next(filter(len, (data.reward, data.selection)), None)
    per_evaluation = _seconds_per_evaluation(trainer, split) if split else 0.0
    per_training = trainer.total_steps * sum(per_step) / len(per_step)
    per_training += evaluations_per_training * per_evaluation
    return CostEstimate(
        num_trainings=num_trainings,
        seconds_per_training=per_training,
        seconds=per_training * num_trainings / compute.workers,
        steps_per_training=trainer.total_steps,
    )


def _seconds_per_step(trainer: ClassifierTrainer, operator: Operator) -> float:
    decision = Decision(operator=operator)
    trainer.reset(0)
    first = trainer.train(decision, num_steps=1).seconds
    count = min(_TIMED_STEPS, trainer.total_steps - 1, int(_TIMED_SECONDS / first))
    return trainer.train(decision, num_steps=count).seconds / count if count > 0 else first


def _seconds_per_evaluation(trainer: ClassifierTrainer, split: Split) -> float:
    """Time a pass over a part of ``split``, and scale it up to all of it."""
    count = min(_TIMED_IMAGES, len(split))
    part = split.subset(torch.arange(count, device=split.device))
    started = time.perf_counter()
    trainer.evaluate(part)
    return (time.perf_counter() - started) * len(split) / count
