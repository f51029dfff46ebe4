"""Training runs behind `benchmarks.label_fair`: one budget of labels, spent in every way.

    python -m benchmarks.label_fair_runs configs/tasks/digits-20.yaml --folder FOLDER \
        [--path IMAGES] [--label-sets 5] [--blocks 4] [--constants NAME ...]

The labels are `labels_per_class` of the file, drawn anew for every label set. There is no reward
and no selection split: what chooses a schedule or a temperature takes its images from these labels,
and the test images are scored with what was chosen. Resumes where it was stopped.

Shape suffixes: E runs, N training images, M test images, K classes.
"""

import argparse
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from automix.configuration.data import DataConfig
from automix.configuration.task import ComputeConfig, TaskConfig
from automix.data.load import load_data
from automix.data.splits import Dataset, SearchData, Split
from automix.evaluation.calibration import accuracy, fit_temperature, nll
from automix.experiments.common.run_folder import ProgressBar
from automix.experiments.common.run_logs import Journal
from automix.experiments.config import CompareConfig, SearchConfig
from automix.experiments.search.run import SCHEDULE_NAME, search
from automix.random_streams import Stream, derived_seed
from automix.schedule import Schedule
from automix.training.population import Population
from automix.training.trainer import build_trainer
from benchmarks.portfolio_candidates import constants, every_schedule
from benchmarks.portfolio_runs import task_config

JOURNAL_NAME = "label-fair.jsonl"
NONE = "none"
RECOMMENDED = (
    "mixup 1 or resizemix 0.8, off from 3/4",
    "cutmix 2 and mixup 2 in turn, off from 7/8",
)
"""The first two schedules that ship: nobody has to search for them."""
OWN_SEARCH = "search, own labels"
FREE_SEARCH = "search, validation labels for reward"
TWICE = "twice the steps"
MORE_LABELS = "validation labels as training labels"

ENSEMBLES = (1, 2, 4)
BLOCK = max(ENSEMBLES)
"""Runs of a block, which are 4 single runs, 2 ensembles of 2, or one of 4."""

