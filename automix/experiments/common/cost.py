"""Predicted cost of a command, measured on a few steps before anything is written."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from automix.configuration.task import ComputeConfig, TaskConfig
from automix.data.splits import SearchData, Split
from automix.experiments.common.population_choice import choose_population
from automix.experiments.common.run_folder import format_seconds
from automix.operator_info import Operator
from automix.schedule import Decision
from automix.training.trainer import ClassifierTrainer, build_trainer, training_device

_LOG = logging.getLogger(__name__)
_WARMUP_STEPS = 3
# Of each operator. A large network is timed by fewer steps: on a CPU, a step of PreActResNet-18
# takes seconds, and whoever asks for a prediction does not want to wait minutes for it.
_TIMED_STEPS = 20
_TIMED_SECONDS = 1.0
# Of an evaluation, whose time grows in proportion to its images.
_TIMED_IMAGES = 512
# Less is the noise of the timing.
_BUSY = 1.3


@dataclass(frozen=True, slots=True, kw_only=True)
class CostEstimate:
    """Predicted cost of a command: wall-clock ``seconds`` are those of all workers together."""

    num_runs: int
    seconds_per_run: float
    seconds: float
    steps_per_run: int
    # Times as long as that it takes now, beside whatever else runs on the machine.
    busy: float = 1.0
    advice: str = ""  # a smaller setting, where this one takes long

    def __add__(self, other: "CostEstimate") -> "CostEstimate":
        """Return the cost of one after the other; steps are those of the longer training runs."""
        count = self.num_runs + other.num_runs
        seconds = self.num_runs * self.seconds_per_run + other.num_runs * other.seconds_per_run
        # The mean of both kinds, weighted by how many there are.
        return CostEstimate(
            num_runs=count,
            seconds_per_run=seconds / count,
            seconds=self.seconds + other.seconds,
            steps_per_run=max(self.steps_per_run, other.steps_per_run),
            busy=max(self.busy, other.busy),
        )

    def describe(self) -> str:
        """Return one line of text."""
        return (
            f"{self.num_runs} training runs of {self.steps_per_run} steps, about "
            f"{self.seconds_per_run:.3g} s each: about {format_seconds(self.seconds)}"
            f"{busy_text(self.busy)}{self.advice and f'; {self.advice}'}"
        )


def estimate_cost(
    task: TaskConfig,
    data: SearchData,
    *,
    operators: Sequence[Operator],
    num_runs: int,
    evaluations_per_run: int,
    compute: ComputeConfig,
) -> CostEstimate:
    """Time a few steps of each operator and an evaluation, and scale them up to the command."""
    _LOG.info("timing a few steps of %d operators", len(operators))
    torch.set_num_threads(compute.threads)
    trainer = build_trainer(task, data, seed=0)
    watch = _warmed_up(trainer, compute)
    # seconds of a run = steps * mean over operators of seconds per step
    #                   + evaluations * seconds per evaluation
    # A learned policy may prefer the slow operators; that is not known before the search.
    per_step = [_seconds_per_step(trainer, operator, watch) for operator in operators]
    # A replay may do without one of these splits, or without both.
    split = next(filter(len, (data.reward, data.selection)), None)
    per_evaluation = _seconds_per_evaluation(trainer, split) if split else 0.0
    per_run = trainer.total_steps * sum(per_step) / len(per_step)
    per_run += evaluations_per_run * per_evaluation
    if compute.population is None or compute.population > 1:
        choice = choose_population(task, data, num_runs=num_runs, num_processes=compute.workers)
        per_run *= choice.ratio
    return CostEstimate(
        num_runs=num_runs,
        seconds_per_run=per_run,
        seconds=per_run * num_runs / compute.workers,
        steps_per_run=trainer.total_steps,
        busy=watch.busy,
    )


def quick_estimate(task: TaskConfig, data: SearchData, *, compute: ComputeConfig) -> CostEstimate:
    """Return the cost of one training run, by a few steps of Mixup: within seconds."""
    torch.set_num_threads(compute.threads)
    trainer = build_trainer(task, data, seed=0)
    watch = _warmed_up(trainer, compute)
    seconds = trainer.total_steps * _seconds_per_step(trainer, Operator.MIXUP, watch)
    return CostEstimate(
        num_runs=1,
        seconds_per_run=seconds,
        seconds=seconds,
        steps_per_run=trainer.total_steps,
        busy=watch.busy,
    )


def busy_text(busy: float) -> str:
    """Return how busy the machine is, where it is."""
    return f" ({busy:.1f} times as long while the machine is busy)" if busy > _BUSY else ""


class _Watch:
    """Times steps: by the processor time of the only thread, which no other program lengthens.

    On an accelerator or with several threads, where processor time says little, by the clock.
    """

    def __init__(self, *, by_processor: bool) -> None:
        self._by_processor = by_processor
        self._wall = self._processor = 0.0

    @property
    def busy(self) -> float:
        """Time by the clock over that of the processor; at least 1."""
        return max(1.0, self._wall / self._processor) if self._processor else 1.0

    def train(self, trainer: ClassifierTrainer, decision: Decision, num_steps: int) -> float:
        """Train; return the seconds of it."""
        started = time.process_time()
        wall = trainer.train(decision, num_steps=num_steps).seconds
        processor = time.process_time() - started
        if not self._by_processor:
            return wall
        self._wall, self._processor = self._wall + wall, self._processor + processor
        return min(wall, processor)


def _warmed_up(trainer: ClassifierTrainer, compute: ComputeConfig) -> _Watch:
    """Train untimed: the first steps allocate memory and choose kernels. Return the watch."""
    steps = min(_WARMUP_STEPS, trainer.total_steps)
    trainer.train(Decision(operator=Operator.NONE), num_steps=steps)
    return _Watch(by_processor=training_device().type == "cpu" and compute.threads == 1)


def _seconds_per_step(trainer: ClassifierTrainer, operator: Operator, watch: _Watch) -> float:
    decision = Decision(operator=operator)
    # Each operator starts from fresh weights, as all of them do in a training run.
    trainer.reset(0)
    first = watch.train(trainer, decision, 1)
    # The first step decides how many more there is time for.
    count = min(_TIMED_STEPS, trainer.total_steps - 1, int(_TIMED_SECONDS / max(first, 1e-9)))
    return watch.train(trainer, decision, count) / count if count > 0 else first


def _seconds_per_evaluation(trainer: ClassifierTrainer, split: Split) -> float:
    """Time a pass over a part of ``split``, and scale it up to all of it."""
    count = min(_TIMED_IMAGES, len(split))
    part = split.subset(torch.arange(count, device=split.device))
    started = time.perf_counter()
    trainer.evaluate(part)
    return (time.perf_counter() - started) * len(split) / count


def runs_text(cost: Mapping[str, Any]) -> str:
    """Return how many training runs each stage of a search took, by the ``cost`` of its result."""
    stages = cost["trainings_by_stage"].items()
    return ", ".join(f"{count} {name}" for name, count in stages if count)
