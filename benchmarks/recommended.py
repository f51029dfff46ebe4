"""The schedule that ships first against the constants, on test images, as Markdown.

    python -m benchmarks.recommended [docs/recommended.csv] [--collect FOLDER]

``--collect`` first writes the file anew from FOLDER/TASK/result.json, comparisons of a task on the
test split such as

    automix compare configs/tasks/digits-20.yaml --num-seeds 20 --seed 5000 --split test \
        --schedules portfolio:mixup-resizemix-off75 none constants constant:resizemix:0.8 \
        --output FOLDER/digits-20

The best constant is the one with the smallest mean on these very seeds and images, so the bar is
too high: what was chosen blindly is compared with what was chosen with hindsight.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from automix.files import write_text
from automix.schedule import Schedule
from benchmarks.portfolio import TaskOutcomes, difference_text, from_csv, to_csv
from benchmarks.portfolio_candidates import constants

_FILE = Path("docs/recommended.csv")
_NONE = "none"
_HEADER = (
    "task",
    "seeds",
    "recommended",
    "none",
    "none minus recommended",
    "best constant",
    "best constant minus recommended",
    "best schedule here",
)
_SEARCHED_HEADER = (
    "task",
    "search",
    "seeds",
    "what it wrote",
    "minus recommended",
    "minus best constant",
)


def collect(folder: Path) -> dict[str, TaskOutcomes]:
    """Return the outcomes of the finished comparisons in ``folder``, by task."""
    outcomes: dict[str, TaskOutcomes] = {}
    for path in sorted(folder.glob("*/result.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["kind"] == "compare" and "test" in result["splits"]:
            outcomes[path.parent.name] = {
                row["name"]: (row["accuracy"]["mean"], np.array(row["calibrated_nll"]["values"]))
                for row in result["splits"]["test"]
            }
    return outcomes


def table(outcomes: Mapping[str, TaskOutcomes]) -> str:
    """Return one row per task, as Markdown; differences with 95% intervals, in nats."""
    lines = [f"| {' | '.join(_HEADER)} |", "|" + "---|" * len(_HEADER)]
    for task, runs in outcomes.items():
        first = next(name for name in Schedule.portfolio() if name in runs)
        best = _best_constant(runs)
        overall = min(runs, key=lambda name: _mean(runs, name))
        cells = (
            task,
            len(runs[first][1]),
            f"{_mean(runs, first):.4f}",
            f"{_mean(runs, _NONE):.4f}",
            difference_text(runs, _NONE, first),
            f"{best} {_mean(runs, best):.4f}",
            difference_text(runs, best, first),
            f"{overall} {_mean(runs, overall):.4f}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def searched_table(outcomes: Mapping[str, TaskOutcomes]) -> str:
    """Return one row per schedule that a search wrote, as Markdown."""
    lines = [f"| {' | '.join(_SEARCHED_HEADER)} |", "|" + "---|" * len(_SEARCHED_HEADER)]
    unsearched = {*Schedule.portfolio(), *constants()}
    for task, runs in outcomes.items():
        first = next(name for name in Schedule.portfolio() if name in runs)
        for name in sorted(set(runs) - unsearched):
            cells = (
                task,
                name,
                len(runs[name][1]),
                f"{_mean(runs, name):.4f}",
                difference_text(runs, name, first),
                difference_text(runs, name, _best_constant(runs)),
            )
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _best_constant(runs: TaskOutcomes) -> str:
    mixing = set(constants()) & set(runs) - {_NONE}
    return min(mixing, key=lambda name: (_mean(runs, name), name))


def _mean(runs: TaskOutcomes, name: str) -> float:
    return float(runs[name][1].mean())


def main() -> None:
    """Write the file if there is something to collect, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=_FILE)
    parser.add_argument("--collect", type=Path, help="folder of comparisons, one per task")
    arguments = parser.parse_args()
    if arguments.collect is not None:
        write_text(arguments.file, to_csv(collect(arguments.collect)))
    outcomes = from_csv(arguments.file.read_text(encoding="utf-8"))
    print(f"{table(outcomes)}\n\n{searched_table(outcomes)}")


if __name__ == "__main__":
    main()
