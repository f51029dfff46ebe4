"""Compare: several schedules, the same training seeds, intervals of the paired differences."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from automix.data.loading import load_data
from automix.evaluation.statistics import Interval, interquartile_mean, paired_difference
from automix.experiments.config import CompareConfig
from automix.experiments.cost import CostEstimate, estimate_cost
from automix.experiments.entries import Entry, parse_entries
from automix.experiments.outcomes import OutcomeFile
from automix.experiments.pool import TrainingJob, TrainingOutcome, TrainingPool
from automix.experiments.progress import ProgressBar
from automix.experiments.runs import RunFolder
from automix.random_streams import Stream, derived_seed
from automix.training.build import check_model

_OUTCOMES_NAME = "outcomes.jsonl"
# Width of a cell of the text table.
_CELL = 42
_METRICS = ("calibrated_nll", "nll", "accuracy")


def compare(config: CompareConfig, output: Path) -> dict[str, Any]:
    """Train every entry with every seed in ``output``, or continue; return the table.

    Raises:
        AutoMixError: schedules, data or folder do not fit.
    """
    entries = parse_entries(config.schedules, config.environment, seed=config.seed)
    data = load_data(config.task.data)
    check_model(config.task, data.seen)
    torch.set_num_threads(config.compute.threads)
    with RunFolder(output, config) as run:
        if run.is_finished:
            return run.read_result()
        outcomes = _train_all(config, entries, run)
        result = {
            "kind": "compare",
            "split": config.split,
            "num_seeds": config.num_seeds,
            "baseline": entries[0].name,
            "data": data.fingerprint,
            "rows": [
                _row(entry.name, outcomes[entry.name], outcomes[entries[0].name], seed=config.seed)
                for entry in entries
            ],
        }
        run.finish(result)
        return result


def predict_cost(config: CompareConfig) -> CostEstimate:
    """Return what `compare` will cost, measured on a few steps; nothing is written."""
    entries = parse_entries(config.schedules, config.environment, seed=config.seed)
    return estimate_cost(
        config.task,
        load_data(config.task.data).for_search(),
        operators=config.environment.operators,
        num_trainings=len(entries) * config.num_seeds,
        evaluations_per_training=1,
        compute=config.compute,
    )


def format_table(result: dict[str, Any]) -> str:
    """Return the comparison as plain text, best first; differences are to the baseline."""
    rows = sorted(result["rows"], key=lambda row: row["calibrated_nll"]["mean"] or math.inf)
    width = max(len(row["name"]) for row in rows)
    heads = "  ".join(f"{head:<{_CELL}}" for head in ("calibrated NLL (nats)", "accuracy"))
    lines = [
        f"{result['num_seeds']} paired seeds, {result['split']} split: mean, interquartile mean, "
        f"difference of the means to {result['baseline']} with its 95% interval",
        f"{'schedule':<{width}}  {heads}",
    ]
    for row in rows:
        cells = "  ".join(_cell(row[metric]) for metric in ("calibrated_nll", "accuracy"))
        lines.append(f"{row['name']:<{width}}  {cells}")
    return "\n".join(lines)


def _cell(summary: dict[str, Any]) -> str:
    if summary["mean"] is None:
        return f"{'diverged':<{_CELL}}"
    text = f"{summary['mean']:.4f} {summary['interquartile_mean']:.4f}"
    if interval := summary["difference"]:
        text += f" {interval['estimate']:+.4f} [{interval['low']:+.4f}, {interval['high']:+.4f}]"
    return f"{text:<{_CELL}}"


def _train_all(
    config: CompareConfig, entries: Sequence[Entry], run: RunFolder
) -> dict[str, list[TrainingOutcome]]:
    # Seed by seed, so that an interrupted comparison is a smaller one.
    jobs = [
        TrainingJob(
            schedule=entry.schedule_for(index),
            seed=derived_seed(config.seed, Stream.COMPARISON, step=index),
            split=config.split,
        )
        for index in range(config.num_seeds)
        for entry in entries
    ]
    known = OutcomeFile(run.path / _OUTCOMES_NAME)
    with (
        TrainingPool(config.task, config.compute, with_test=config.split == "test") as pool,
        ProgressBar("compare", len(jobs)) as bar,
    ):
        outcomes = known.run(jobs, pool.run, on_done=bar.advance)
    return {
        entry.name: outcomes[position :: len(entries)] for position, entry in enumerate(entries)
    }


def _row(
    name: str,
    outcomes: Sequence[TrainingOutcome],
    baseline: Sequence[TrainingOutcome],
    *,
    seed: int,
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": name,
        "num_diverged": sum(outcome.diverged for outcome in outcomes),
        "seconds_per_training": float(np.mean([outcome.seconds for outcome in outcomes])),
    }
    for metric in _METRICS:
        own, other = _values(outcomes, metric), _values(baseline, metric)
        paired = np.isfinite(own) & np.isfinite(other)
        row[metric] = {
            "mean": _finite(float(np.mean(own))),
            "interquartile_mean": _finite(float(interquartile_mean(own))),
            "standard_deviation": _finite(float(np.std(own, ddof=1))),
            "difference": None
            if outcomes is baseline or paired.sum() < 2
            else _interval(paired_difference(own[paired], other[paired], seed=seed)),
            "values": [_finite(float(value)) for value in own],
        }
    return row


def _values(outcomes: Sequence[TrainingOutcome], metric: str) -> NDArray[np.float64]:
    return np.array([getattr(outcome.metrics, metric) for outcome in outcomes], dtype=np.float64)


def _interval(interval: Interval) -> dict[str, float]:
    return dataclasses.asdict(interval)


def _finite(value: float) -> float | None:
    """Return ``value``, or None where JSON has no number: a diverged training."""
    return value if math.isfinite(value) else None
