"""Report: one page about the runs and sweeps in a folder."""

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from automix.errors import AutoMixError, CheckpointError
from automix.experiments.common.run_folder import RESULT_NAME, finished_result
from automix.experiments.config import SearchConfig
from automix.experiments.report.finished_runs import (
    ComparedSplit,
    FinishedRun,
    FinishedSweep,
    best_fixed,
    compared_splits,
    is_fixed,
    learned_row,
    paired,
    slug_of,
)
from automix.experiments.report.sections import (
    comparison_section,
    final_section,
    learning_section,
    replay_section,
    schedule_section,
    selection_section,
    sheet_section,
)
from automix.experiments.sweep.table import TABLE_NAME
from automix.reporting.page import Fact, ReportData, Section
from automix.reporting.page import write_report as write_report_page
from automix.reporting.sections import evaluation_section, sweep_section, sweep_sentence

_LOG = logging.getLogger(__name__)

Runs = Sequence[FinishedRun]
Splits = Sequence[ComparedSplit]
Sweeps = Sequence[FinishedSweep]


def write_report(folder: Path) -> Path:
    """Write ``report.html`` about the finished runs and the sweeps below ``folder``.

    Runs that are cells of a sweep are in its table and not shown one by one. What is damaged is
    left out and named in the report.

    Raises:
        CheckpointError: there is neither, or all are damaged.
    """
    damaged: list[AutoMixError] = []
    sweeps = _read_sweeps(folder, damaged)
    runs = _read_runs(folder, {sweep.path for sweep in sweeps}, damaged)
    if not runs and not sweeps:
        raise next(
            iter(damaged), CheckpointError(f"{folder}: expected finished runs or sweeps, got none")
        )
    for error in damaged:
        _LOG.warning("left out: %s", error)
    searches = [run for run in runs if run.kind == "search"]
    replays = [run for run in runs if run.kind == "replay"]
    compares = compared_splits(runs)
    # In the order of the work: schedules, searches, comparisons, sweeps, replays, evaluations.
    sections: list[Section] = [schedule_section(group) for group in _by_seed(searches).values()]
    for run in searches:
        sections += [final_section(run), learning_section(run), selection_section(run)]
    sections += [comparison_section(split, searches) for split in compares]
    sections += [
        sweep_section(sweep.table, sweep.slug, sweep.source, sweep.schedules()) for sweep in sweeps
    ]
    sections += [replay_section(replays)] if replays else []
    evaluations = [run for run in runs if run.kind == "evaluation"]
    for number, run in enumerate(evaluations, start=1):
        sections.append(evaluation_section(run.result, run.source, number))
    # One of the searches: what an operator does to an image does not depend on the seed.
    sections += [sheet_section(run, replays) for run in searches[:1]]
    data = ReportData(
        title="What mixing to use, and when",
        headline=tuple(_headline(searches, compares, sweeps)),
        facts=tuple(_facts(searches, compares, sweeps)),
        sections=tuple(sections),
        limits=(
            *(f"Left out, because it is damaged: {error}." for error in damaged),
            *_limits(searches, compares, sweeps),
        ),
        source=runs[0].source if runs else sweeps[0].source,
    )
    return write_report_page(data, folder)


def _read_sweeps(folder: Path, damaged: list[AutoMixError]) -> list[FinishedSweep]:
    """Return the sweeps below ``folder``; what is wrong with others is appended to ``damaged``."""
    sweeps = []
    for path in sorted(folder.rglob(TABLE_NAME)):
        try:
            sweep = FinishedSweep.read(path.parent, _slug(path.parent, folder))
        except AutoMixError as error:
            damaged.append(error)
            continue
        if sweep is not None:
            sweeps.append(sweep)
    return sweeps


def _read_runs(
    folder: Path, sweeps: Collection[Path], damaged: list[AutoMixError]
) -> list[FinishedRun]:
    """Return the finished runs below ``folder`` and in no sweep; as above."""
    runs = []
    for path in sorted(folder.rglob(RESULT_NAME)):
        # A run in the folder of a sweep is a cell of it.
        if set(sweeps).intersection(path.parents):
            continue
        try:
            # A search that is not finished has a result so far, which is none to report.
            if finished_result(path.parent) is not None:
                run = FinishedRun(path.parent, slug=_slug(path.parent, folder))
                run.check()
                runs.append(run)
        except AutoMixError as error:
            damaged.append(error)
    return runs


def _slug(path: Path, folder: Path) -> str:
    """Return a name for what lies in ``path``, unique among what lies below ``folder``."""
    # By the whole path: two runs of one name in two folders would share their files.
    relative = path.relative_to(folder).as_posix()
    return slug_of(path.resolve().name if relative == "." else relative)


