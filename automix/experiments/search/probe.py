"""The probe command: do constant operators help here, and what would a search cost."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from automix.errors import ConfigError
from automix.evaluation.statistics import Interval, intraclass_correlation, paired_difference
from automix.experiments.common.cost import CostEstimate, estimate_cost
from automix.experiments.common.journal import Journal
from automix.experiments.common.run_folder import RunFolder, format_seconds
from automix.experiments.common.training_pool import (
    SplitName,
    TrainingJob,
    TrainingOutcome,
    train_all,
)
from automix.experiments.compare.run import align, interval_text
from automix.experiments.config import ProbeConfig
from automix.experiments.search.learning import plan_of
from automix.experiments.search.run import count_trainings
from automix.operator_info import OPERATOR_FACTS, Operator
from automix.random_streams import Stream, derived_seed
from automix.schedule import (
    Decision,
    Schedule,
    constant_decisions,
    constant_schedule,
    random_schedule,
)
from automix.training.trainer import check_model, load_search_data
from envs.actions import ActionCodec


def format_findings(result: Mapping[str, Any]) -> str:
    """Return the findings as text, the best constant first."""
    correlation, better = result["intraclass_correlation"], result["mixing"]
    rows = [["constant", "calibrated NLL (nats), 95% interval"]]
    rows += [[row["name"], interval_text(row["interval"], ".4f")] for row in result["constants"]]
    lines = align(rows)
    lines.append(f"random schedules: {result['random_mean']:.4f}")
    lines.append(
        "share of the variance of a training run that is its operator's: "
        + interval_text(correlation, ".2f")
    )
    if better is not None:
        lines.append(
            f"{better['name']} against none: {interval_text(better['difference'], '+.4f')}; "
            f"mixing helps here: {better['verdict']}"
        )
    lines.append(
        f"a search with its selection takes {result['search_trainings']} training runs, "
        f"{format_seconds(result['search_seconds'])}"
    )
    return "\n".join([*lines, *(f"warning: {warning}" for warning in result["warnings"])])


_JOURNAL_NAME = "outcomes.jsonl"
# Below this, less than a fifth of the variance of a training run is due to its schedule.
_LOW_CORRELATION = 0.2
Losses = Mapping[str, NDArray[np.float64]]


def probe(config: ProbeConfig, output: Path) -> dict[str, Any]:
    """Train the constants in ``output``, or continue; return what they say about a search.

    Losses are calibrated NLL on the reward split, which is what a search learns from.

    Raises:
        AutoMixError: the configuration, the data or the folder do not fit.
    """
    plan_of(config)
    data = load_search_data(config.task.data)
    check_model(config.task, data)
    torch.set_num_threads(config.compute.threads)
    with RunFolder(output, config) as run:
        if (finished := run.result()) is not None:
            return finished
        journal = Journal(run.path / _JOURNAL_NAME)
        losses = _train(config, journal, num_classes=data.num_classes)
        result = {"kind": "probe"} | _findings(config, losses, journal.seconds)
        return run.finish(result)


def predict_cost(config: ProbeConfig) -> CostEstimate:
    """Return what `probe` will cost, measured on a few steps; nothing is written."""
    return estimate_cost(
        config.task,
        load_search_data(config.task.data),
        operators=config.environment.operators,
        num_trainings=_num_trainings(config),
        evaluations_per_training=1,
        compute=config.compute,
    )


def losses_of(
    outcomes: Sequence[TrainingOutcome], split: SplitName, *, num_classes: int
) -> NDArray[np.float64]:
    """Return the calibrated NLL of each training run; one that diverged has that of chance.

    Raises:
        ConfigError: none has a finite loss.
    """
    losses = np.array(
        [outcome.metrics[split].calibrated_nll for outcome in outcomes], dtype=np.float64
    )
    if not np.isfinite(losses).any():
        raise ConfigError(
            "task.trainer: expected training runs with a finite loss, got none: all diverge"
        )
    return np.where(np.isfinite(losses), losses, math.log(num_classes))


def mixing_verdict(losses: Losses, *, seed: int) -> dict[str, Any] | None:
    """Return how the best operator that mixes compares with none; None without none."""
    none = Decision(operator=Operator.NONE).label()
    others = {name: values for name, values in losses.items() if name != none}
    if none not in losses or not others:
        return None
    best = min(others, key=lambda name: float(others[name].mean()))
    interval = paired_difference(others[best], losses[none], seed=seed)
    verdict = "yes" if interval.high < 0 else "no" if interval.low > 0 else "not clear"
    return {"name": best, "difference": dataclasses.asdict(interval), "verdict": verdict}


def middle_constants(operators: Sequence[Operator]) -> dict[str, Schedule]:
    """Return each operator at its middle strength throughout, by name."""
    decisions = [
        Decision(operator=operator, strength=levels[len(levels) // 2])
        for operator in operators
        for levels in (OPERATOR_FACTS[operator].strength.levels,)
    ]
    return {decision.label(): constant_schedule(decision) for decision in decisions}


def _constants(config: ProbeConfig) -> dict[str, Schedule]:
    operators = config.environment.operators
    if not config.every_strength:
        return middle_constants(operators)
    return {each.label(): constant_schedule(each) for each in constant_decisions(operators)}


def _num_trainings(config: ProbeConfig) -> int:
    return len(_constants(config)) * config.num_seeds + config.random_schedules


def _schedules(config: ProbeConfig) -> list[tuple[Schedule, int]]:
    """Return what is trained, with the numbers of the seeds: constants by name, then random."""
    constants = _constants(config).values()
    schedules = [(each, number) for each in constants for number in range(config.num_seeds)]
    choices = ActionCodec(config.environment).decisions()
    num_segments = config.environment.num_segments
    for index in range(config.random_schedules):
        seed = derived_seed(config.seed, Stream.POLICY, step=index)
        drawn = random_schedule(choices, num_segments=num_segments, seed=seed)
        schedules.append((drawn, index))
    return schedules


def _train(config: ProbeConfig, journal: Journal, *, num_classes: int) -> NDArray[np.float64]:
    """Return the loss of each training run of `_schedules`."""
    jobs = [
        TrainingJob(
            schedule=schedule,
            seed=derived_seed(config.seed, Stream.PROBE, step=number),
            splits=("reward",),
        )
        for schedule, number in _schedules(config)
    ]
    outcomes = train_all(jobs, config.task, config.compute, journal=journal, title="probe")
    return losses_of(outcomes, "reward", num_classes=num_classes)


def _findings(config: ProbeConfig, losses: NDArray[np.float64], seconds: float) -> dict[str, Any]:
    names, count = list(_constants(config)), config.num_seeds
    table = {name: losses[i * count : (i + 1) * count] for i, name in enumerate(names)}
    correlation = intraclass_correlation(np.stack(list(table.values())))
    verdict = mixing_verdict(table, seed=config.seed)
    search_trainings = sum(count_trainings(config).values())
    per_training = seconds / _num_trainings(config)
    return {
        "split": "reward",
        "constants": [
            {"name": name, "interval": _mean(values, config.seed), "values": values.tolist()}
            for name, values in sorted(table.items(), key=lambda item: float(item[1].mean()))
        ],
        "random_mean": float(losses[len(names) * count :].mean()),
        "intraclass_correlation": dataclasses.asdict(correlation),
        "mixing": verdict,
        "search_trainings": search_trainings,
        "search_seconds": search_trainings * per_training,
        "seconds_per_training": per_training,
        "warnings": _warnings(correlation, verdict),
    }


def _mean(values: NDArray[np.float64], seed: int) -> dict[str, float]:
    return dataclasses.asdict(paired_difference(values, np.zeros_like(values), seed=seed))


def _warnings(correlation: Interval, verdict: Mapping[str, Any] | None) -> list[str]:
    warnings = []
    if correlation.estimate < _LOW_CORRELATION:
        warnings.append(
            "operators hardly differ beyond the luck of a training run: take fewer labels less "
            "seriously, more steps, a larger reward split, or another task"
        )
    if verdict is not None and verdict["verdict"] != "yes":
        warnings.append(
            "no operator is clearly better than none: so short a run underfits, or the data "
            "are enough; a search would learn not to mix, which need not hold for the real task"
        )
    return warnings
