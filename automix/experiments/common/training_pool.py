"""Training runs in worker processes, and the journal of those that finished."""

import dataclasses
import functools
import json
import math
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from automix.configuration.task import TaskConfig
from automix.data.load import load_data
from automix.data.splits import Dataset, SearchData, Split
from automix.experiments.common.config import ComputeConfig
from automix.schedule import Schedule
from automix.training.distributed import prepare_worker, start_method
from automix.training.metrics import EvalMetrics
from automix.training.trainer import ClassifierTrainer, build_trainer, load_search_data

SplitName = Literal["reward", "selection", "test"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """One training to run.

    Attributes:
        schedule: how its batches are mixed.
        seed: names its initialization, order and draws.
        splits: where the trained classifier is evaluated; at least one.
    """

    schedule: Schedule
    seed: int
    splits: tuple[SplitName, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOutcome:
    """What came of a training run.

    Attributes:
        metrics: the trained classifier on each split of the job.
        seconds: wall-clock time of training alone.
        diverged: whether the loss was not finite at the end; metrics are then not finite either.
    """

    metrics: Mapping[SplitName, EvalMetrics]
    seconds: float
    diverged: bool


class TrainingPool:
    """Runs jobs on worker processes that load the data and build the classifier once.

    A single worker is this process itself: another one takes twelve seconds to start, which in a
    sweep of small cells is longer than they take. Unless ``with_test`` is set, workers hold no test
    split: a job that asks for it fails.
    """

    def __init__(self, task: TaskConfig, compute: ComputeConfig, *, with_test: bool) -> None:
        self._executor: ProcessPoolExecutor | None = None
        if compute.workers == 1:
            self._build_worker = functools.cache(
                functools.partial(_Worker, task, with_test=with_test)
            )
            return
        self._executor = ProcessPoolExecutor(
            max_workers=compute.workers,
            mp_context=multiprocessing.get_context(start_method(task, module=__name__)),
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
        if kind is not None:
            for process in multiprocessing.active_children():
                process.kill()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def run(self, jobs: Sequence[TrainingJob]) -> Iterator[TrainingOutcome]:
        """Yield the outcomes in the order of the jobs, each as soon as it is there."""
        if self._executor is None:
            return (self._build_worker().run(job) for job in jobs)
        return self._executor.map(_run_job, jobs)


_worker: "_Worker | None" = None


class _Worker:
    """What a worker process keeps between jobs."""

    def __init__(self, task: TaskConfig, *, with_test: bool) -> None:
        self._task = task
        data: Dataset | SearchData = (
            load_data(task.data) if with_test else load_search_data(task.data)
        )
        self._search = data.for_search() if isinstance(data, Dataset) else data
        self._test = data.test if isinstance(data, Dataset) else None
        self._trainer: ClassifierTrainer | None = None

    def run(self, job: TrainingJob) -> TrainingOutcome:
        if self._trainer is None:
            self._trainer = build_trainer(self._task, self._search, seed=job.seed)
        else:
            self._trainer.reset(job.seed)
        seconds = sum(train.seconds for _, train in self._trainer.replay(job.schedule))
        metrics = {name: self._trainer.evaluate(self._split(name)) for name in job.splits}
        return TrainingOutcome(
            metrics=metrics,
            seconds=seconds,
            diverged=any(math.isnan(each.nll) for each in metrics.values()),
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


class Progress(Protocol):
    """Counts jobs; `automix.experiments.common.progress.ProgressBar` is one."""

    def advance(self) -> None:
        """Take in a job that has just been run."""
        ...

    def skip(self, count: int) -> None:
        """Take in ``count`` jobs that needed no run."""
        ...


RunPool = Callable[[Sequence[TrainingJob]], Iterable[TrainingOutcome]]


class OutcomeFile:
    """Remembers outcomes by job, one JSON line each; what a crash left after them is dropped.

    Attributes:
        seconds: wall-clock time that what is known took, over all attempts.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known, self.seconds = _read(path)
        self._last = time.perf_counter()

    def run(
        self, jobs: Sequence[TrainingJob], pool: RunPool, *, progress: Progress
    ) -> list[TrainingOutcome]:
        """Return the outcomes of ``jobs`` in their order; only those not yet known are run."""
        missing = list({_key(job): job for job in jobs if _key(job) not in self._known}.items())
        progress.skip(len(jobs) - len(missing))
        self._last = time.perf_counter()
        outcomes = pool([job for _, job in missing])
        for (key, _), outcome in zip(missing, outcomes, strict=True):
            self._remember(key, outcome)
            progress.advance()
        return [self._known[_key(job)] for job in jobs]

    def _remember(self, key: str, outcome: TrainingOutcome) -> None:
        now = time.perf_counter()
        waited, self._last = now - self._last, now
        self._known[key] = outcome
        self.seconds += waited
        line = json.dumps({"key": key, "waited_seconds": waited} | dataclasses.asdict(outcome))
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")


def _key(job: TrainingJob) -> str:
    return f"{job.schedule.decision_hash()}/{job.seed}/{'+'.join(job.splits)}"


def _read(path: Path) -> tuple[dict[str, TrainingOutcome], float]:
    """Return outcomes by key, and the seconds that were waited for them."""
    known: dict[str, TrainingOutcome] = {}
    seconds = 0.0
    if not path.exists():
        return known, seconds
    content, size = path.read_bytes(), 0
    for line in content.splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        try:
            values: dict[str, Any] = json.loads(line)
            key, by_split = values.pop("key"), values.pop("metrics")
            waited = float(values.pop("waited_seconds"))
            metrics = {split: EvalMetrics(**each) for split, each in by_split.items()}
            known[key] = TrainingOutcome(metrics=metrics, **values)
            seconds += waited
        except (ValueError, TypeError, KeyError, AttributeError):
            break
        size += len(line)
    if size < len(content):
        with path.open("r+b") as stream:
            stream.truncate(size)
    return known, seconds
