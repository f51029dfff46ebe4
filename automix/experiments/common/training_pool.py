"""Training runs in worker processes."""

import dataclasses
import functools
import math
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

from automix.configuration.task import ComputeConfig, TaskConfig
from automix.data.load import load_data
from automix.data.splits import Dataset, SearchData, Split
from automix.experiments.common.run_folder import Journal, ProgressBar
from automix.schedule import Schedule
from automix.training.distributed import prepare_worker, start_method
from automix.training.metrics import EvalMetrics
from automix.training.trainer import ClassifierTrainer, build_trainer, load_search_data

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
        metrics = {split: EvalMetrics(**row) for split, row in values["metrics"].items()}
        return cls(metrics=metrics, seconds=values["seconds"], diverged=values["diverged"])


class TrainingPool:
    """Runs jobs on worker processes that load the data and build the classifier once.

    A single worker is this process itself: another one takes twelve seconds to start, which in a
    sweep of small cells is longer than they take. Unless ``with_test`` is set, workers hold no test
    split: a job that asks for it fails.
    """

    def __init__(self, task: TaskConfig, compute: ComputeConfig, *, with_test: bool) -> None:
        self._executor: ProcessPoolExecutor | None = None
        # Built with the first job, not here: a finished journal needs no data in memory.
        if compute.workers == 1:
            self._build_worker = functools.cache(
                functools.partial(_Worker, task, with_test=with_test)
            )
            return
        # Threads are set in each worker, because they decide the last bits of a sum: the outcome of
        # a job must not depend on which process runs it.
        self._executor = ProcessPoolExecutor(
            max_workers=compute.workers,
            mp_context=multiprocessing.get_context(start_method(__name__)),
            initializer=_start_worker,
            initargs=(task, compute.threads, with_test),
        )

    def __enter__(self) -> Self:
        """Return the pool; workers start with the first job."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the workers; when interrupted, without waiting for training runs in progress."""
        if self._executor is None:
            return
        # Somebody pressed Ctrl-C: a training run in progress may take hours.
        if kind is not None:
            for process in multiprocessing.active_children():
                process.kill()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def run(self, jobs: Sequence[TrainingJob]) -> Iterator[TrainingOutcome]:
        """Yield the outcomes in the order of the jobs, each as soon as it is there."""
        if self._executor is None:
            return (self._build_worker().run(job) for job in jobs)
        return self._executor.map(_run_job, jobs)


# An executor hands its processes no object of their own, so the worker of each is a global.
_worker: "_Worker | None" = None


class _Worker:
    """A classifier and its data, kept between jobs."""

    def __init__(self, task: TaskConfig, *, with_test: bool) -> None:
        self._task = task
        # Without the test split where no job asks for it: what is not in memory cannot leak.
        data: Dataset | SearchData = (
            load_data(task.data) if with_test else load_search_data(task.data)
        )
        self._search = data.for_search() if isinstance(data, Dataset) else data
        self._test = data.test if isinstance(data, Dataset) else None
        self._trainer: ClassifierTrainer | None = None

    def run(self, job: TrainingJob) -> TrainingOutcome:
        # A reset gives the bits of a new trainer without building one.
        if self._trainer is None:
            self._trainer = build_trainer(self._task, self._search, seed=job.seed)
        else:
            self._trainer.reset(job.seed)
        seconds = sum(train.seconds for _, train in self._trainer.replay(job.schedule))
        # Once, at the end: all splits of a job come from the same weights.
        metrics = {name: self._trainer.evaluate(self._split(name)) for name in job.splits}
        return TrainingOutcome(
            metrics=metrics,
            seconds=seconds,
            diverged=any(math.isnan(result.nll) for result in metrics.values()),
        )

    def _split(self, name: SplitName) -> Split:
        if name == "test":
            if self._test is None:
                raise ValueError("expected a pool with a test split, got one for a search")
            return self._test
        return self._search.reward if name == "reward" else self._search.selection


def _start_worker(task: TaskConfig, num_threads: int, with_test: bool) -> None:
    global _worker  # noqa: PLW0603 - a worker process holds one training task for all its jobs
    prepare_worker(num_threads)
    _worker = _Worker(task, with_test=with_test)


def _run_job(job: TrainingJob) -> TrainingOutcome:
    assert _worker is not None
    return _worker.run(job)


def run_jobs(
    jobs: Sequence[TrainingJob],
    train: Callable[[Sequence[TrainingJob]], Iterable[TrainingOutcome]],
    journal: Journal,
    bar: ProgressBar,
) -> list[TrainingOutcome]:
    """Return the outcomes in the order of ``jobs``; only those not in the journal are trained."""
    # By key: jobs that are equal, in this call or an earlier attempt, are run once.
    missing = {job.key: job for job in jobs if journal.get(job.key) is None}
    bar.skip(len(jobs) - len(missing))
    for key, outcome in zip(missing, train(list(missing.values())), strict=True):
        # Recorded before it is counted: whatever the bar shows as done is on disk.
        journal.add(key, dataclasses.asdict(outcome))
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
        return run_jobs(jobs, pool.run, journal, bar)
