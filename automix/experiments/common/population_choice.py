"""Number of training runs that a process trains at once: from cores and a short timing."""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from automix.configuration.task import ComputeConfig, TaskConfig
from automix.data.splits import SearchData
from automix.experiments.common.kept_files import keep_json
from automix.operator_info import Operator
from automix.readers import parsing, read_json
from automix.schedule import Decision
from automix.training.population import Population
from automix.training.trainer import build_trainer, training_device

_LOG = logging.getLogger(__name__)
POPULATION_NAME = "population.json"
# On a CPU, a step of the small network of the digits takes 0.36 to 0.39 of its time alone in a
# population of 8, and still 0.29 to 0.35 in one of 16 (`python -m benchmarks.population`). An
# accelerator is filled later.
_LARGEST_ON_CPU = 8
_LARGEST = 32
# A step that takes longer alone has no fixed costs worth sharing.
_LONGEST_STEP = 0.1
# A smaller gain is not worth other last bits.
_LARGEST_RATIO = 0.9
_TIMED_STEPS = 5
_TIMED_ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PopulationChoice:
    """Training runs at once, and the time of a step of one of them over that of a run alone."""

    population: int
    ratio: float

    def describe(self) -> str:
        """Return one line of text."""
        if self.population == 1:
            return "population: 1, training runs one after the other in each process"
        return (
            f"population: {self.population} training runs at once in each process, a step of each "
            f"in {self.ratio:.2f} of its time alone (--compute.population {self.population})"
        )


def choose_population(
    task: TaskConfig, data: SearchData, *, num_runs: int, num_processes: int
) -> PopulationChoice:
    """Return how many of ``num_runs`` runs side by side are best trained at once here.

    As many as keep all processes busy, unless a few timed steps say that one after the other is
    faster: large networks have no fixed costs worth sharing.
    """
    on_cpu = training_device().type == "cpu"
    count = min(
        -(-num_runs // (num_processes if on_cpu else 1)), _LARGEST_ON_CPU if on_cpu else _LARGEST
    )
    alone = PopulationChoice(population=1, ratio=1.0)
    while count > 1:
        try:
            ratio = _measured_ratio(task, data, count)
        except torch.OutOfMemoryError:
            count //= 2
            continue
        return alone if ratio > _LARGEST_RATIO else PopulationChoice(population=count, ratio=ratio)
    return alone


def settled(
    path: Path,
    task: TaskConfig,
    compute: ComputeConfig,
    data: SearchData,
    *,
    num_runs: int,
    num_processes: int,
) -> ComputeConfig:
    """Return ``compute`` with a population: its own, that of an earlier attempt, or one chosen now.

    What was chosen is kept at ``path``, because another number would have other last bits.
    """
    if compute.population is not None:
        return compute
    if path.exists():
        with parsing(str(path), "the population that was chosen"):
            population = int(read_json(path)["population"])
    else:
        _LOG.info("timing a few steps, one training run at a time and several at once")
        choice = choose_population(task, data, num_runs=num_runs, num_processes=num_processes)
        keep_json(path.parent, path.name, asdict(choice))
        _LOG.info(choice.describe())
        population = choice.population
    return compute.model_copy(update={"population": population})


def _measured_ratio(task: TaskConfig, data: SearchData, count: int) -> float:
    """Return the time of a step per run in a population of ``count``, over that of a run alone."""
    decision = Decision(operator=Operator.MIXUP)
    alone = build_trainer(task, data, seed=0)
    steps = min(_TIMED_STEPS, alone.total_steps)
    alone.train(decision, num_steps=1)
    alone.reset(0)
    if alone.train(decision, num_steps=1).seconds > _LONGEST_STEP:
        return 1.0
    # Not before: networks as slow as that take a second each to build.
    members = [build_trainer(task, data, seed=seed) for seed in range(1, count + 1)]
    population = Population(members)
    if population.obstacle is not None:
        return 1.0
    # The fastest of alternating rounds: whatever else the machine does makes both slower.
    best_alone = best_joined = float("inf")
    for _ in range(_TIMED_ROUNDS):
        alone.reset(0)
        best_alone = min(best_alone, alone.train(decision, num_steps=steps).seconds)
        for trainer in members:
            trainer.reset(trainer.seed)
        metrics = population.train([(decision, steps)] * count)
        best_joined = min(best_joined, sum(result.seconds for result in metrics) / count)
    return best_joined / best_alone
