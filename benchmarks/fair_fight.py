"""Compare searchers that had one budget, one race and one selection; as Markdown.

    python -m benchmarks.fair_fight [docs/fair_fight.csv] [--collect FOLDER]

The unit of replication is the search: differences are means over search seeds of what a searcher
found minus what the race alone found, each the mean over the same test seeds, with 95% intervals of
Student's t. ``--collect`` first writes the file anew from what `benchmarks.fair_fight_runs` left in
FOLDER, of searches that are finished and scored.

`winner` is what all stages before the final rank first; `written`, what the search wrote: the best
schedule that ships, unless the final shows the winner to be better. `closed loop` is the policy
itself, which no selection chose.
"""

import argparse
import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from automix.experiments.common.run_folder import finished_result
from automix.experiments.common.run_logs import Journal
from automix.experiments.common.training_pool import TrainingOutcome
from automix.experiments.replay.policy import PolicySource
from automix.files import write_text
from automix.schedule import Schedule
from benchmarks.fair_fight_runs import (
    LOOPS_NAME,
    OUTCOMES_NAME,
    PPO,
    RACE_ALONE,
    SEARCHERS,
    folder_of,
    found_schedules,
    references,
    scoring_jobs,
)
from benchmarks.portfolio import markdown_table

_FILE = Path("docs/fair_fight.csv")
_NUM_TEST_SEEDS = 20


class Row(NamedTuple):
    """A line of the file: what a search found, and its calibrated NLL with every test seed."""

    task: str
    searcher: str
    # `winner`, `written` or `closed loop`; empty for what nobody searched.
    output: str
    # -1 for what nobody searched.
    search_seed: int
    runs: int
    schedule: str
    # In the final of its search; NaN where it took no part.
    selection_nll: float
    test_nll: tuple[float, ...]


def collect(folder: Path, *, num_seeds: int = _NUM_TEST_SEEDS) -> list[Row]:
    """Return what was found in ``folder`` and scored with all test seeds, task by task."""
    rows = []
    for task in sorted(path.parent for path in folder.glob(f"*/{OUTCOMES_NAME}")):
        outcomes = Journal(task / OUTCOMES_NAME).results
        for name, schedule in references().items():
            scores = _scores(outcomes, schedule, num_seeds=num_seeds)
            label = _label(schedule)
            rows.append(Row(task.name, name, "", -1, 0, label, math.nan, scores))
        for name in SEARCHERS:
            seed = 0
            while (result := finished_result(folder_of(task, name, seed))) is not None:
                rows += _of_search(task, name, seed, result, outcomes, num_seeds=num_seeds)
                seed += 1
    return [row for row in rows if len(row.test_nll) == num_seeds]


def _of_search(
    task: Path,
    name: str,
    seed: int,
    result: Mapping[str, Any],
    outcomes: Mapping[str, Any],
    *,
    num_seeds: int,
) -> list[Row]:
    runs = result["cost"]["trainings"]
    rows = []
    for output, schedule in found_schedules(task, name, seed).items():
        in_final = [row for row in result["final"] if _is_of(row, schedule)]
        loss = in_final[0]["mean_calibrated_nll"] if in_final else None
        scores = _scores(outcomes, schedule, num_seeds=num_seeds)
        selection = math.nan if loss is None else loss
        rows.append(Row(task.name, name, output, seed, runs, _label(schedule), selection, scores))
    if name == PPO:
        loops = Journal(task / LOOPS_NAME).results
        identity = PolicySource.load(folder_of(task, name, seed)).identity["policy"]
        kept = [value for key, value in loops.items() if key.startswith(identity)]
        scores = tuple(_test_nll(value) for value in kept)
        # Its own selection and final are not those of the policy: it costs the race and learning.
        spent = result["cost"]["trainings_by_stage"]
        runs = spent["race"] + spent["learning"]
        rows.append(Row(task.name, name, "closed loop", seed, runs, "", math.nan, scores))
    return rows


def _is_of(row: Mapping[str, Any], schedule: Schedule) -> bool:
    return Schedule.from_plain(row["schedule"]).decision_hash() == schedule.decision_hash()


def _scores(
    outcomes: Mapping[str, Any], schedule: Schedule, *, num_seeds: int
) -> tuple[float, ...]:
    keys = [job.key for job in scoring_jobs([schedule], num_seeds=num_seeds)]
    return tuple(_test_nll(outcomes[key]) for key in keys if key in outcomes)


def _test_nll(outcome: Mapping[str, Any]) -> float:
    return TrainingOutcome.from_plain(outcome).metrics["test"].calibrated_nll


def _label(schedule: Schedule) -> str:
    segments = schedule.without_repeats().segments
    return " | ".join(f"{it.start:g}: {it.mixture.label()}" for it in segments)


def to_csv(rows: Iterable[Row]) -> str:
    """Return the text of the file."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([name.replace("_", " ") for name in Row._fields])
    for row in rows:
        losses = " ".join(f"{loss:.4f}" for loss in row.test_nll)
        writer.writerow([*row[:-2], f"{row.selection_nll:.4f}", losses])
    return stream.getvalue()


def from_csv(text: str) -> list[Row]:
    """Return the rows whose `to_csv` is ``text``, rounded."""
    return [
        Row(
            task=task,
            searcher=searcher,
            output=output,
            search_seed=int(seed),
            runs=int(runs),
            schedule=schedule,
            selection_nll=float(selection),
            test_nll=tuple(map(float, losses.split())),
        )
        for task, searcher, output, seed, runs, schedule, selection, losses in list(
            csv.reader(text.splitlines())
        )[1:]
    ]


def report(rows: Sequence[Row]) -> str:
    """Return the table of every task."""
    return "\n\n".join(table(rows, task) for task in dict.fromkeys(row.task for row in rows))


def table(rows: Sequence[Row], task: str) -> str:
    """Return the table of a task: every searcher against the winner of the race alone."""
    by_entry: dict[tuple[str, str], dict[int, Row]] = {}
    for row in rows:
        if row.task == task:
            by_entry.setdefault((row.searcher, row.output), {})[row.search_seed] = row
    rival = by_entry.get((RACE_ALONE, "winner"), {})
    cells = []
    for (searcher, output), of_entry in by_entry.items():
        means = {seed: float(np.mean(row.test_nll)) for seed, row in of_entry.items()}
        is_rival = of_entry is rival
        shared = [] if is_rival else [seed for seed in rival if seed in means or -1 in means]
        differences = [
            means.get(seed, means.get(-1, math.nan)) - float(np.mean(rival[seed].test_nll))
            for seed in shared
        ]
        cells.append(
            [
                searcher,
                output,
                f"{np.mean([row.runs for row in of_entry.values()]):.0f}",
                f"{np.mean(list(means.values())):.4f}",
                interval_of_mean(differences),
                f"{sum(it < 0 for it in differences)} of {len(differences)}" if shared else "",
            ]
        )
    headings = ("searcher", "output", "runs", "NLL, test", "to the race alone", "seeds better")
    return markdown_table(f"{task}: {len(rival)} search seeds", headings, cells)


def interval_of_mean(values: Sequence[float]) -> str:
    """Return the mean and its 95% interval of Student's t; only the mean of a single value.

    Example:
        >>> interval_of_mean([0.01, 0.02, 0.03])
        '+0.0200 [-0.0048, +0.0448]'
    """
    if not values:
        return ""
    mean = float(np.mean(values))
    if len(values) == 1:
        return f"{mean:+.4f}"
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return f"{mean:+.4f} [{mean - half:+.4f}, {mean + half:+.4f}]"


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
