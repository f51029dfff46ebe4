"""Report: one page about the runs and sweeps in a folder."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from automix.errors import AutoMixError, CheckpointError
from automix.experiments.common.equal_schedules import row_label
from automix.experiments.common.run_folder import RESULT_NAME, finished_result
from automix.experiments.common.summaries import interval_text
from automix.experiments.common.verdicts import verdict_text
from automix.experiments.config import SearchConfig
from automix.experiments.report.comparison_sections import comparison_section
from automix.experiments.report.finished_runs import (
    ComparedSplit,
    FinishedRun,
    FinishedSweep,
    compared_splits,
    name_apart,
    slug_in,
    titled,
)
from automix.experiments.report.replay_sections import mixed_rows, replay_section, sheet_section
from automix.experiments.report.search_sections import (
    final_section,
    learning_section,
    schedule_section,
    selection_section,
)
from automix.experiments.sweep.table import TABLE_NAME
from automix.operator_info import Operator
from automix.reporting.mixed_rows import MixedRows
from automix.reporting.page import Fact, ReportData, Section
from automix.reporting.page import write_report as write_report_page
from automix.reporting.sections import evaluation_section, sweep_section, sweep_sentence
from automix.reporting.tables import duration_text

# Of mixed images at the top: more would hide what follows.
_MOST_PICTURES = 2
_LOG = logging.getLogger(__name__)

Runs = Sequence[FinishedRun]
Splits = Sequence[ComparedSplit]
Sweeps = Sequence[FinishedSweep]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """Content of a folder, as far as a report is about it."""

    runs: list[FinishedRun]
    sweeps: list[FinishedSweep]
    damaged: list[AutoMixError]  # what is wrong with the others


def write_report(folder: Path) -> Path:
    """Write ``report.html`` about the finished runs and the sweeps below ``folder``.

    Runs that are cells of a sweep are in its table and not shown one by one. What is damaged is
    left out and named in the report.

    Raises:
        CheckpointError: there is neither, or all are damaged.
    """
    contents = read_folder(folder)
    if not contents.runs and not contents.sweeps:
        nothing = CheckpointError(f"{folder}: expected finished runs or sweeps, got none")
        raise next(iter(contents.damaged), nothing)
    return write_report_page(report_data(contents), folder)


def read_folder(folder: Path) -> Contents:
    """Return the finished runs and the sweeps below ``folder``."""
    damaged: list[AutoMixError] = []
    sweeps = _read_sweeps(folder, damaged)
    runs = _read_runs(folder, {sweep.path for sweep in sweeps}, damaged)
    return Contents(runs=runs, sweeps=sweeps, damaged=damaged)


def report_data(contents: Contents) -> ReportData:
    """Return the report on at least one run or sweep."""
    runs, sweeps, damaged = contents.runs, contents.sweeps, list(contents.damaged)
    searches = [run for run in runs if run.kind == "search"]
    replays = [run for run in runs if run.kind == "replay"]
    for kind in ("search", "compare"):
        name_apart([run for run in runs if run.kind == kind])
    compares = compared_splits(runs)
    pictures = _pictures(searches or replays, damaged)
    for error in damaged:
        _LOG.warning("left out: %s", error)
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
        sections.append(evaluation_section(run.result, run.source, number, link=run.link))
    # One of the searches: what an operator does to an image does not depend on the seed.
    sections += [sheet_section(run, replays) for run in searches[:1]]
    return ReportData(
        title="What mixing to use, and when",
        headline=tuple(_headline(searches, compares, sweeps)),
        facts=tuple(_facts(searches, compares, sweeps)),
        sections=tuple(sections),
        limits=(
            *(f"Left out, because it is damaged: {error}." for error in damaged),
            *_limits(searches, compares, sweeps),
        ),
        source=runs[0].source if runs else sweeps[0].source,
        pictures=tuple(pictures),
    )


def _read_sweeps(folder: Path, damaged: list[AutoMixError]) -> list[FinishedSweep]:
    """Return the sweeps below ``folder``; what is wrong with others is appended to ``damaged``."""
    sweeps = []
    for path in sorted(folder.rglob(TABLE_NAME)):
        try:
            sweep = FinishedSweep.read(path.parent, slug_in(path.parent, folder))
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
                run = FinishedRun(path.parent, slug=slug_in(path.parent, folder), folder=folder)
                run.check()
                runs.append(run)
        except AutoMixError as error:
            damaged.append(error)
    return runs


def _by_seed(searches: Runs) -> Mapping[str, list[FinishedRun]]:
    """Return searches in groups that differ in the seed alone."""
    groups: dict[str, list[FinishedRun]] = {}
    for run in searches:
        config: SearchConfig = run.config(SearchConfig)
        # With the seed made equal, equal hashes are searches for the same thing.
        key = config.model_copy(update={"seed": 0}).content_hash()
        groups.setdefault(key, []).append(run)
    return groups


def _pictures(runs: Runs, damaged: list[AutoMixError]) -> list[MixedRows]:
    """Return the pictures of the first runs that have one; what is wrong goes to ``damaged``."""
    pictures = []
    for run in runs[:_MOST_PICTURES]:
        try:
            pictures.append(mixed_rows(run))
        except AutoMixError as error:
            damaged.append(error)
    return [rows for rows in pictures if rows is not None]


def _headline(searches: Runs, compares: Splits, sweeps: Sweeps) -> list[str]:
    sentences = [
        _labeled(run, verdict_text(run.result))
        for run in (*searches, *(split.run for split in compares if split.is_judged))
    ]
    sentences += [sweep_sentence(sweep.table) for sweep in sweeps]
    return sentences or ["Results of the runs in this folder."]


def _labeled(run: FinishedRun, sentence: str) -> str:
    return f"{run.label}: {sentence}" if run.label else sentence


def _facts(searches: Runs, compares: Splits, sweeps: Sweeps) -> list[Fact]:
    judged = (*searches, *(split.run for split in compares if split.is_judged))
    # Searches of earlier versions have a sentence alone.
    facts = [_verdict_fact(run) for run in judged if "pays" in run.result["verdict"]]
    # In training runs, because seconds are those of one machine.
    for run in searches:
        cost = run.result["cost"]
        facts.append(
            Fact(
                label=titled("cost of the search", run),
                value=f"{cost['trainings']} training runs",
                note=f"in {duration_text(cost['seconds'])}, "
                f"{duration_text(cost['seconds_per_training'])} each",
            )
        )
    for split in compares:
        # Of a schedule on which a seed diverged there is no mean to show.
        selected = split.run.result["verdict"].get("selected")
        for row in split.rows:
            if split.is_judged and row["name"] == selected:
                facts.append(
                    Fact(
                        label=f"accuracy of {row_label(row)}",
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


def _verdict_fact(run: FinishedRun) -> Fact:
    """Return whether mixing pays, by how much and how sure, in the fewest words."""
    verdict = run.result["verdict"]
    difference, against = verdict.get("difference"), verdict.get("against")
    is_of_mixing = against in (None, Operator.NONE)
    label = "Does mixing pay?" if is_of_mixing else f"Better than {against}?"
    note = ""
    if difference is not None:
        other = "no mixing" if is_of_mixing else against
        note = (
            f"{interval_text(difference, '+.4f')} nats against {other}, "
            f"{verdict['num_seeds']} seeds, {verdict['split']} images"
        )
    value = {"yes": "yes", "no": "no"}.get(verdict.get("pays"), "not shown")
    return Fact(label=titled(label, run), value=value, note=note)


def _limits(searches: Runs, compares: Splits, sweeps: Sweeps) -> list[str]:
    limits = []
    for run in searches:
        config: SearchConfig = run.config(SearchConfig)
        limits.append(
            f"One search with one seed ({config.seed}) on one dataset "
            f"({config.task.data.source.value}) and one network ({config.task.model.title}); "
            "another regime may want another schedule."
        )
        # A finding against the product, so it is among the limits and not left out.
        if run.result["episodes"] and run.result["verdict"]["kind"] != "learned":
            limits.append(_labeled(run, "nothing learned was shown to be better."))
    for split in compares:
        num_seeds = split.run.result["num_seeds"]
        limits += [
            f"{row_label(row)}: {row['num_diverged']} of {num_seeds} training runs diverged."
            for row in split.rows
            if row["num_diverged"]
        ]
        limits.append(
            f"Intervals cover the seeds of training, not the choice of the {split.name} images. "
            "What is called the best was picked on the same seeds, which is in its favor."
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
    return list(dict.fromkeys(limits)) or ["Nothing was compared."]
