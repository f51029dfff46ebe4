"""Replay: one training that follows a schedule file, evaluated once on the test split."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from automix.data.loading import load_data
from automix.errors import CheckpointError, DivergedError
from automix.experiments.config import ReplayConfig
from automix.experiments.cost import CostEstimate, estimate_cost
from automix.experiments.progress import ProgressBar
from automix.experiments.runs import RunFolder
from automix.files import write_bytes
from automix.schedule import Decision, Schedule, decisions_hash
from automix.training.build import build_trainer, check_model
from automix.training.metrics import TrainMetrics
from automix.training.optimization import learning_rate_at
from automix.training.trainer import ClassifierTrainer

_SCHEDULE_NAME = "schedule.json"
_WEIGHTS_NAME = "classifier.safetensors"
# Lines in metrics.jsonl of one training, changes of decision apart.
_LOGGED_STRETCHES = 100


def replay(config: ReplayConfig, schedule: Schedule, output: Path) -> dict[str, Any]:
    """Train with ``schedule`` in ``output``; return the result, also if it is there already.

    The classifier (averaged weights, if any) is written as safetensors.

    Raises:
        AutoMixError: data or folder do not fit, or the training diverged.
    """
    data = load_data(config.task.data)
    check_model(config.task, data.seen)
    torch.set_num_threads(config.compute.threads)
    with RunFolder(output, config) as run:
        if run.is_finished:
            return run.read_result()
        _claim(schedule, output / _SCHEDULE_NAME)
        trainer = build_trainer(config.task, data.for_search(), seed=config.seed)
        applied = _train(trainer, schedule, run)
        assert applied == decisions_hash(schedule.decisions(trainer.total_steps))
        metrics = trainer.evaluate(data.test)
        weights = {
            name: value.cpu().contiguous()
            for name, value in trainer.evaluated_model.state_dict().items()
        }
        write_bytes(output / _WEIGHTS_NAME, safetensors.torch.save(weights))
        result = {
            "kind": "replay",
            "test": dataclasses.asdict(metrics),
            "selection": dataclasses.asdict(trainer.evaluate(data.seen.selection)),
            "schedule_hash": schedule.decision_hash(),
            "decisions_hash": applied,
            "seed": config.seed,
            "steps": trainer.total_steps,
            "data": data.fingerprint,
        }
        run.finish(result)
        return result


def predict_cost(config: ReplayConfig, schedule: Schedule) -> CostEstimate:
    """Return what `replay` will cost, measured on a few steps; nothing is written."""
    operators = {segment.decision.operator for segment in schedule.segments}
    return estimate_cost(
        config.task,
        load_data(config.task.data).for_search(),
        operators=sorted(operators),
        num_trainings=1,
        evaluations_per_training=2,
        compute=config.compute.model_copy(update={"workers": 1}),
    )


def _claim(schedule: Schedule, path: Path) -> None:
    """Write the schedule into the run, unless the run follows another one."""
    if path.exists() and Schedule.load(path).decision_hash() != schedule.decision_hash():
        raise CheckpointError(f"{path.parent}: expected a run of this schedule, got another's")
    schedule.save(path)


def _train(trainer: ClassifierTrainer, schedule: Schedule, run: RunFolder) -> str:
    """Train to the end, log every stretch; return a hash of the decision of every step.

    Raises:
        DivergedError: the loss is not finite.
    """
    applied: list[Decision] = []
    longest = max(1, trainer.total_steps // _LOGGED_STRETCHES)
    with ProgressBar("replay", trainer.total_steps) as bar:
        for decision, metrics in trainer.replay(schedule, longest=longest):
            count = trainer.step - len(applied)
            applied += [decision] * count
            if not math.isfinite(metrics.loss):
                raise DivergedError(
                    f"{run.path}: expected a finite loss, got {metrics.loss} before step "
                    f"{trainer.step}; a smaller task.trainer.peak-learning-rate may help"
                )
            _log(run, trainer, decision, metrics)
            bar.advance(count, note=f"{decision.label()}, loss {metrics.loss:.3f}")
    return decisions_hash(applied)


def _log(
    run: RunFolder, trainer: ClassifierTrainer, decision: Decision, metrics: TrainMetrics
) -> None:
    values: dict[str, float | str | None] = {
        "train/loss": metrics.loss,
        "train/clean_accuracy": metrics.clean_accuracy,
        "train/mixed_accuracy": metrics.mixed_accuracy,
        "train/mixed_share": metrics.mixed_share,
        "train/images_per_second": metrics.images_per_second,
        "train/learning_rate": learning_rate_at(trainer.config, trainer.progress),
        "decision": decision.label(),
    }
    run.log(trainer.step, {name: value for name, value in values.items() if value is not None})
