"""Replays of about a tenth of a second, and what of them must be the same however they are cut."""

import itertools
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from automix.configuration.data import AugmentConfig, DataConfig
from automix.configuration.task import (
    CheckpointConfig,
    ComputeConfig,
    ModelConfig,
    ReplayConfig,
    SaliencyConfig,
    TaskConfig,
)
from automix.configuration.trainer import TrainerConfig
from automix.experiments.replay import run as replay_loop
from automix.experiments.replay.deciders import ReplaySource, ScheduleSource
from automix.experiments.replay.run import replay
from automix.files import read_checkpoint
from automix.operator_info import Operator
from automix.schedule import Decision, Schedule, Segment
from automix.training.trainer import ClassifierTrainer

TOTAL_STEPS = 9

# Of each family one.
FAMILIES = {
    "none": Operator.NONE,
    "random": Operator.CUTMIX,
    "saliency_max": Operator.SALIENCYMIX,
    "saliency_optimal": Operator.PUZZLEMIX,
    "grafting": Operator.SALIENCY_GRAFTING,
    "between": Operator.RMIX,
    "recursive": Operator.RECURSIVEMIX,
}


def tiny(refresh_every: int = 1, **trainer: Any) -> ReplayConfig:
    """Return a replay of 3 epochs of 3 steps, with some fields of its trainer replaced."""
    return ReplayConfig(
        seed=5,
        task=TaskConfig(
            data=DataConfig(
                labels_per_class=3,
                test_size=2,
                reward_size=0,
                selection_size=2,
                augment=AugmentConfig(crop_padding=1),
            ),
            model=ModelConfig(width=2),
            saliency=SaliencyConfig(refresh_every=refresh_every),
            trainer=TrainerConfig(**{"epochs": 3, "batch_size": 8, "max_grad_norm": 1.0} | trainer),
        ),
        validations=4,
        checkpoints=CheckpointConfig(every_minutes=None, every_steps=4),
        compute=ComputeConfig(workers=1, population=1),
    )


def schedule_of(operator: Operator) -> ScheduleSource:
    """Return a schedule of the operator with another one in between, all but always mixing."""
    mixed = Decision(operator=operator, probability=0.0 if operator is Operator.NONE else 0.8)
    return ScheduleSource(
        Schedule(
            segments=(
                Segment(start=0.0, decision=mixed),
                Segment(start=0.5, decision=Decision(operator=Operator.MIXUP, probability=0.5)),
                Segment(start=0.7, decision=mixed),
            )
        )
    )


def outputs(folder: Path, *, last_step: int = TOTAL_STEPS) -> dict[str, Any]:
    """Return everything a finished replay left, without wall-clock times."""
    checkpoint = read_checkpoint(folder / f"checkpoints/step-{last_step:09d}.ckpt")
    assert checkpoint.pop("metrics") == (folder / "metrics.jsonl").read_text()
    result = json.loads((folder / "result.json").read_text())
    return {
        "checkpoint": _without_seconds(checkpoint),
        "best": read_checkpoint(folder / "checkpoints/best.ckpt"),
        "result": _without_seconds(result),
        "metrics": metrics(folder),
        "classifier": (folder / "classifier.safetensors").read_bytes(),
        "facts": (folder / "classifier.json").read_text(),
        "decisions": (folder / "decisions.json").read_text(),
        "schedule": (folder / "schedule.json").read_text(),
    }


def _without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_seconds(item) for key, item in value.items() if key != "seconds"}
    return [_without_seconds(item) for item in value] if isinstance(value, list) else value


def metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of `metrics.jsonl`, without speeds."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in line.items() if key != "train/images_per_second"}
        for line in lines
    ]


class Stops:
    """Sends this process a signal in the middle of chosen optimizer steps."""

    def __init__(self, patch: pytest.MonkeyPatch, *, number: int = signal.SIGTERM) -> None:
        self.steps: set[int] = set()
        self._number = number
        self._train: Callable[..., Any] = ClassifierTrainer.train
        patch.setattr(ClassifierTrainer, "train", self._wrapped())
        # Every step can be the last of an attempt.
        patch.setattr(replay_loop, "_LONGEST_CHUNK", 1)

    def _wrapped(self) -> Callable[..., Any]:
        def train(trainer: ClassifierTrainer, *arguments: Any, **keywords: Any) -> Any:
            if trainer.step in self.steps:
                self.steps.remove(trainer.step)
                signal.raise_signal(self._number)
            return self._train(trainer, *arguments, **keywords)

        return train


def attempts(config: ReplayConfig, source: ReplaySource, folder: Path) -> Iterator[bool]:
    """Replay until it is finished; yield after each attempt whether it was."""
    for _ in itertools.repeat(None, 2 * TOTAL_STEPS):
        try:
            replay(config, source, folder)
        except KeyboardInterrupt:
            yield False
            continue
        yield True
        return
    raise AssertionError("the replay does not end")
