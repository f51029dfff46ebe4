"""Transfer: whether constant operators rank alike on a cheap task and on the real one."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from automix.configuration.task import TaskConfig
from automix.data.splits import SearchData
from automix.errors import ConfigError
from automix.evaluation.statistics import (
    Interval,
    intraclass_correlation,
    paired_difference,
    spearman,
)
from automix.experiments.common.cost import CostEstimate, estimate_cost
from automix.experiments.common.population_choice import POPULATION_NAME, settled
from automix.experiments.common.run_folder import RunFolder
from automix.experiments.common.run_logs import Journal
from automix.experiments.common.summaries import align, interval_text, plain
from automix.experiments.common.training_pool import TrainingJob, TrainingOutcome, train_all
from automix.experiments.config import TransferConfig
from automix.models.pretrained import images_of
from automix.operator_info import Operator
from automix.random_streams import Stream, derived_seed
from automix.schedule import Decision, constant_decisions, constant_schedule
from automix.training.check import check_model
from automix.training.trainer import load_search_data

# Fewer items have no rank correlation worth the name (`automix.evaluation.statistics.spearman`).
_FEWEST_CONSTANTS = 4
# Below this, less than a fifth of the variance of a training run is due to its schedule.
_LOW_CORRELATION = 0.2
Losses = Mapping[str, NDArray[np.float64]]


def transfer(config: TransferConfig, output: Path) -> dict[str, Any]:
    """Train every constant on both tasks in ``output``, or resume; return the comparison.

    Losses are calibrated NLL on the selection split of each task.

    Raises:
        AutoMixError: the configuration, the data or the folder do not fit.
    """
    # It would correlate perfectly, with itself.
    if config.proxy == config.target:
        raise ConfigError("target: expected a task other than the proxy, got the same one twice")
    tasks = {"proxy": config.proxy, "target": config.target}
    data = {name: _load(config, task) for name, task in tasks.items()}
    torch.set_num_threads(config.compute.threads)
    with RunFolder(output, config) as run:
        if (finished := run.result()) is not None:
            return finished
        losses = {
            name: _train(config, task, data[name], run.path / f"{name}.jsonl")
            for name, task in tasks.items()
        }
        return run.finish({"kind": "transfer"} | _findings(config, losses))


def predict_cost(config: TransferConfig) -> dict[str, CostEstimate]:
    """Return what the training runs on proxy and target will cost; nothing is written."""
    return {
        name: estimate_cost(
            task,
            _load(config, task),
            operators=config.environment.operators,
            num_runs=len(constant_decisions(config.environment.operators)) * config.num_seeds,
            evaluations_per_run=1,
            compute=config.compute,
        )
        for name, task in (("proxy", config.proxy), ("target", config.target))
    }


def format_findings(result: Mapping[str, Any]) -> str:
    """Return the comparison as text, the best on the target first."""
    rows = [["constant", "proxy", "target"]]
    rows += [
        [row["name"], f"{row['proxy']:.4f}", f"{row['target']:.4f}"] for row in result["constants"]
    ]
    lines = align(rows)
    lines.append(f"rank correlation: {interval_text(result['spearman'], '.2f')}")
    for name in ("proxy", "target"):
        fraction = interval_text(result["intraclass_correlation"][name], ".2f")
        lines.append(f"{name}: fraction of the variance due to the operator: {fraction}")
    return "\n".join([*lines, *(f"warning: {warning}" for warning in result["warnings"])])


def _load(config: TransferConfig, task: TaskConfig) -> SearchData:
    count = len(constant_decisions(config.environment.operators))
    if count < _FEWEST_CONSTANTS:
        raise ConfigError(
            f"environment.operators: expected operators with at least {_FEWEST_CONSTANTS} "
            f"strengths together, got {count}"
        )
    data = load_search_data(images_of(task))
    check_model(task, data, operators=config.environment.operators)
    return data


def _train(config: TransferConfig, task: TaskConfig, data: SearchData, path: Path) -> Losses:
    decisions = constant_decisions(config.environment.operators)
    jobs = [
        TrainingJob(
            schedule=constant_schedule(decision),
            seed=derived_seed(config.seed, Stream.COMPARISON, step=index),
            splits=("selection",),
        )
        for decision in decisions
        for index in range(config.num_seeds)
    ]
    compute = settled(
        path.with_name(f"{path.stem}-{POPULATION_NAME}"),
        task,
        config.compute,
        data,
        num_runs=len(jobs),
        num_processes=config.compute.workers,
    )
    outcomes = train_all(jobs, task, compute, journal=Journal(path), title=path.stem)
    losses = _losses_of(outcomes, num_classes=data.num_classes)
    table = losses.reshape(len(decisions), config.num_seeds)
    return {decision.label(): row for decision, row in zip(decisions, table, strict=True)}


def _findings(config: TransferConfig, losses: Mapping[str, Losses]) -> dict[str, Any]:
    proxy, target = losses["proxy"], losses["target"]
    means = {name: (float(proxy[name].mean()), float(target[name].mean())) for name in proxy}
    # Ranks, not values: losses of two tasks are on different scales, and a search needs the order.
    correlation = spearman(
        [mean for mean, _ in means.values()], [mean for _, mean in means.values()], seed=config.seed
    )
    fractions = {
        name: intraclass_correlation(np.stack(list(table.values())))
        for name, table in losses.items()
    }
    verdicts = {name: mixing_verdict(table, seed=config.seed) for name, table in losses.items()}
    return {
        "split": "selection",
        "constants": [
            {"name": name, "proxy": first, "target": second}
            for name, (first, second) in sorted(means.items(), key=lambda item: item[1][1])
        ],
        "spearman": plain(correlation),
        "intraclass_correlation": {name: plain(value) for name, value in fractions.items()},
        "mixing": verdicts,
        "warnings": _warnings(correlation, fractions["proxy"], verdicts),
    }


def _warnings(
    correlation: Interval, fraction: Interval, verdicts: Mapping[str, Mapping[str, Any] | None]
) -> list[str]:
    warnings = []
    # With few constants the interval is wide; a proxy has to prove itself.
    if correlation.low <= 0:
        warnings.append(
            "the proxy does not order the constants as the target does, as far as these runs "
            "can tell: a schedule found on it need not help"
        )
    if fraction.estimate < _LOW_CORRELATION:
        warnings.append("on the proxy, operators hardly differ beyond seed noise")
    helps = {name: verdict and verdict["verdict"] for name, verdict in verdicts.items()}
    if helps["target"] == "yes" and helps["proxy"] != "yes":
        warnings.append(
            "mixing helps on the target but not on the proxy, which underfits: train it for longer "
            "or on fewer labels"
        )
    return warnings


def _losses_of(outcomes: Sequence[TrainingOutcome], *, num_classes: int) -> NDArray[np.float64]:
    """Return the calibrated NLL of each training run; one that diverged has that of chance.

    Raises:
        ConfigError: none has a finite loss.
    """
    losses = np.array(
        [outcome.metrics["selection"].calibrated_nll for outcome in outcomes], dtype=np.float64
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
