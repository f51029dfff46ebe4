"""Policies in a comparison: closed loops on its paired seeds. Imported only where one is named."""

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from automix.data.splits import Dataset
from automix.experiments.common.run_folder import ProgressBar
from automix.experiments.common.run_logs import Journal
from automix.experiments.common.training_pool import SplitName, TrainingOutcome
from automix.experiments.config import CompareConfig
from automix.experiments.replay.policy import PolicySource
from automix.operator_info import Operator
from automix.random_streams import Stream, derived_seed
from automix.schedule import Schedule
from automix.training.metrics import EvalMetrics
from automix.training.trainer import ClassifierTrainer, build_trainer


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRun:
    """A training run that a policy decided, and the schedule that it turned out to be."""

    outcome: TrainingOutcome
    schedule: Schedule


class PolicyLoops:
    """The closed loops of one policy, each with its own training seed, one after the other."""

    def __init__(self, folder: Path, config: CompareConfig, data: Dataset) -> None:
        """Read the policy of a search.

        Raises:
            AutoMixError: there is none, or it does not fit the data.
        """
        self._source = PolicySource.load(folder)
        self._config, self._data = config, data
        self._trainer: ClassifierTrainer | None = None
        num_steps = config.task.trainer.total_steps(len(data.seen.train))
        # Refused here rather than after the training runs of the others.
        self._source.decider(config.task, data.seen, num_steps=num_steps)

    @property
    def operators(self) -> tuple[Operator, ...]:
        """Operators the policy chooses between."""
        return self._source.operators

    def train_all(
        self, splits: Sequence[SplitName], *, journal: Journal, title: str
    ) -> list[PolicyRun]:
        """Return the runs of all seeds; those that are in the journal are not trained again."""
        runs = []
        identity = self._source.identity["policy"]
        with ProgressBar(title, self._config.num_seeds) as bar:
            for index in range(self._config.num_seeds):
                seed = derived_seed(self._config.seed, Stream.COMPARISON, step=index)
                key = f"{identity}/{seed}/{'+'.join(splits)}"
                if journal.get(key) is None:
                    run = self.train(seed, splits)
                    schedule = {"schedule": run.schedule.to_plain()}
                    journal.add(key, dataclasses.asdict(run.outcome) | schedule)
                kept = journal.results[key]
                runs.append(
                    PolicyRun(
                        outcome=TrainingOutcome.from_plain(kept),
                        schedule=Schedule.from_plain(kept["schedule"]),
                    )
                )
                bar.advance()
        return runs

    def train(self, seed: int, splits: Sequence[SplitName]) -> PolicyRun:
        """Train once, as the policy decides; its seconds are those of what it looks at, too."""
        task, data = self._config.task, self._data.seen
        if self._trainer is None:
            self._trainer = build_trainer(task, data, seed=seed)
        else:
            self._trainer.reset(seed)
        trainer = self._trainer
        decider = self._source.decider(task, data, num_steps=trainer.total_steps)
        started = time.perf_counter()
        while trainer.step < trainer.total_steps:
            mixture, stop = decider.decide(trainer, limit=trainer.total_steps)
            decider.take_in(trainer.train(mixture, num_steps=stop - trainer.step))
        seconds = time.perf_counter() - started
        metrics = self._metrics(trainer, splits)
        return PolicyRun(
            outcome=TrainingOutcome(
                metrics=metrics,
                seconds=seconds,
                diverged=any(math.isnan(it.nll) for it in metrics.values()),
            ),
            schedule=decider.schedule,
        )

    def _metrics(
        self, trainer: ClassifierTrainer, splits: Sequence[SplitName]
    ) -> dict[SplitName, EvalMetrics]:
        metrics: dict[SplitName, EvalMetrics] = {}
        # The test images choose nothing, not even a temperature: it is that of the selection split.
        selection = trainer.evaluate(self._data.seen.selection)
        for split in splits:
            if split == "test":
                test = self._data.test
                metrics[split] = trainer.evaluate(test, temperature=selection.temperature)
            else:
                metrics[split] = selection
        return metrics
