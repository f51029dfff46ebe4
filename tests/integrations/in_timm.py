"""Runs of timm's training script in the tests, and what its batches and its loss were."""

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from automix.integrations.timm import train
from automix.schedule import Schedule

SCRIPT = Path(os.environ.get("AUTOMIX_TIMM_TRAIN", Path(__file__).with_name("timm_train.py")))
scheduled_mix: Any = importlib.import_module("automix.integrations.scheduled_mix")
loss_class: Any = importlib.import_module("timm.loss").SoftTargetCrossEntropy
ARGUMENTS = (
    "--model test_resnet --input-size 3 16 16 --num-classes 3 --epochs 3 --warmup-epochs 0 "
    "--batch-size 4 --opt sgd --lr 0.05 --device cpu --workers 0"
)


@dataclass
class Run:
    """Steps, targets and losses of a script that trained."""

    steps: list[tuple[int, str]] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)
    losses: list[tuple[float, float]] = field(default_factory=list)


def seen(schedule: Schedule, folder: Path, options: str = "") -> Run:
    """Run the script on the images of ``folder``; the losses are the script's and those by hand."""
    run = Run()
    mix_step, forward = scheduled_mix.mix_step, loss_class.forward

    def watched_step(decision: Any, *args: Any, **options: Any) -> Any:
        run.steps.append((options["key"].step, decision.operator.value))
        return mix_step(decision, *args, **options)

    def watched_loss(self: Any, logits: Tensor, targets: Tensor) -> Tensor:
        loss: Tensor = forward(self, logits, targets)
        by_hand = F.cross_entropy(logits, targets)
        run.losses.append((loss.item(), by_hand.item()))
        run.targets.append(targets)
        return loss

    with (
        _own_interpreter(),
        mock.patch.object(scheduled_mix, "mix_step", watched_step),
        mock.patch.object(loss_class, "forward", watched_loss),
    ):
        train(
            schedule,
            SCRIPT,
            [str(folder), f"--output={folder}/out", *ARGUMENTS.split(), *options.split()],
        )
    return run


@contextmanager
def _own_interpreter() -> Iterator[None]:
    """Give the script a command line and a search path that are forgotten afterwards."""
    with mock.patch.object(sys, "argv", [""]), mock.patch.object(sys, "path", [*sys.path]):
        try:
            yield
        finally:
            sys.modules.pop(SCRIPT.stem, None)


def seen_in_ranks(schedule: Schedule, folder: Path) -> tuple[int, Run]:
    """Run it in a process of several that have joined one world."""
    return dist.get_rank(), seen(schedule, folder)