def _by_seed(searches: Runs) -> Mapping[str, list[FinishedRun]]:
    """Return searches in groups that differ in the seed alone."""
    groups: dict[str, list[FinishedRun]] = {}
    for run in searches:
        config: SearchConfig = run.config(SearchConfig)
        # With the seed made equal, equal hashes are searches for the same thing.
        key = config.model_copy(update={"seed": 0}).content_hash()
        groups.setdefault(key, []).append(run)
    return groups


def _headline(searches: Runs, compares: Splits, sweeps: Sweeps) -> list[str]:
    sentences = [
        f"The search in {run.path.name}: {run.result['verdict']['sentence']} "
        f"({run.result['final'][0]['num_seeds']} paired seeds, on selection images; calibrated "
        "NLL, lower is better)."
        for run in searches
    ]
    for split in compares:
        best, row = best_fixed(split.rows), learned_row(split.rows)
        # Against the best constant, not the baseline: beating no mixing alone needs no search.
        if best and row:
            difference = paired(row, best, "calibrated_nll")
            # Of a loss: an interval below 0 is an improvement, one that holds 0 is none.
            verdict = "is better than" if difference.high < 0 else "is not shown to differ from"
            verdict = "is worse than" if difference.low > 0 else verdict
            sentences.append(
                f"Over {split.run.result['num_seeds']} paired seeds on the {split.name} split, "
                f"{row['name']} {verdict} the best constant operator compared here "
                f"({best['name']}): calibrated NLL {difference.estimate:+.4f} nats, 95% interval "
                f"[{difference.low:+.4f}, {difference.high:+.4f}]; lower is better."
            )
    sentences += [sweep_sentence(sweep.table) for sweep in sweeps]
    return sentences or ["Results of the runs in this folder."]


def _facts(searches: Runs, compares: Splits, sweeps: Sweeps) -> list[Fact]:
    facts = []
    # In training runs, because seconds are those of one machine.
    for run in searches:
        cost = run.result["cost"]
        seconds = cost["seconds"]
        facts.append(
            Fact(
                label=f"cost of {run.path.name}",
                value=f"{seconds / cost['seconds_per_training']:.0f} training runs",
                note=f"{seconds:.0f} s of wall clock over {cost['seconds_per_training']:.2f} s of "
                f"one training run; {cost['trainings']} were run",
            )
        )
    for split in compares:
        # Of a schedule on which a seed diverged there is no mean to show.
        row = learned_row(split.rows)
        if row and row["accuracy"]["mean"] is not None:
            facts.append(
                Fact(
                    label=f"accuracy of {row['name']}",
                    value=f"{row['accuracy']['mean']:.2%}",
                    note=f"mean of {split.run.result['num_seeds']} seeds, {split.name} split",
                )
            )
    facts += [
        Fact(
            label=f"cells of {sweep.table['name']}",
            value=f"{len(sweep.table['cells'])} of {sweep.table['num_cells']}",
            note="finished",
        )
        for sweep in sweeps
    ]
    return facts


def _limits(searches: Runs, compares: Splits, sweeps: Sweeps) -> list[str]:
    limits = []
    for run in searches:
        config: SearchConfig = run.config(SearchConfig)
        limits.append(
            f"{run.path.name}: one search with one seed ({config.seed}) on one dataset "
            f"({config.task.data.source.value}) and one network ({config.task.model.name}); "
            "another regime may want another schedule."
        )
        # A finding against the product, so it is among the limits and not left out.
        if run.result["episodes"] and run.result["verdict"]["kind"] != "learned":
            limits.append(f"{run.path.name}: nothing learned was shown to be better.")
    for split in compares:
        num_seeds = split.run.result["num_seeds"]
        limits += [
            f"{row['name']}: {row['num_diverged']} of {num_seeds} training runs diverged."
            for row in split.rows
            if row["num_diverged"]
        ]
        limits.append(
            f"Intervals cover the seeds of training, not the choice of the "
            f"{split.name} images. The best constant was picked among "
            f"{sum(is_fixed(row) for row in split.rows)} on the same seeds, which is in its favor."
        )
    for sweep in sweeps:
        # Rows with missing cells are means over fewer seeds than the others.
        missing = sweep.table["num_cells"] - len(sweep.table["cells"])
        if missing:
            limits.append(f"{sweep.table['name']}: {missing} cells have no result.")
        if sweep.table["seed_key"] is None:
            limits.append(f"{sweep.table['name']}: no cell is repeated, so nothing says how sure.")
        else:
            limits.append(
                f"{sweep.table['name']}: intervals cover the values of "
                f"{sweep.table['seed_key']!r}; with few of them only large effects show."
            )
    return limits or ["Nothing was compared."]
