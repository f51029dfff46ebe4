"""Compare what labels and money buy: mixing, a search, longer runs, ensembles; as Markdown.

    python -m benchmarks.label_fair [docs/label_fair.csv] [--collect FOLDER]

Every row above "more labels" has the same labels in all, for training, for the reward of a search
and for the temperature, and costs the runs that it says. The rows below it also take the labels of
the reward and selection splits of the task's file, which searches elsewhere in the documents have
on top.

Differences are paired by seeds, within label sets, with 95% bootstrap intervals; behind them, in
how many label sets the sign is that of the mean. ``--collect`` first writes the file anew from what
`benchmarks.label_fair_runs` left in FOLDER/TASK/label-fair.jsonl.

Shape suffixes: B blocks of seeds, S label sets.
"""

import argparse
import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automix.evaluation.statistics import paired_difference
from automix.files import write_text
from benchmarks.label_fair_runs import (
    ENSEMBLES,
    FREE_SEARCH,
    JOURNAL_NAME,
    MORE_LABELS,
    NONE,
    OWN_SEARCH,
    RECOMMENDED,
    TWICE,
)
from benchmarks.portfolio import markdown_table
from benchmarks.portfolio_candidates import candidates, constants

_FILE = Path("docs/label_fair.csv")
_METRICS = ("calibrated_nll", "nll", "nll_at_best", "accuracy")
_HEADER = ("task", "label set", "row", "runs", *_METRICS)
_HEADINGS = (
    "what",
    "runs",
    "NLL, own temperature",
    "to none",
    "to the first recommended",
    "accuracy",
    "NLL as it is",
    "NLL at the best temperature",
)
_OF_BOTH = ("schedule on top of the money", "both less the sum")
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Results of a row.

    Attributes:
        cost: training runs of the file's length that it takes, mean over label sets.
        metrics: (B, S) by name of the metric.
    """

    cost: float
    metrics: Mapping[str, Floats]

    @property
    def losses(self) -> Floats:
        """NLL at the temperature that the labels of the row itself gave."""
        return self.metrics["calibrated_nll"]


TaskOutcomes = Mapping[str, Outcome]


def ensemble_name(row: str, size: int) -> str:
    """Return the name of predictors of ``size`` runs."""
    return row if size == 1 else f"{row}, ensemble of {size}"


def collect(folder: Path) -> str:
    """Return the text of the file: of every task, the label sets that have all rows."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_HEADER)
    for journal in sorted(folder.glob(f"*/{JOURNAL_NAME}")):
        sets: dict[str, dict[str, dict[str, Any]]] = {}
        for line in journal.read_text(encoding="utf-8").splitlines():
            values = json.loads(line)
            number, _, row = values["key"].partition("/")
            sets.setdefault(number, {})[row] = values
        everything = set().union(*sets.values())
        for number, rows in sets.items():
            if set(rows) == everything:
                writer.writerows(_lines(journal.parent.name, number, rows))
    return stream.getvalue()


def _lines(
    task: str, number: str, rows: Mapping[str, Mapping[str, Any]]
) -> Iterable[Sequence[object]]:
    for row, values in rows.items():
        for size, blocks in values["scores"].items():
            cost = values["found_in"] + int(size) * values["length"]
            cells = [" ".join(f"{block[name]:.4f}" for block in blocks) for name in _METRICS]
            yield task, number, ensemble_name(row, int(size)), cost, *cells


def from_csv(text: str) -> dict[str, TaskOutcomes]:
    """Return the outcomes of every task."""
    lines: dict[str, dict[str, list[list[str]]]] = {}
    for task, _, row, *cells in list(csv.reader(text.splitlines()))[1:]:
        lines.setdefault(task, {}).setdefault(row, []).append(cells)
    return {
        task: {row: _outcome(sets) for row, sets in rows.items()} for task, rows in lines.items()
    }


def _outcome(sets: Sequence[Sequence[str]]) -> Outcome:
    return Outcome(
        cost=float(np.mean([float(cells[0]) for cells in sets])),
        metrics={
            name: np.array([[float(value) for value in cells[place].split()] for cells in sets]).T
            for place, name in enumerate(_METRICS, start=1)
        },
    )


