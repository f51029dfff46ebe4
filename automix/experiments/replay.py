"""Replay: one training that follows a schedule file, evaluated once on the test split."""

import dataclasses
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from automix.data.loading import load_data
from automix.errors import DivergedError
from automix.experiments.config import ReplayConfig
from automix.experiments.progress import ProgressBar
from automix.experiments.runs import RunFolder
from automix.files import write_bytes
from automix.schedule import Decision, Schedule, Segment
from automix.training.build import build_trainer
from automix.training.metrics import TrainMetrics
from automix.training.trainer import ClassifierTrainer

_WEIGHTS_NAME = "classifier.safetensors"


def replay(config: ReplayConfig, schedule: Schedule, output: Path) -> dict[str, Any]:
    """Train with ``schedule`` in ``output``; return the result, also if it is there already.

    The classifier (averaged weights, if any) is written as safetensors.

    Raises:
        AutoMixError: data or folder do not fit, or the training diverged.
    """
    data = load_data(config.task.data)
    torch.set_num_threads(config.compute.threads)
    with RunFolder(output, config) as run:
        if run.is_finished:
            return run.read_result()
        schedule.save(output / "schedule.json")
        trainer = build_trainer(config.task, data.for_search(), seed=config.seed)
        applied = _train(trainer, schedule, run)
        metrics = trainer.evaluate(data.test)
        weights = {
            name: value.cpu().contiguous()
            for name, value in trainer.evaluated_model.state_dict().items()
        }
        write_bytes(output / _WEIGHTS_NAME, safetensors.torch.save(weights))
        result = {
            "kind": "replay",
            "test": dataclasses.asdict(metrics),
            "selection": dataclasses.asdict(trainer.evaluate(data.selection)),
            "schedule_hash": schedule.decision_hash(),
            "applied_hash": applied.decision_hash(),
            "seed": config.seed,
            "steps": trainer.total_steps,
            "data": data.fingerprint,
        }
        run.finish(result)
        return result
