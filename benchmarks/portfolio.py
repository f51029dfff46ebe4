"""Choose a portfolio of schedules from their outcomes on the development tasks, as Markdown.

    python -m benchmarks.portfolio [docs/portfolio.csv] [--collect FOLDER] [--size 10]

Prints the best schedules of every task against its best constant; the portfolio, in the order of
choice; and what a portfolio chosen without a task is worth on it. The regret of a schedule on a
task is its mean calibrated NLL minus that of the best schedule there, constant or not, over the
median of these differences: 1 is as good as a schedule taken blindly.

``--collect`` first writes the file anew from what `benchmarks.portfolio_runs` left in
FOLDER/TASK/outcomes.jsonl. Those runs are evaluated on selection images, with seeds that no
comparison has: what chooses a portfolio never reports its gain.
"""

import argparse
import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from automix.evaluation.statistics import paired_difference
from automix.files import write_text
from benchmarks.portfolio_candidates import candidates, constants
from benchmarks.portfolio_choice import Floats, choose, leave_one_out, regrets, relative
from benchmarks.portfolio_runs import JOURNAL_NAME

_FILE = Path("docs/portfolio.csv")
_SIZE = 10
_SHOWN = 8
_NONE = "none"
_HEADER = ("task", "schedule", "accuracy", "calibrated NLL by seed")

TaskOutcomes = Mapping[str, tuple[float, Floats]]
"""Mean accuracy, and (num_seeds,) calibrated NLL, by schedule; seeds are paired."""


def collect(folder: Path) -> dict[str, TaskOutcomes]:
    """Return the outcomes of every task in ``folder``, of the seeds that all its schedules have."""
    return {
        journal.parent.name: _outcomes_of(journal)
        for journal in sorted(folder.glob(f"*/{JOURNAL_NAME}"))
    }


def _outcomes_of(journal: Path) -> TaskOutcomes:
    runs: dict[int, dict[str, tuple[float, float]]] = {}
    for line in journal.read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        seed, _, name = values["key"].partition("/")
        runs.setdefault(int(seed), {})[name] = values["accuracy"], values["calibrated_nll"]
    # A task may leave out schedules of the table; the seed in progress lacks some of the others.
    trained = {name for of_seed in runs.values() for name in of_seed}
    names = [name for name in (*constants(), *candidates()) if name in trained]
    whole = [runs[seed] for seed in sorted(runs) if set(names) <= set(runs[seed])]
    return {
        name: (
            float(np.mean([of_seed[name][0] for of_seed in whole])),
            np.array([of_seed[name][1] for of_seed in whole]),
        )
        for name in names
        if whole
    }