_SEED = 3  # no other study has it
_SEARCH_RUNS = 64
# Of the labels: the reward, by which a search halves, and the final, which chose nothing.
_REWARD_PART, _FINAL_PART = 0.15, 0.1
_FOLDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way to spend the labels.

    Attributes:
        name: in the table.
        schedule: by its name among `every_schedule`, or one of the two searches.
        labels: per class that the final runs are trained on.
        length: of a run, in those of the file.
        num_runs: in a block; as many as the largest ensemble, or 1.
    """

    name: str
    schedule: str
    labels: int
    length: int = 1
    num_runs: int = 1


def study_rows(
    data: DataConfig, *, schedules: Sequence[str], constant_names: Sequence[str]
) -> list[Row]:
    """Return all rows but the ensembles, which are made of the same runs."""
    few = _count(data.labels_per_class)
    every = few + _count(data.reward_size) + _count(data.selection_size)
    names = list(dict.fromkeys([NONE, *schedules, *constant_names, OWN_SEARCH, FREE_SEARCH]))
    ensembled = {NONE, *schedules, OWN_SEARCH}
    rows = [
        Row(name=name, schedule=name, labels=few, num_runs=BLOCK if name in ensembled else 1)
        for name in names
    ]
    for name in (NONE, schedules[0]):
        rows.append(Row(name=f"{name}, {TWICE}", schedule=name, labels=few, length=2))
        rows.append(Row(name=f"{name}, {MORE_LABELS}", schedule=name, labels=every))
    return rows


def _count(size: object) -> int:
    if not isinstance(size, int):
        raise TypeError(f"expected a task whose splits are numbers of images, got {size}")
    return size


def task_on(task: TaskConfig, *, labels: int, steps: int) -> TaskConfig:
    """Return the task with ``labels`` per class of 10 classes and about ``steps`` steps."""
    per_epoch = task.trainer.steps_per_epoch(labels * _NUM_CLASSES)
    trainer = task.trainer.model_copy(update={"epochs": max(1, round(steps / per_epoch))})
    return task.model_copy(update={"trainer": trainer})


# Of every task of configs/tasks.
_NUM_CLASSES = 10


def fold_indices(labels_N: Tensor, *, num_folds: int = _FOLDS) -> list[Tensor]:
    """Return the (n,) held-out indices of each fold; folds have equally many of each class."""
    fold_N = torch.zeros_like(labels_N)
    for label in torch.unique(labels_N):
        members = (labels_N == label).nonzero().squeeze(1)
        fold_N[members] = torch.arange(len(members)) % num_folds
    return [(fold_N == fold).nonzero().squeeze(1) for fold in range(num_folds)]


def ensemble_logits(logits_EMK: Tensor, size: int) -> Tensor:
    """Return (E / size, M, K) logarithms of the mean probabilities of ``size`` runs in a row."""
    log_probabilities = logits_EMK.double().log_softmax(dim=-1)
    groups = log_probabilities.reshape(-1, size, *logits_EMK.shape[1:])
    return groups.logsumexp(dim=1) - math.log(size)


def mean_scores(
    logits: Tensor, labels_M: Tensor, temperatures: Sequence[float]
) -> dict[str, float]:
    """Return the means over predictors of their scores.

    Args:
        logits: (P, M, K) of P predictors.
        labels_M: of the test images.
        temperatures: (P,), fitted on other images.
    """
    fitted = logits.new_tensor(temperatures)[:, None, None]
    best = fit_temperature(logits, labels_M)[:, None, None]
    values = {
        "calibrated_nll": nll(logits / fitted, labels_M),
        "nll": nll(logits, labels_M),
        # The temperature that fits the test images themselves: nobody has it, all rows alike.
        "nll_at_best": nll(logits / best, labels_M),
        "accuracy": accuracy(logits, labels_M),
    }
    return {name: float(value.mean()) for name, value in values.items()}


def train_and_predict(
    task: TaskConfig,
    schedule: Schedule,
    jobs: Sequence[tuple[SearchData, int, Split]],
    *,
    at_once: bool,
) -> list[Tensor]:
    """Train one run for each (data, seed, images) and return its logits on the images.

    Args:
        task: of all runs.
        schedule: of all runs.
        jobs: their training splits have one size.
        at_once: as a population, where the architecture gains from it; else one after the other.
    """
    trainers = [build_trainer(task, data, seed=seed) for data, seed, _ in jobs]
    if at_once:
        Population(trainers).replay([schedule] * len(trainers))
    logits = []
    for trainer, (_, _, images) in zip(trainers, jobs, strict=True):
        for _ in trainer.replay(schedule):  # nothing remains of a run of a population
            pass
        logits.append(trainer.logits(images))
    return logits


class LabelSet:
    """One draw of the labels: its searches, temperatures and final runs."""

    def __init__(self, config: CompareConfig, number: int, folder: Path) -> None:
        self._task, self._compute, self._folder = config.task, config.compute, folder
        self._data = config.task.data.model_copy(update={"split_seed": number})
        self._labels = _count(self._data.labels_per_class)
        self._steps = config.task.trainer.total_steps(self._labels * _NUM_CLASSES)
        self._number = number
        self._at_once = self._compute.population != 1

    def scores(self, row: Row, *, num_blocks: int) -> dict[str, Any]:
        """Train everything that a row takes, and return its scores on the test images.

        They are by the number of runs of a predictor, and block by block.
        """
        schedule, cost = self._schedule(row)
        dataset = self._dataset(row.labels)
        task = self._task_of(row.labels, row.length)
        fitted = self._temperatures(row, schedule, dataset.seen)
        jobs = [
            (dataset.seen, self._seed(block * BLOCK + run), dataset.test)
            for block in range(num_blocks)
            for run in range(row.num_runs)
        ]
        logits = train_and_predict(task, schedule, jobs, at_once=self._at_once)
        blocks = torch.split(torch.stack(logits), row.num_runs)
        return {
            "found_in": cost,
            "temperatures": {str(size): values for size, values in fitted.items()},
            "scores": {
                str(size): [
                    mean_scores(ensemble_logits(one, size), dataset.test.labels, values)
                    for one in blocks
                ]
                for size, values in fitted.items()
            },
        }

    def _temperatures(
        self, row: Row, schedule: Schedule, data: SearchData
    ) -> dict[int, list[float]]:
        """Return temperatures by the number of runs of a predictor, by cross-validation.

        Every training image is predicted by runs that were not trained on it, with other seeds than
        the final ones.
        """
        train = data.train
        assert isinstance(train, Split)
        held_out = fold_indices(train.labels)
        jobs = []
        for fold in held_out:
            is_kept = torch.ones(len(train), dtype=torch.bool)
            is_kept[fold] = False
            rest = dataclasses.replace(data, train=train.subset(is_kept.nonzero().squeeze(1)))
            jobs += [
                (rest, self._seed(run, of_folds=True), train.subset(fold))
                for run in range(row.num_runs)
            ]
        task = self._task_of(len(jobs[0][0].train) // _NUM_CLASSES, row.length)
        logits = train_and_predict(task, schedule, jobs, at_once=self._at_once)
        by_run = [torch.cat(logits[run :: row.num_runs]) for run in range(row.num_runs)]
        labels = train.labels[torch.cat(held_out)]
        return {
            size: fit_temperature(ensemble_logits(torch.stack(by_run), size), labels).tolist()
            for size in ENSEMBLES
            if size <= row.num_runs
        }

    def _seed(self, number: int, *, of_folds: bool = False) -> int:
        return derived_seed(_SEED, Stream.COMPARISON, epoch=int(of_folds), step=number)

    def _task_of(self, labels: int, length: int) -> TaskConfig:
        return task_on(self._task, labels=labels, steps=self._steps * length)

    def _dataset(self, labels: int) -> Dataset:
        # Without held-out images: those of a search are cut from the same labels.
        sizes = {"reward_size": 0, "selection_size": 0, "labels_per_class": labels}
        return load_data(self._data.model_copy(update=sizes))

    def _schedule(self, row: Row) -> tuple[Schedule, int]:
        """Return the schedule of a row and the training runs that it took to find it."""
        if row.schedule not in (OWN_SEARCH, FREE_SEARCH):
            return every_schedule([row.schedule])[row.schedule], 0
        data, labels = self._data, self._labels
        if row.schedule == OWN_SEARCH:
            reward, final = round(labels * _REWARD_PART), round(labels * _FINAL_PART)
            labels -= reward + final
            sizes = {"reward_size": reward, "selection_size": final, "labels_per_class": labels}
            data = data.model_copy(update=sizes)
        task = self._task_of(labels, 1).model_copy(update={"data": data})
        # Its processes would compete with what else runs here.
        compute = ComputeConfig(workers=1, population=self._compute.population)
        config = SearchConfig(seed=self._number, runs=_SEARCH_RUNS, task=task, compute=compute)
        name = "own" if row.schedule == OWN_SEARCH else "free"
        folder = self._folder / f"search-{name}-{self._number}"
        result = search(config, folder)
        return Schedule.load(folder / SCHEDULE_NAME), result["cost"]["trainings"]


def train_task(
    config: CompareConfig, rows: Sequence[Row], *, num_sets: int, num_blocks: int, folder: Path
) -> None:
    """Append the scores of every label set and row to the journal in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder / JOURNAL_NAME)
    with ProgressBar(folder.name, num_sets * len(rows)) as bar:
        # Set by set: whatever was finished when it is stopped is a whole table.
        for number in range(num_sets):
            label_set = LabelSet(config, number, folder)
            for row in rows:
                key = f"{number}/{row.name}"
                # A row that is to be an ensemble now, and was none before, is trained anew.
                if str(row.num_runs) not in (journal.get(key) or {"scores": ()})["scores"]:
                    scores = label_set.scores(row, num_blocks=num_blocks)
                    journal.add(key, scores | {"length": row.length, "labels": row.labels})
                bar.advance()


def main() -> None:
    """Train a task's rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help="file of configs/tasks/")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--path", type=Path, help="folder of the images")
    parser.add_argument("--label-sets", type=int, default=5)
    parser.add_argument("--blocks", type=int, default=4, help=f"of {BLOCK} seeds each")
    parser.add_argument("--schedules", nargs="*", default=RECOMMENDED)
    parser.add_argument("--constants", nargs="*", default=[], help="names; default: all")
    parser.add_argument("--without", nargs="*", default=[], metavar="ROW", help="rows to leave out")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    config = task_config(flags.config, images=flags.path)
    rows = study_rows(
        config.task.data,
        schedules=flags.schedules,
        constant_names=flags.constants or list(constants()),
    )
    train_task(
        config,
        [row for row in rows if row.name not in flags.without],
        num_sets=flags.label_sets,
        num_blocks=flags.blocks,
        folder=flags.folder,
    )


if __name__ == "__main__":
    main()
