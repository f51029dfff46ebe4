"""Runs of training scripts in the tests, and what their batches and losses were."""

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

from automix.schedule import Schedule

scheduled_mix: Any = importlib.import_module("automix.integrations.scheduled_mix")
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Client:
    """A script, its command line, and the class of its loss."""

    name: str
    script: Path
    arguments: str
    loss: tuple[str, str]


TIMM = Client(
    "timm",
    Path(os.environ.get("AUTOMIX_TIMM_TRAIN", _HERE / "timm_train.py")),
    "{folder} --model test_resnet --input-size 3 16 16 --num-classes 3 --epochs 3 "
    "--warmup-epochs 0 --batch-size 4 --opt sgd --lr 0.05 --device cpu --workers 0 "
    "--output {folder}/out",
    ("timm.loss", "SoftTargetCrossEntropy"),
)
TORCHVISION = Client(
    "torchvision",
    Path(os.environ.get("AUTOMIX_TORCHVISION_TRAIN", _HERE / "torchvision_train.py")),
    "--data-path {folder} --epochs 3 --batch-size 4 --device cpu --workers 0",
    ("torch.nn", "CrossEntropyLoss"),
)


@dataclass
class Run:
    """Steps, targets and losses of a script that trained; losses by the script and by hand."""

    steps: list[tuple[int, str]] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)
    losses: list[tuple[float, float]] = field(default_factory=list)


def seen(client: Client, schedule: Schedule, folder: Path, options: str = "") -> Run:
    """Run the script on the images of ``folder``, and return what was seen."""
    run, mix_step = Run(), scheduled_mix.mix_step
    loss_class = getattr(importlib.import_module(client.loss[0]), client.loss[1])
    forward = loss_class.forward

    def watched_step(decision: Any, *args: Any, **options: Any) -> Any:
        run.steps.append((options["key"].step, decision.operator.value))
        return mix_step(decision, *args, **options)

    def watched_loss(self: Any, logits: Tensor, targets: Tensor) -> Tensor:
        loss: Tensor = forward(self, logits, targets)
        if targets.ndim == 2:
            smoothing = getattr(self, "label_smoothing", 0.0)
            smooth = (1 - smoothing) * targets + smoothing / targets.shape[1]
            by_hand = -(smooth * logits.log_softmax(1)).sum(1).mean()
            run.losses.append((loss.item(), by_hand.item()))
            run.targets.append(targets)
        return loss

    train = importlib.import_module(f"automix.integrations.{client.name}").train
    arguments = [*client.arguments.format(folder=folder).split(), *options.split()]
    with (
        _own_interpreter(client),
        mock.patch.object(scheduled_mix, "mix_step", watched_step),
        mock.patch.object(loss_class, "forward", watched_loss),
    ):
        train(schedule, client.script, arguments)
    return run


@contextmanager
def _own_interpreter(client: Client) -> Iterator[None]:
    """Give the script a command line and a search path that are forgotten afterwards."""
    with mock.patch.object(sys, "argv", [""]), mock.patch.object(sys, "path", [*sys.path]):
        try:
            yield
        finally:
            sys.modules.pop(client.script.stem, None)


def seen_in_ranks(client: Client, schedule: Schedule, folder: Path) -> tuple[int, Run]:
    """Run it in a process of several that have joined one world."""
    return dist.get_rank(), seen(client, schedule, folder)