def to_csv(outcomes: Mapping[str, TaskOutcomes]) -> str:
    """Return the outcomes as the text of a file."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_HEADER)
    for task, runs in outcomes.items():
        for name, (accuracy, losses) in runs.items():
            values = " ".join(f"{loss:.4f}" for loss in losses)
            writer.writerow((task, name, f"{accuracy:.4f}", values))
    return stream.getvalue()


def from_csv(text: str) -> Mapping[str, TaskOutcomes]:
    """Return the outcomes that `to_csv` wrote."""
    outcomes: dict[str, dict[str, tuple[float, Floats]]] = {}
    for task, name, accuracy, values in list(csv.reader(text.splitlines()))[1:]:
        losses = np.array([float(value) for value in values.split()])
        outcomes.setdefault(task, {})[name] = float(accuracy), losses
    return outcomes


def best_constant(runs: TaskOutcomes) -> str:
    """Return the constant with the smallest mean loss, chosen with hindsight."""
    return min(set(constants()) & set(runs), key=lambda name: (_mean(runs, name), name))


def difference_text(runs: TaskOutcomes, name: str, rival: str) -> str:
    """Return the mean difference of two schedules, with a 95% interval if there are two seeds."""
    if name == rival:
        return "0"
    if len(runs[name][1]) < 2:
        return f"{_mean(runs, name) - _mean(runs, rival):+.4f}"
    it = paired_difference(runs[name][1], runs[rival][1], seed=0)
    return f"{it.estimate:+.4f} [{it.low:+.4f}, {it.high:+.4f}]"


def report(outcomes: Mapping[str, TaskOutcomes], *, size: int = _SIZE) -> str:
    """Return all tables as Markdown."""
    # What some task left out is never chosen, but its loss may be the smallest of another task.
    names = [name for name in (_NONE, *candidates()) if all(name in it for it in outcomes.values())]
    everything = dict.fromkeys([*names, *constants(), *candidates()])
    losses_ST = np.array([[_mean(runs, name) for runs in outcomes.values()] for name in everything])
    regrets_ST = relative(regrets(losses_ST)[: len(names)])
    tables = [_task_table(task, runs, names) for task, runs in outcomes.items()]
    tables += [_portfolio_table(outcomes, names, regrets_ST, size)]
    tables += [_left_out_table(outcomes, names, regrets_ST, size)] if len(outcomes) > 1 else []
    return "\n\n".join(tables)


def _mean(runs: TaskOutcomes, name: str) -> float:
    loss = float(runs[name][1].mean()) if name in runs else np.inf
    # A schedule with a run that diverged has no mean, and is the worst there is.
    return loss if np.isfinite(loss) else np.inf


def _task_table(task: str, runs: TaskOutcomes, names: Sequence[str]) -> str:
    rival = best_constant(runs)
    shown = sorted({*names, *candidates()} & set(runs), key=lambda name: _mean(runs, name))[:_SHOWN]
    rows = [
        [
            name,
            f"{_mean(runs, name):.4f}",
            f"{runs[name][0]:.3f}",
            difference_text(runs, name, rival),
        ]
        for name in dict.fromkeys([*shown, rival, _NONE])
    ]
    count = len(runs[rival][1])
    heading = f"{task}, {count} seeds; best constant with hindsight: {rival}"
    return markdown_table(heading, ["schedule", "calibrated NLL", "accuracy", "to it"], rows)


def _portfolio_table(
    outcomes: Mapping[str, TaskOutcomes], names: Sequence[str], regrets_ST: Floats, size: int
) -> str:
    rows = choose(regrets_ST, size=size)
    cells = [
        [
            names[row],
            f"{regrets_ST[rows[: place + 1]].min(axis=0).mean():.2f}",
            f"{regrets_ST[row].mean():.2f}",
            *(f"{regret:.2f}" for regret in regrets_ST[row]),
        ]
        for place, row in enumerate(rows)
    ]
    headings = ["schedule", "mean with those above", "mean alone", *outcomes]
    return markdown_table("The portfolio, in the order of choice; regrets", headings, cells)


def _left_out_table(
    outcomes: Mapping[str, TaskOutcomes], names: Sequence[str], regrets_ST: Floats, size: int
) -> str:
    results = leave_one_out(regrets_ST, size=size)
    cells = []
    for column, ((task, runs), result) in enumerate(zip(outcomes.items(), results, strict=True)):
        first, none = names[result.rows[0]], regrets_ST[names.index(_NONE), column]
        difference = difference_text(runs, first, best_constant(runs))
        cells.append(
            [task, first, difference, f"{result.first:.2f}", f"{result.best:.2f}", f"{none:.2f}"]
        )
    means = [np.mean([float(row[place]) for row in cells]) for place in (3, 4, 5)]
    cells.append(["mean", "", "", *(f"{mean:.2f}" for mean in means)])
    headings = ["task left out", "chosen first", "to the best constant (nats)", "of the first"]
    headings += ["of the best member", "of none"]
    return markdown_table("Leave one task out; regrets", headings, cells)


def markdown_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown under its title."""
    lines = [f"**{title}**", "", *(f"| {' | '.join(row)} |" for row in (headings, *rows))]
    lines.insert(3, "|" + "---|" * len(headings))
    return "\n".join(lines)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=_FILE)
    parser.add_argument("--collect", type=Path, metavar="FOLDER")
    parser.add_argument("--size", type=int, default=_SIZE, help="members at most")
    flags = parser.parse_args()
    if flags.collect:
        write_text(flags.file, to_csv(collect(flags.collect)))
    print(report(from_csv(flags.file.read_text(encoding="utf-8")), size=flags.size))


if __name__ == "__main__":
    main()
