"""Compare: several schedules, the same training seeds, intervals of the paired differences."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from automix.data.loading import load_data
from automix.experiments.config import CompareConfig
from automix.experiments.cost import CostEstimate, estimate_cost
from automix.experiments.entries import Entry, parse_entries
from automix.experiments.outcomes import OutcomeFile
from automix.experiments.pool import SplitName, TrainingJob, TrainingOutcome, TrainingPool
from automix.experiments.progress import ProgressBar
from automix.experiments.runs import RunFolder
from automix.experiments.summaries import summarise
from automix.experiments.text_tables import HEADINGS, align, summary_cells
from automix.random_streams import Stream, derived_seed
from automix.reporting.values import Direction
from automix.schedule import Schedule
from automix.training.build import check_model

METRICS: Mapping[str, tuple[str, Direction]] = MappingProxyType(
    {
        "calibrated_nll": ("calibrated NLL (nats)", Direction.LOWER),
        "nll": ("NLL (nats)", Direction.LOWER),
        "accuracy": ("accuracy", Direction.HIGHER),
    }
)
"""What is compared: name for people, and which way it is better, by name in a result."""

_OUTCOMES_NAME = "outcomes.jsonl"
_PRINTED = ("calibrated_nll", "accuracy")


def compare(
    config: CompareConfig, output: Path, *, named: Mapping[str, Schedule] = MappingProxyType({})
) -> dict[str, Any]:
    """Train every entry with every seed in ``output``, or continue; return the result.

    Its `splits` hold one row per entry for each split of the configuration: `name`,
    `num_diverged`, `seconds_per_training`, and a summary for each of `METRICS` with differences
    to the first entry (`automix.experiments.summaries`).

    Args:
        config: what is compared.
        output: folder of the run.
        named: schedules that the configuration may name where it would name a file; the same ones
            whenever the run is continued.

    Raises:
        AutoMixError: schedules, data or folder do not fit.
    """
    entries = parse_entries(config.schedules, config.environment, seed=config.seed, named=named)
    data = load_data(config.task.data)
    check_model(config.task, data.seen)
    torch.set_num_threads(config.compute.threads)
    with RunFolder(output, config) as run:
        if run.is_finished:
            return run.read_result()
        outcomes = _train_all(config, entries, run)
        result = {
            "kind": "compare",
            "num_seeds": config.num_seeds,
            "baseline": entries[0].name,
            "data": data.fingerprint,
            "splits": {
                split: _rows(outcomes, split, seed=config.seed) for split in splits_of(config)
            },
        }
        run.finish(result)
        return result


def splits_of(config: CompareConfig) -> tuple[SplitName, ...]:
    """Return where classifiers are compared."""
    return ("selection", "test") if config.split == "both" else (config.split,)


def predict_cost(config: CompareConfig) -> CostEstimate:
    """Return what `compare` will cost, measured on a few steps; nothing is written."""
    entries = parse_entries(config.schedules, config.environment, seed=config.seed)
    return estimate_cost(
        config.task,
        load_data(config.task.data).for_search(),
        operators=config.environment.operators,
        num_trainings=len(entries) * config.num_seeds,
        evaluations_per_training=len(splits_of(config)),
        compute=config.compute,
    )


def format_table(result: Mapping[str, Any]) -> str:
    """Return the comparison as plain text, best first; differences are to the baseline."""
    lines = [
        f"{result['num_seeds']} paired seeds; mean and interquartile mean (IQM), difference of the "
        f"means to {result['baseline']}, share of the seeds on which it is better, and p-value of "
        f"the difference after Holm's correction for the number of schedules"
    ]
    for split, rows in result["splits"].items():
        ranked = sorted(rows, key=lambda row: row["calibrated_nll"]["mean"] or math.inf)
        for metric in _PRINTED:
            name, better = METRICS[metric]
            lines += ["", f"{name} on the {split} split, {better} is better"]
            cells = [[row["name"], *summary_cells(row[metric])] for row in ranked]
            lines += align([["schedule", *HEADINGS], *cells])
    return "\n".join(lines)


def _train_all(
    config: CompareConfig, entries: Sequence[Entry], run: RunFolder
) -> dict[str, list[TrainingOutcome]]:
    # Seed by seed, so that an interrupted comparison is a smaller one.
    jobs = [
        TrainingJob(
            schedule=entry.schedule_for(index),
            seed=derived_seed(config.seed, Stream.COMPARISON, step=index),
            splits=splits_of(config),
        )
        for index in range(config.num_seeds)
        for entry in entries
    ]
    known = OutcomeFile(run.path / _OUTCOMES_NAME)
    with (
        TrainingPool(config.task, config.compute, with_test="test" in splits_of(config)) as pool,
        ProgressBar("compare", len(jobs)) as bar,
    ):
        outcomes = known.run(jobs, pool.run, progress=bar)
    return {
        entry.name: outcomes[position :: len(entries)] for position, entry in enumerate(entries)
    }


def _rows(
    outcomes: Mapping[str, Sequence[TrainingOutcome]], split: SplitName, *, seed: int
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "num_diverged": sum(outcome.diverged for outcome in own),
            "seconds_per_training": float(np.mean([outcome.seconds for outcome in own])),
        }
        for name, own in outcomes.items()
    ]
    for metric, (_, better) in METRICS.items():
        series = [
            {index: getattr(each.metrics[split], metric) for index, each in enumerate(own)}
            for own in outcomes.values()
        ]
        for row, summary in zip(rows, summarise(series, better=better, seed=seed), strict=True):
            row[metric] = summary
    return rows
