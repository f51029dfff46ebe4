"""Probe: whether constant operators help on a task, and what a search there would cost."""

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
from automix.experiments.common.population_choice import POPULATION_NAME, settled
from automix.experiments.common.run_folder import Journal, RunFolder, format_seconds
from automix.experiments.common.summaries import align, interval_text, mean_interval, plain
from automix.experiments.common.training_pool import (
    SplitName,
    TrainingJob,
    TrainingOutcome,
    train_all,
)
from automix.experiments.config import ProbeConfig
from automix.experiments.search.learning import plan_of
from automix.experiments.search.run import count_runs
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

JOURNAL_NAME = "outcomes.jsonl"
# Below this, less than a fifth of the variance of a training run is due to its schedule.
LOW_CORRELATION = 0.2
Losses = Mapping[str, NDArray[np.float64]]


def probe(config: ProbeConfig, output: Path) -> dict[str, Any]:
    """Train the constants in ``output``, or resume; return what they say about a search.

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
        journal = Journal(run.path / JOURNAL_NAME)
        jobs = _jobs(config)
        compute = settled(
            run.path / POPULATION_NAME,
            config.task,
            config.compute,
            data,
            num_runs=len(jobs),
            num_processes=config.compute.workers,
        )
        outcomes = train_all(jobs, config.task, compute, journal=journal, title="probe")
        losses = losses_of(outcomes, "reward", num_classes=data.num_classes)
        return run.finish({"kind": "probe"} | _findings(config, losses, journal.seconds))


def predict_cost(config: ProbeConfig) -> CostEstimate:
    """Return what `probe` will cost, measured on a few steps; nothing is written."""
    return estimate_cost(
        config.task,
        load_search_data(config.task.data),
        operators=config.environment.operators,
        num_runs=len(_jobs(config)),
        evaluations_per_run=1,
        compute=config.compute,
    )


def format_findings(result: Mapping[str, Any]) -> str:
    """Return the findings as text, the best constant first."""
    correlation, mixing = result["intraclass_correlation"], result["mixing"]
    rows = [["constant", "calibrated NLL (nats), 95% interval"]]
    rows += [[row["name"], interval_text(row["interval"], ".4f")] for row in result["constants"]]
    lines = align(rows)
    lines.append(f"random schedules: {result['random_mean']:.4f}")
    lines.append(
        "fraction of the variance of a training run due to its operator: "
        + interval_text(correlation, ".2f")
    )
    if mixing is not None:
        lines.append(
            f"{mixing['name']} against none: {interval_text(mixing['difference'], '+.4f')}; "
            f"mixing helps here: {mixing['verdict']}"
        )
    lines.append(
        f"a search with its selection takes {result['search_trainings']} training runs, "
        f"{format_seconds(result['search_seconds'])}"
    )
    return "\n".join([*lines, *(f"warning: {warning}" for warning in result["warnings"])])


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
    # ln K, the loss of equal probabilities: diverging is bad, but no reason to drop an operator.
    return np.where(np.isfinite(losses), losses, math.log(num_classes))


def mixing_verdict(losses: Losses, *, seed: int) -> dict[str, Any] | None:
    """Return how the best operator that mixes compares with none; None without none."""
    none = Decision(operator=Operator.NONE).label()
    others = {name: values for name, values in losses.items() if name != none}
    if none not in losses or not others:
        return None
    # The best of several by the same runs, so its interval is optimistic: the verdict is a hint
    # for planning, not a result.
    best = min(others, key=lambda name: float(others[name].mean()))
    interval = paired_difference(others[best], losses[none], seed=seed)
    verdict = "yes" if interval.high < 0 else "no" if interval.low > 0 else "not clear"
    return {"name": best, "difference": plain(interval), "verdict": verdict}


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
    decisions = constant_decisions(operators)
    return {decision.label(): constant_schedule(decision) for decision in decisions}


def _jobs(config: ProbeConfig) -> list[TrainingJob]:
    """Return the jobs: constants by name, then random schedules."""
    # The same seeds for each constant: differences are paired.
    numbers = range(config.num_seeds)
    schedules = [(one, number) for one in _constants(config).values() for number in numbers]
    choices = ActionCodec(config.environment).decisions()
    for index in range(config.random_schedules):
        seed = derived_seed(config.seed, Stream.POLICY, step=index)
        num_segments = config.environment.num_segments
        schedules.append((random_schedule(choices, num_segments=num_segments, seed=seed), index))
    return [
        TrainingJob(
            schedule=schedule,
            seed=derived_seed(config.seed, Stream.PROBE, step=number),
            splits=("reward",),
        )
        for schedule, number in schedules
    ]


def _findings(config: ProbeConfig, losses: NDArray[np.float64], seconds: float) -> dict[str, Any]:
    names, count = list(_constants(config)), config.num_seeds
    table = {name: losses[i * count : (i + 1) * count] for i, name in enumerate(names)}
    # ICC(1): variance between operators / (variance between operators + seed noise). A search
    # learns from single runs, so this is the fraction of its signal.
    correlation = intraclass_correlation(np.stack(list(table.values())))
    verdict = mixing_verdict(table, seed=config.seed)
    search_runs = sum(count_runs(config).values())
    per_run = seconds / len(losses)
    return {
        "split": "reward",
        "constants": [
            {
                "name": name,
                "interval": mean_interval(values, seed=config.seed),
                "values": values.tolist(),
            }
            for name, values in sorted(table.items(), key=lambda item: float(item[1].mean()))
        ],
        # Where a search begins, and what the best constant is to be compared with.
        "random_mean": float(losses[len(names) * count :].mean()),
        "intraclass_correlation": plain(correlation),
        "mixing": verdict,
        "search_trainings": search_runs,
        "search_seconds": search_runs * per_run,
        "seconds_per_training": per_run,
        "warnings": _warnings(correlation, verdict),
    }


def _warnings(correlation: Interval, verdict: Mapping[str, Any] | None) -> list[str]:
    warnings = []
    if correlation.estimate < LOW_CORRELATION:
        warnings.append(
            "operators hardly differ beyond seed noise: take fewer labels less seriously, more "
            "steps, a larger reward split, or another task"
        )
    if verdict is not None and verdict["verdict"] != "yes":
        warnings.append(
            "no operator is clearly better than none: so short a run underfits, or the data "
            "are enough; a search would learn not to mix, which need not hold for the real task"
        )
    return warnings
