"""Comparison of schedules with paired seeds."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from automix.data.load import load_data
from automix.evaluation.significance import holm, paired_p_value
from automix.evaluation.statistics import (
    Interval,
    interquartile_mean,
    paired_difference,
    probability_of_improvement,
)
from automix.experiments.common.cost import CostEstimate, estimate_cost
from automix.experiments.common.journal import Journal
from automix.experiments.common.run_folder import RunFolder
from automix.experiments.common.training_pool import (
    SplitName,
    TrainingJob,
    TrainingOutcome,
    train_all,
)
from automix.experiments.compare.schedule_specs import Entry, parse_entries
from automix.experiments.config import CompareConfig
from automix.random_streams import Stream, derived_seed
from automix.reporting.tables import Direction
from automix.schedule import Schedule
from automix.training.trainer import check_model

Series = Mapping[Any, float]
"""One value per run, by what pairs it with the runs of other series, such as the seed. NaN is a
run that diverged."""


def summarize(
    series: Sequence[Series], *, better: Direction, seed: int, baseline: int = 0
) -> list[dict[str, Any]]:
    """Return the summary of each series as plain values for JSON; None where there is no number.

    A summary holds `num_runs`; `mean` with its `interval`; `interquartile_mean`;
    `standard_deviation`; and, over the runs that both share and neither diverged on, against the
    baseline: the mean paired `difference` (BCa bootstrap), `probability_of_improvement` (share of
    the pairs it wins, Wilson's interval), `p_value` (sign flips) and `p_value_holm`, corrected for
    the number of series. Intervals are of 95%. `values` are those of the runs, in their order.

    Args:
        series: what is summarized; those without a run are summarized as having none.
        better: which way the values are better.
        seed: of bootstrap and permutations.
        baseline: position of the series that the others are compared with.
    """
    summaries = [
        _alone(values, seed=seed)
        | _against(None if values is series[baseline] else series[baseline], values, better, seed)
        for values in series
    ]
    tested = [summary for summary in summaries if summary["p_value"] is not None]
    corrected = holm([summary["p_value"] for summary in tested])
    for summary, p_value in zip(tested, corrected, strict=True):
        summary["p_value_holm"] = float(p_value)
    return summaries


def _alone(series: Series, *, seed: int) -> dict[str, Any]:
    values = np.array(list(series.values()), dtype=np.float64)
    is_whole = len(values) > 0 and bool(np.isfinite(values).all())
    is_several = is_whole and len(values) > 1
    zeros = np.zeros_like(values)
    return {
        "num_runs": len(values),
        "mean": float(values.mean()) if is_whole else None,
        "interval": _plain(paired_difference(values, zeros, seed=seed)) if is_several else None,
        "interquartile_mean": interquartile_mean(values) if is_whole else None,
        "standard_deviation": float(values.std(ddof=1)) if is_several else None,
        "values": [float(value) if math.isfinite(value) else None for value in values],
    }


def _against(
    baseline: Series | None, series: Series, better: Direction, seed: int
) -> dict[str, Any]:
    comparison: dict[str, Any] = dict.fromkeys(
        ("difference", "probability_of_improvement", "p_value", "p_value_holm")
    )
    pairs = [
        (value, baseline[key])
        for key, value in series.items()
        if baseline is not None
        and key in baseline
        and math.isfinite(value)
        and math.isfinite(baseline[key])
    ]
    if len(pairs) < 2:
        return comparison
    own, other = np.array(pairs, dtype=np.float64).T
    improvement = probability_of_improvement(better.sign * own, better.sign * other, paired=True)
    return comparison | {
        "difference": _plain(paired_difference(own, other, seed=seed)),
        "probability_of_improvement": _plain(improvement),
        "p_value": paired_p_value(own, other, seed=seed),
    }


def _plain(interval: Interval) -> dict[str, float]:
    return dataclasses.asdict(interval)


HEADINGS = ("mean", "IQM", "difference, 95% interval", "P(better)", "p (Holm)")
"""Columns of `summary_cells`."""


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return one line per row, with columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def summary_cells(summary: Mapping[str, Any]) -> list[str]:
    """Return a summary of `automix.experiments.compare.run` as one cell per heading."""
    if summary["mean"] is None:
        return ["diverged" if summary["num_runs"] else "no run", "", "", "", ""]
    difference, improvement = summary["difference"], summary["probability_of_improvement"]
    return [
        f"{summary['mean']:.4f}",
        f"{summary['interquartile_mean']:.4f}",
        "" if difference is None else interval_text(difference, "+.4f"),
        "" if improvement is None else interval_text(improvement, ".0%"),
        "" if summary["p_value_holm"] is None else f"{summary['p_value_holm']:.2g}",
    ]


def interval_text(interval: Mapping[str, float], style: str) -> str:
    """Return an interval as text; ``style`` is the format of its numbers."""
    estimate, low, high = (format(interval[key], style) for key in ("estimate", "low", "high"))
    return f"{estimate} [{low}, {high}]"


METRICS: Mapping[str, tuple[str, Direction]] = MappingProxyType(
    {
        "calibrated_nll": ("calibrated NLL (nats)", Direction.LOWER),
        "nll": ("NLL (nats)", Direction.LOWER),
        "accuracy": ("accuracy", Direction.HIGHER),
    }
)
"""What is compared: name for people, and which way it is better, by name in a result."""

_JOURNAL_NAME = "outcomes.jsonl"
_PRINTED = ("calibrated_nll", "accuracy")


def compare(
    config: CompareConfig, output: Path, *, named: Mapping[str, Schedule] = MappingProxyType({})
) -> dict[str, Any]:
    """Train every entry with every seed in ``output``, or continue; return the result.

    Its `splits` hold one row per entry for each split of the configuration: `name`,
    `num_diverged`, `seconds_per_training`, and a summary for each of `METRICS` with differences
    to the first entry (`automix.experiments.compare.run`).

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
        if (finished := run.result()) is not None:
            return finished
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
        return run.finish(result)


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
    journal = Journal(run.path / _JOURNAL_NAME)
    outcomes = train_all(jobs, config.task, config.compute, journal=journal, title="compare")
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
        for row, summary in zip(rows, summarize(series, better=better, seed=seed), strict=True):
            row[metric] = summary
    return rows