def difference_text(first: Floats, second: Floats) -> str:
    """Return the mean of ``first - second``, its interval, and the label sets that agree.

    Args:
        first: (B, S), paired with the other.
        second: (B, S).
    """
    it = paired_difference(first, second, seed=0)
    by_set = (first - second).mean(axis=0)
    agreeing = int((np.sign(by_set) == np.sign(it.estimate)).sum())
    interval = f"{it.estimate:+.4f} [{it.low:+.4f}, {it.high:+.4f}]"
    return f"{interval}, {agreeing} of {len(by_set)}"


def report(outcomes: Mapping[str, TaskOutcomes]) -> str:
    """Return the tables of all tasks."""
    return "\n\n".join(
        table(rows, task=task) + "\n\n" + sums_table(rows) for task, rows in outcomes.items()
    )


def table(rows: TaskOutcomes, *, task: str) -> str:
    """Return the table of a task: what counts its labels, then what does not."""
    first, best = recommended(rows)[0], best_constant(rows)
    singles = [NONE, best, *recommended(rows), OWN_SEARCH]
    extras = ("", *_extras())
    fair = [single + extra for extra in extras for single in singles if single + extra in rows]
    unfair = [name for name in rows if name == FREE_SEARCH or MORE_LABELS in name]
    blocks, sets = rows[NONE].losses.shape
    cells = []
    for name in [*fair, "", *unfair]:
        cells.append(_cells(rows, name, first, best) if name else ["**more labels**"] + [""] * 7)
    heading = f"{task}: {sets} label sets with {blocks} blocks of seeds each"
    return markdown_table(heading, _HEADINGS, cells)


def _cells(rows: TaskOutcomes, name: str, first: str, best: str) -> list[str]:
    outcome = rows[name]
    to = [
        "" if name == other else difference_text(outcome.losses, rows[other].losses)
        for other in (NONE, first)
    ]
    return [
        f"best constant, with hindsight: {name}" if name == best else name,
        f"{outcome.cost:g}",
        f"{outcome.losses.mean():.4f}",
        *to,
        f"{outcome.metrics['accuracy'].mean():.2%}",
        f"{outcome.metrics['nll'].mean():.4f}",
        f"{outcome.metrics['nll_at_best'].mean():.4f}",
    ]


def recommended(rows: TaskOutcomes) -> list[str]:
    """Return the names of the zero-search schedules among the rows, the first to try first."""
    names = [name for name in rows if name in candidates()]
    return sorted(names, key=lambda name: RECOMMENDED.index(name) if name in RECOMMENDED else 9)


def _extras() -> list[str]:
    """Return what money adds to a row, as the end of its name."""
    return [f", {TWICE}"] + [ensemble_name("", size) for size in ENSEMBLES if size > 1]


def best_constant(rows: TaskOutcomes) -> str:
    """Return the constant that mixes with the smallest mean loss on the test images."""
    names = [name for name in rows if name in constants() and name != NONE]
    return min(names, key=lambda name: (float(rows[name].losses.mean()), name))


def sums_table(rows: TaskOutcomes) -> str:
    """Return the gains of a schedule, of money, and of both: do they add up?"""
    cells = []
    for schedule in [*recommended(rows), OWN_SEARCH]:
        for extra in _extras():
            if {schedule, schedule + extra, NONE + extra} <= set(rows):
                alone, both = rows[schedule].losses, rows[schedule + extra].losses
                none, money = rows[NONE].losses, rows[NONE + extra].losses
                gains = [(alone, none), (money, none), (both, none), (both, money)]
                gains.append((both - alone, money - none))
                texts = [difference_text(*gain) for gain in gains]
                cells.append([schedule, extra.removeprefix(", "), *texts])
    headings = ("schedule", "money", "schedule alone", "money alone", "both", *_OF_BOTH)
    return markdown_table("Do the gains add up?", headings, cells)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=_FILE)
    parser.add_argument("--collect", type=Path, metavar="FOLDER")
    flags = parser.parse_args()
    if flags.collect:
        write_text(flags.file, collect(flags.collect))
    print(report(from_csv(flags.file.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
