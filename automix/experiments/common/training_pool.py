"""Training runs in worker processes."""

import dataclasses
import functools
import itertools
import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch

from automix.configuration.task import ComputeConfig, TaskConfig
from automix.data.load import load_data
from automix.data.splits import Dataset, SearchData, Split
from automix.executors.choose import kind_of, make_executor, room
from automix.executors.units import Loss, Unit, unit_name
from automix.experiments.common.run_folder import ProgressBar
from automix.experiments.common.run_logs import Journal
from automix.models.pretrained import images_of
from automix.readers import parsing
from automix.schedule import Schedule
from automix.training.distributed import start_method
from automix.training.metrics import EvalMetrics
from automix.training.population import Population, group_sizes
from automix.training.trainer import ClassifierTrainer, build_trainer, load_search_data

_LOG = logging.getLogger(__name__)

SplitName = Literal["reward", "selection", "test"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """A training run to be done."""

    schedule: Schedule  # how its batches are mixed
    seed: int  # of its initialization, order and draws
    splits: tuple[SplitName, ...]  # where the trained classifier is evaluated; at least one

    @property
    def key(self) -> str:
        """Its name in a journal: equal jobs have equal outcomes."""
        return f"{self.schedule.decision_hash()}/{self.seed}/{'+'.join(self.splits)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOutcome:
    """Result of a training run."""

    metrics: Mapping[SplitName, EvalMetrics]  # the trained classifier on each split of the job
    seconds: float  # wall-clock time of training alone
    diverged: bool  # whether the loss was not finite at the end; metrics are then not finite either

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Self:
        """Return the outcome whose `dataclasses.asdict` is ``values``."""
        with parsing("journal", "the outcome of a training run"):
            metrics = {split: EvalMetrics(**row) for split, row in values["metrics"].items()}
            return cls(metrics=metrics, seconds=values["seconds"], diverged=values["diverged"])


JobGroup = Sequence[TrainingJob]
"""Jobs that one process trains at once."""

# So that two processes have something to do, and no more of them: another number of groups would
# have other last bits, and the outcome must not depend on the number of processes.
_FEWEST_GROUPS = 2


def grouped(jobs: Sequence[TrainingJob], population: int | None) -> list[JobGroup]:
    """Return groups of at most ``population`` jobs, a function of its arguments alone."""
    sizes = group_sizes(len(jobs), population or 1, fewest=_FEWEST_GROUPS)
    ends = itertools.accumulate(sizes)
    return [jobs[end - size : end] for end, size in zip(ends, sizes, strict=True)]


class TrainingPool:
    """Runs jobs on workers that load the data and build the classifier once.

    Where they run is up to ``compute``, see `kind_of`. Unless ``with_test`` is set, workers hold no
    test split: a job that asks for it fails.
    """

    def __init__(self, task: TaskConfig, compute: ComputeConfig, *, with_test: bool) -> None:
        self._task, self._is_started = task, False
        self._kind = kind_of(compute)
        self._num_workers = compute.workers
        if self._kind == "ray":
            self._num_workers = min(compute.workers, room(compute, self._kind))
        # Threads are set in each worker, because they decide the last bits of a sum: the outcome of
        # a job must not depend on which process runs it.
        num_threads = None if self._kind == "in_process" else compute.threads
        maker = functools.partial(_make_worker, task, num_threads, with_test)
        self._executor = make_executor(
            [maker] * self._num_workers, compute, kind=self._kind, method=start_method(__name__)
        )

    def __enter__(self) -> Self:
        """Return the pool; workers start with the first job."""
        return self

    def __exit__(self, *error: object) -> None:
        """End the workers, without waiting for training runs in progress: they may take hours."""
        self._executor.stop()

    @property
    def lost(self) -> list[Loss]:
        """Workers that were lost so far; their jobs were run again."""
        return self._executor.lost

    def run(self, groups: Sequence[JobGroup]) -> Iterator[list[TrainingOutcome]]:
        """Yield the outcomes of each group of jobs, in order, as soon as they are there.

        Raises:
            WorkerError: more workers were lost than ``compute`` allows.
        """
        if self._kind != "in_process" and not self._is_started:
            # Importing torch and reading the data: on a busy machine, half a minute.
            on_ray = " on Ray" if self._kind == "ray" else ""
            _LOG.info("starting %d worker processes%s", self._num_workers, on_ray)
            self._is_started = True
        units = [self._unit(group) for group in groups]
        for unit in units:
            self._executor.submit(unit)
        return (self._executor.outcome(unit.name) for unit in units)

    def _unit(self, group: JobGroup) -> Unit:
        count = len(group)
        return Unit(
            name=unit_name(self._task.content_hash(), *(job.key for job in group)),
            kind=f"{count} training runs at once" if count > 1 else "a training run",
            call=(_Worker.run, (group,)),
        )


class _Worker:
    """A classifier and its data, kept between jobs."""

    def __init__(self, task: TaskConfig, *, with_test: bool) -> None:
        self._task = task
        # Without the test split where no job asks for it: what is not in memory cannot leak.
        data: Dataset | SearchData = (
            load_data(images_of(task)) if with_test else load_search_data(images_of(task))
        )
        self._search = data.for_search() if isinstance(data, Dataset) else data
        self._test = data.test if isinstance(data, Dataset) else None
        self._trainers: list[ClassifierTrainer] = []
        self._population: Population | None = None

    def run(self, group: JobGroup) -> list[TrainingOutcome]:
        trainers = self._reset(group)
        if len(group) == 1:
            runs = trainers[0].replay(group[0].schedule)
            seconds = [sum(train.seconds for _, train in runs)]
        else:
            if self._population is None or len(self._population.trainers) != len(group):
                self._population = Population(trainers)
            seconds = self._population.replay([job.schedule for job in group])
        # Once, at the end: all splits of a job come from the same weights.
        evaluated = self._evaluated(trainers, {name for job in group for name in job.splits})
        return [
            TrainingOutcome(
                metrics={name: evaluated[name][index] for name in job.splits},
                seconds=seconds[index],
                diverged=any(math.isnan(evaluated[name][index].nll) for name in job.splits),
            )
            for index, job in enumerate(group)
        ]

    def _evaluated(
        self, trainers: Sequence[ClassifierTrainer], names: Collection[SplitName]
    ) -> dict[SplitName, list[EvalMetrics]]:
        """Return the metrics of every classifier on the splits ``names``."""
        # The test images choose nothing, not even a temperature: it is that of the selection split.
        fitted = {*names, "selection"} - {"test"} if "test" in names else names
        evaluated = {name: self._metrics(trainers, name) for name in fitted}
        if "test" in names:
            temperatures = [metrics.temperature for metrics in evaluated["selection"]]
            evaluated["test"] = self._metrics(trainers, "test", temperatures)
        return evaluated

    def _metrics(
        self,
        trainers: Sequence[ClassifierTrainer],
        name: SplitName,
        temperatures: Sequence[float] | None = None,
    ) -> list[EvalMetrics]:
        split = self._split(name)
        if len(trainers) > 1:
            assert self._population is not None
            return self._population.evaluate(split, temperatures=temperatures)
        temperature = None if temperatures is None else temperatures[0]
        return [trainers[0].evaluate(split, temperature=temperature)]

    def _reset(self, group: JobGroup) -> list[ClassifierTrainer]:
        # A reset gives the bits of a new trainer without building one.
        for trainer, job in zip(self._trainers, group, strict=False):
            trainer.reset(job.seed)
        for job in group[len(self._trainers) :]:
            self._trainers.append(build_trainer(self._task, self._search, seed=job.seed))
        return self._trainers[: len(group)]

    def _split(self, name: SplitName) -> Split:
        if name == "test":
            if self._test is None:
                raise ValueError("expected a pool with a test split, got one for a search")
            return self._test
        return self._search.reward if name == "reward" else self._search.selection


def _make_worker(task: TaskConfig, num_threads: int | None, with_test: bool) -> _Worker:
    # In this process, the threads are those of whoever runs the command.
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    return _Worker(task, with_test=with_test)


def run_jobs(
    jobs: Sequence[TrainingJob],
    train: Callable[[Sequence[JobGroup]], Iterable[list[TrainingOutcome]]],
    journal: Journal,
    bar: ProgressBar,
    *,
    population: int | None,
) -> list[TrainingOutcome]:
    """Return the outcomes in the order of ``jobs``; groups that are in the journal are not trained.

    A group of which a crash left only a part is trained as a whole, for the same bits.
    """
    # By key: jobs that are equal, in this call or an earlier attempt, are run once.
    distinct = list({job.key: job for job in jobs}.values())
    missing = [
        group
        for group in grouped(distinct, population)
        if any(journal.get(job.key) is None for job in group)
    ]
    bar.skip(len(jobs) - sum(map(len, missing)))
    for group, outcomes in zip(missing, train(missing), strict=True):
        for job, outcome in zip(group, outcomes, strict=True):
            # Recorded before it is counted: whatever the bar shows as done is on disk.
            if journal.results.get(job.key) is None:
                journal.add(job.key, dataclasses.asdict(outcome))
            bar.advance()
    # From the journal also when just run, so that a resumed command sees the same values.
    return [TrainingOutcome.from_plain(journal.results[job.key]) for job in jobs]


def train_all(
    jobs: Sequence[TrainingJob],
    task: TaskConfig,
    compute: ComputeConfig,
    *,
    journal: Journal,
    title: str,
) -> list[TrainingOutcome]:
    """Run ``jobs`` with a pool and a progress bar of their own, see `run_jobs`."""
    with_test = any("test" in job.splits for job in jobs)
    with (
        TrainingPool(task, compute, with_test=with_test) as pool,
        ProgressBar(title, len(jobs)) as bar,
    ):
        return run_jobs(jobs, pool.run, journal, bar, population=compute.population)
