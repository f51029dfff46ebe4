"""Tables of what other tasks teach about one: policy, prior and races in tasks of a new source.

    python -m benchmarks.pretraining [docs/pretraining/runs.csv] [--collect FOLDER]

Differences are of calibrated NLL on test images, paired by seed, in nats, with 95% intervals; less
is better. The best constant is chosen with hindsight on the same test images. ``--collect`` first
writes the file anew from what `benchmarks.pretraining_runs` left in FOLDER.
"""

import argparse
import csv
import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from automix.evaluation.statistics import paired_difference
from automix.experiments.common.run_logs import Journal
from automix.experiments.common.training_pool import TrainingOutcome
from automix.files import write_text
from automix.readers import read_json
from automix.schedule import Schedule
from benchmarks.fair_fight_runs import scoring_jobs
from benchmarks.portfolio import markdown_table
from benchmarks.pretraining_runs import (
    CONSTANTS,
    LOOPS_NAME,
    NAMES_NAME,
    OUTCOMES_NAME,
    POLICY,
    PRIOR,
    TEST_SEED,
    TEST_SEEDS,
)

_FILE = Path("docs/pretraining/runs.csv")
_HEADINGS_WITHOUT_RUNS = (
    "task",
    "without a training run",
    "NLL, test",
    "to the best constant",
    "to what ships first",
    "to none",
)
_HEADINGS_OF_SEARCHES = ("task", "runs", "with", "without", "with less without")
_SEARCHED = re.compile(r"(with|without), (\d+) runs, search (\d+)")

Losses = Mapping[str, tuple[float, ...]]
"""Calibrated NLL with each test seed, by what was trained."""


class Row(NamedTuple):
    """A line of the file."""

    study: str
    task: str
    name: str
    test_nll: tuple[float, ...]


def collect(folder: Path) -> list[Row]:
    """Return what was scored with all test seeds in ``folder``."""
    rows = []
    for path in sorted(folder.glob(f"*/*/{NAMES_NAME}")):
        task = path.parent
        outcomes = Journal(task / OUTCOMES_NAME).results
        losses = {}
        for name, plain in read_json(path).items():
            jobs = scoring_jobs([Schedule.from_plain(plain)], num_seeds=TEST_SEEDS, seed=TEST_SEED)
            losses[name] = [_test_nll(outcomes[job.key]) for job in jobs if job.key in outcomes]
        loops = Journal(task / LOOPS_NAME).results.values()
        losses[POLICY] = [_test_nll(outcome) for outcome in loops]
        rows += [
            Row(task.parent.name, task.name, name, tuple(values))
            for name, values in losses.items()
            if len(values) == TEST_SEEDS
        ]
    return rows


def _test_nll(outcome: Mapping[str, object]) -> float:
    return TrainingOutcome.from_plain(dict(outcome)).metrics["test"].calibrated_nll


def to_csv(rows: Iterable[Row]) -> str:
    """Return the text of the file."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["study", "task", "name", "test nll"])
    for row in rows:
        writer.writerow([*row[:-1], " ".join(f"{loss:.4f}" for loss in row.test_nll)])
    return stream.getvalue()


def from_csv(text: str) -> list[Row]:
    """Return the rows whose `to_csv` is ``text``, rounded."""
    return [
        Row(study, task, name, tuple(map(float, losses.split())))
        for study, task, name, losses in list(csv.reader(io.StringIO(text)))[1:]
    ]


def report(rows: Iterable[Row]) -> str:
    """Return the tables of all studies, in Markdown."""
    by_task: dict[tuple[str, str], dict[str, tuple[float, ...]]] = {}
    for row in rows:
        by_task.setdefault((row.study, row.task), {})[row.name] = row.test_nll
    left_out = [
        cells
        for (study, task), losses in by_task.items()
        if study == "left-out"
        for cells in _rows_without_runs(task, losses)
    ]
    searched = [
        cells
        for (study, task), losses in by_task.items()
        if study != "left-out"
        for cells in _rows_of_searches(task, losses)
    ]
    tables = (
        ("Sources that were left out", _HEADINGS_WITHOUT_RUNS, left_out),
        ("Searches with and without other tasks", _HEADINGS_OF_SEARCHES, searched),
    )
    return "\n\n".join(markdown_table(*table) for table in tables if table[-1])


def _rows_without_runs(task: str, losses: Losses) -> list[tuple[str, ...]]:
    constants = [name for name in CONSTANTS if name in losses]
    best = min(constants, key=lambda name: float(np.mean(losses[name])))
    first = next(name for name in losses if name.startswith("recommended"))
    result = []
    for name in (POLICY, PRIOR, first, best, "none"):
        if name in losses:
            cells = (
                "" if name == other else _difference(losses[name], losses[other])
                for other in (best, first, "none")
            )
            result.append((task, name, f"{np.mean(losses[name]):.4f}", *cells))
    return result


def _rows_of_searches(task: str, losses: Losses) -> list[tuple[str, ...]]:
    """Return a row per budget: means over searches, paired by search and test seed."""
    of_search: dict[tuple[int, str], dict[int, tuple[float, ...]]] = {}
    for name, values in losses.items():
        if match := _SEARCHED.fullmatch(name):
            of_search.setdefault((int(match[2]), match[1]), {})[int(match[3])] = values
    result = []
    for budget in sorted({runs for runs, _ in of_search}):
        means = {
            kind: np.mean(list(of_search[budget, kind].values()), axis=0)
            for kind in ("with", "without")
            if (budget, kind) in of_search
        }
        cells = [f"{means[kind].mean():.4f}" if kind in means else "" for kind in means]
        difference = _difference(means["with"], means["without"]) if len(means) == 2 else ""
        result.append((task, str(budget), *cells, difference))
    return result


def _difference(values: Iterable[float], others: Iterable[float]) -> str:
    gain = paired_difference(list(values), list(others), seed=0)
    return f"{gain.estimate:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=_FILE)
    parser.add_argument("--collect", type=Path, metavar="FOLDER")
    flags = parser.parse_args()
    if flags.collect:
        write_text(flags.file, to_csv(collect(flags.collect)))
    print(report(from_csv(flags.file.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
