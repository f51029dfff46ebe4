"""Report: one page about the runs in a folder."""

from collections.abc import Sequence
from pathlib import Path

from automix.errors import CheckpointError
from automix.experiments.config import SearchConfig
from automix.experiments.finished import (
    ComparedSplit,
    FinishedRun,
    best_fixed,
    compared_splits,
    is_fixed,
    learned_row,
    paired,
)
from automix.experiments.report_sections import (
    comparison_section,
    learning_section,
    replay_section,
    schedule_section,
    selection_section,
    sheet_section,
)
from automix.experiments.runs import RESULT_NAME
from automix.reporting.report import Fact, ReportData, Section
from automix.reporting.report import write_report as write_report_page


def write_report(folder: Path) -> Path:
    """Write ``report.html`` about the finished search, replays and comparisons below ``folder``.

    Raises:
        CheckpointError: there is no finished run.
    """
    runs = [FinishedRun(path.parent) for path in sorted(folder.rglob(RESULT_NAME))]
    if not runs:
        raise CheckpointError(f"{folder}: expected finished runs, got none")
    searches = [run for run in runs if run.kind == "search"]
    replays = [run for run in runs if run.kind == "replay"]
    compares = compared_splits(runs)
    sections: list[Section] = []
    for run in searches:
        sections += [schedule_section(run), learning_section(run), selection_section(run)]
    sections += [comparison_section(split) for split in compares]
    sections += [replay_section(replays)] if replays else []
    sections += [sheet_section(run, replays) for run in searches]
    data = ReportData(
        title="What mixing to use, and when",
        headline=tuple(_headline(searches, compares)),
        facts=tuple(_facts(searches, compares)),
        sections=tuple(sections),
        limits=tuple(_limits(searches, compares)),
        source=runs[0].source,
    )
    return write_report_page(data, folder)


def _headline(searches: Sequence[FinishedRun], compares: Sequence[ComparedSplit]) -> list[str]:
    sentences = [
        f"The search selected {run.result['selected']!r} among learned schedules and every "
        f"operator held constant."
        for run in searches
    ]
    for split in compares:
        best = best_fixed(split.rows)
        row = learned_row(split.rows)
        if best and row:
            difference = paired(row, best, "calibrated_nll")
            verdict = "is better than" if difference.high < 0 else "is not shown to differ from"
            verdict = "is worse than" if difference.low > 0 else verdict
            sentences.append(
                f"Over {split.run.result['num_seeds']} paired seeds on the {split.name} split, "
                f"{row['name']} {verdict} the best constant operator ({best['name']}): "
                f"calibrated NLL {difference.estimate:+.4f} nats, 95% interval "
                f"[{difference.low:+.4f}, {difference.high:+.4f}]; lower is better."
            )
    return sentences or ["Results of the runs in this folder."]


def _facts(searches: Sequence[FinishedRun], compares: Sequence[ComparedSplit]) -> list[Fact]:
    facts = []
    for run in searches:
        cost = run.result["cost"]
        seconds = cost["search_seconds"] + cost["selection_seconds"]
        facts.append(
            Fact(
                label="cost of the search",
                value=f"{seconds / cost['seconds_per_training']:.0f} trainings",
                note=f"{seconds:.0f} s of wall clock over {cost['seconds_per_training']:.2f} s of "
                f"one training; {cost['trainings']} trainings were run",
            )
        )
    for split in compares:
        row = learned_row(split.rows)
        if row and row["accuracy"]["mean"] is not None:
            facts.append(
                Fact(
                    label=f"accuracy of {row['name']}",
                    value=f"{row['accuracy']['mean']:.2%}",
                    note=f"mean of {split.run.result['num_seeds']} seeds, {split.name} split",
                )
            )
    return facts


def _limits(searches: Sequence[FinishedRun], compares: Sequence[ComparedSplit]) -> list[str]:
    limits = []
    for run in searches:
        config: SearchConfig = run.config(SearchConfig)
        limits.append(
            f"One search with one seed ({config.seed}) on one data set "
            f"({config.task.data.source.value}) and one network ({config.task.model.name}); "
            "another regime may want another schedule."
        )
        winner = run.result["standings"][0]
        if winner["is_constant"]:
            limits.append("Selection preferred a constant operator: nothing learned was better.")
    for split in compares:
        num_seeds = split.run.result["num_seeds"]
        limits += [
            f"{row['name']}: {row['num_diverged']} of {num_seeds} trainings diverged."
            for row in split.rows
            if row["num_diverged"]
        ]
        limits.append(
            f"Intervals cover the seeds of the training, not the choice of the "
            f"{split.name} images. The best constant was picked among "
            f"{sum(is_fixed(row) for row in split.rows)} on the same seeds, which is in its favour."
        )
    return limits or ["Nothing was compared."]
