"""Comparison of schedules by training runs with paired seeds."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from automix.data.load import load_data
from automix.data.splits import Dataset
from automix.experiments.common.cost import CostEstimate, estimate_cost
from automix.experiments.common.equal_schedules import row_label
from automix.experiments.common.population_choice import POPULATION_NAME, settled
from automix.experiments.common.run_folder import RunFolder
from automix.experiments.common.run_logs import Journal
from automix.experiments.common.summaries import HEADINGS, METRICS, align, summarize, summary_cells
from automix.experiments.common.training_pool import (
    SplitName,
    TrainingJob,
    TrainingOutcome,
    train_all,
)
from automix.experiments.compare.schedule_specs import ScheduleEntry, merge_equal, parse_entries
from automix.experiments.compare.verdict import in_prose, judge_comparison
from automix.experiments.config import CompareConfig
from automix.models.pretrained import images_of
from automix.random_streams import Stream, derived_seed
from automix.schedule import Schedule
from automix.training.check import check_model

if TYPE_CHECKING:
    from automix.experiments.compare.policies import ClosedLoops

JOURNAL_NAME = "outcomes.jsonl"
LOOPS_NAME = "policies.jsonl"
"""The training runs that policies decided."""

_PRINTED_METRICS = ("calibrated_nll", "accuracy")


def compare(
    config: CompareConfig, output: Path, *, named: Mapping[str, Schedule] = MappingProxyType({})
) -> dict[str, Any]:
    """Train every schedule with every seed in ``output``, or resume; return the result.

    Its `splits` hold one row per schedule for each split of the configuration: `name`; `also`,
    other names of the same schedule, which is trained once; `num_diverged`; `seconds_per_training`;
    and for each of `METRICS` a summary with differences to the first schedule
    (`automix.experiments.common.summaries.summarize`). Its `verdict` is that of `judge_comparison`.
    Its `decided` hold, by name, the schedule of every training run that a policy decided; without
    policies there are none.

    Args:
        config: schedules, seeds and task.
        output: folder of the run.
        named: schedules that the configuration may name where it would name a file; the same ones
            whenever the run is resumed.

    Raises:
        AutoMixError: schedules, data or folder do not fit.
    """
    entries = merge_equal(
        parse_entries(config.schedules, config.environment, seed=config.seed, named=named),
        num_runs=config.num_seeds,
    )
    # Everything that can be refused is refused before the folder is written.
    data = load_data(images_of(config.task))
    policies = _policies(config, entries, data)
    scheduled = [entry for entry in entries if entry.name not in policies]
    jobs = _jobs(config, scheduled)
    of_schedules = {name for job in jobs for name in job.schedule.operators}
    of_policies = {name for policy in policies.values() for name in policy.operators}
    check_model(config.task, data.seen, operators=of_schedules | of_policies)
    torch.set_num_threads(config.compute.threads)
    with RunFolder(output, config) as run:
        if (finished := run.result()) is not None:
            return finished
        journal = Journal(run.path / JOURNAL_NAME)
        compute = settled(
            run.path / POPULATION_NAME,
            config.task,
            config.compute,
            data.for_search(),
            num_runs=len(jobs),
            num_processes=config.compute.workers,
        )
        outcomes = train_all(jobs, config.task, compute, journal=journal, title="compare")
        # Jobs go seed by seed through all schedules, so schedule i has every len(scheduled)-th.
        by_name = {
            entry.name: outcomes[position :: len(scheduled)]
            for position, entry in enumerate(scheduled)
        }
        loops = Journal(run.path / LOOPS_NAME)
        runs = {
            name: policy.train_all(splits_of(config), journal=loops, title=name)
            for name, policy in policies.items()
        }
        by_name |= {name: [it.outcome for it in of_policy] for name, of_policy in runs.items()}
        decided = {
            name: [it.schedule.to_plain() for it in of_policy if it.schedule]
            for name, of_policy in runs.items()
            if any(it.schedule for it in of_policy)
        }
        rows = {entry: by_name[entry.name] for entry in entries}
        splits = {split: _rows(rows, split, seed=config.seed) for split in splits_of(config)}
        # The test images where there are some: of two verdicts, the one that chose nothing.
        judged = splits_of(config)[-1]
        return run.finish(
            {
                "kind": "compare",
                "verdict": judge_comparison(splits[judged], split=judged),
                "num_seeds": config.num_seeds,
                "baseline": entries[0].name,
                "data": data.fingerprint,
                "splits": splits,
            }
            | ({"decided": decided} if decided else {})
        )


def _policies(
    config: CompareConfig, entries: Sequence[ScheduleEntry], data: Dataset
) -> "dict[str, ClosedLoops]":
    """Return the closed loops of the entries that are policies, by name."""
    texts = {entry.name: entry.policy for entry in entries if entry.policy}
    if not texts:
        return {}
    # Imported here: Stable-Baselines3 takes seconds to load.
    from automix.experiments.compare.policies import closed_loops  # noqa: PLC0415

    return {name: closed_loops(text, config, data) for name, text in texts.items()}


def splits_of(config: CompareConfig) -> tuple[SplitName, ...]:
    """Return the splits on which classifiers are compared."""
    return ("selection", "test") if config.split == "both" else (config.split,)


def predict_cost(config: CompareConfig, *, num_entries: int | None = None) -> CostEstimate:
    """Return what `compare` will cost, measured on a few steps; nothing is written.

    Args:
        config: as for `compare`.
        num_entries: number of schedules, where they cannot be parsed yet.
    """
    if num_entries is None:
        num_entries = len(parse_entries(config.schedules, config.environment, seed=config.seed))
    return estimate_cost(
        config.task,
        load_data(images_of(config.task)).for_search(),
        operators=config.environment.operators,
        num_runs=num_entries * config.num_seeds,
        evaluations_per_run=len(splits_of(config)),
        compute=config.compute,
    )


def format_table(result: Mapping[str, Any]) -> str:
    """Return the comparison as plain text, best first; differences are to the baseline."""
    lines = [
        f"verdict: {result['verdict']['sentence']}",
        "",
        f"{result['num_seeds']} paired seeds; mean and interquartile mean (IQM), difference of the "
        f"means to {in_prose(result['baseline'])}, fraction of the seeds on which it is better, "
        "and p-value of the difference after Holm's correction for the number of schedules",
    ]
    for split, rows in result["splits"].items():
        # Schedules that diverged on some seed have no mean, and come last.
        ranked = sorted(rows, key=lambda row: row["calibrated_nll"]["mean"] or math.inf)
        for metric in _PRINTED_METRICS:
            title, better = METRICS[metric]
            lines += ["", f"{title} on the {split} split, {better} is better"]
            cells = [[row_label(row), *summary_cells(row[metric])] for row in ranked]
            lines += align([["schedule", *HEADINGS], *cells])
    return "\n".join(lines)


def _jobs(config: CompareConfig, entries: Sequence[ScheduleEntry]) -> list[TrainingJob]:
    """Return the jobs seed by seed, so that an interrupted comparison is a smaller one."""
    return [
        TrainingJob(
            schedule=entry.schedule_for(index),
            # The same for every schedule: paired seeds remove the noise that they share.
            seed=derived_seed(config.seed, Stream.COMPARISON, step=index),
            splits=splits_of(config),
        )
        for index in range(config.num_seeds)
        for entry in entries
    ]


def _rows(
    outcomes: Mapping[ScheduleEntry, Sequence[TrainingOutcome]], split: SplitName, *, seed: int
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {
            "name": entry.name,
            "also": list(entry.also),
            # Beside the statistics, which have no number where a run diverged.
            "num_diverged": sum(outcome.diverged for outcome in of_schedule),
            "seconds_per_training": float(np.mean([outcome.seconds for outcome in of_schedule])),
        }
        for entry, of_schedule in outcomes.items()
    ]
    # Keyed by the number of the seed, which pairs a run with those of the other schedules.
    for metric, (_, better) in METRICS.items():
        series = [
            dict(enumerate(getattr(outcome.metrics[split], metric) for outcome in of_schedule))
            for of_schedule in outcomes.values()
        ]
        for row, summary in zip(rows, summarize(series, better=better, seed=seed), strict=True):
            row[metric] = summary
    return rows
