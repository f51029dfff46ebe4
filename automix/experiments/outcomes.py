"""Finished trainings of an experiment, kept in a file: an interrupted run goes on, not again."""

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from automix.experiments.pool import TrainingJob, TrainingOutcome
from automix.training.metrics import EvalMetrics


class Progress(Protocol):
    """Counts jobs; `automix.experiments.progress.ProgressBar` is one."""

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
