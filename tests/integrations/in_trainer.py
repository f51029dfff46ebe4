"""Runs of Transformers' Trainer in the tests, and what its batches and its loss were."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import Dataset
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments
from transformers.trainer_utils import set_seed

from automix.integrations.transformers import mix_in_trainer
from automix.schedule import Schedule

scheduled_mix: Any = importlib.import_module("automix.integrations.scheduled_mix")
NUM_CLASSES, IMAGES = 3, 24


class Items(Dataset[dict[str, Tensor]]):
    """Images of noise with names."""

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(index)
        image = torch.rand(3, 8, 8, generator=generator)
        return {"pixel_values": image, "labels": torch.tensor(index % NUM_CLASSES)}


@dataclass
class Run:
    """Steps of a run, the losses by hand, by batch, and those that the Trainer logs, by step."""

    steps: list[tuple[int, str]] = field(default_factory=list)
    images: list[Tensor] = field(default_factory=list)
    by_hand: list[float] = field(default_factory=list)
    logged: list[float] = field(default_factory=list)
    problem_type: str | None = None


def new_trainer(folder: Path, **options: Any) -> Any:
    """Return a Trainer of a small network; ``options`` are those of it and of its arguments."""
    set_seed(0)
    of_trainer = {
        name: options.pop(name) for name in ("data_collator", "compute_loss_func") & options.keys()
    }
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic", num_labels=NUM_CLASSES
    )
    settings = {
        "num_train_epochs": 3, "per_device_train_batch_size": 4, "use_cpu": True,
        "report_to": "none", "logging_steps": 1, "save_strategy": "no", "disable_tqdm": True,
        "learning_rate": 0.01,
    }  # fmt: skip
    arguments = TrainingArguments(str(folder), **settings | options)
    model = ResNetForImageClassification(config)
    return Trainer(model, arguments, train_dataset=Items(), eval_dataset=Items(), **of_trainer)


def seen(
    schedule: Schedule,
    folder: Path,
    *,
    resume: str | None = None,
    attach: Callable[..., Any] = mix_in_trainer,
    **options: Any,
) -> Run:
    """Train, and return what was seen."""
    run, mix_step, trainer = Run(), scheduled_mix.mix_step, new_trainer(folder, **options)

    def watched_step(decision: Any, *args: Any, **keywords: Any) -> Any:
        run.steps.append((keywords["key"].step, decision.operator.value))
        return mix_step(decision, *args, **keywords)

    attach(trainer, schedule)
    loss_of = trainer.compute_loss_func

    def watched_loss(outputs: Any, labels: Tensor, **keywords: Any) -> Tensor:
        by_image = -(labels * outputs.logits.log_softmax(1)).sum(1)
        run.by_hand.append(by_image.mean().item())
        loss: Tensor = loss_of(outputs, labels, **keywords)
        return loss

    def watch_images(module: Any, inputs: Any, keywords: Any) -> None:
        if "pixel_values" in keywords:
            run.images.append(keywords["pixel_values"].detach())

    trainer.compute_loss_func = watched_loss
    trainer.model.register_forward_pre_hook(watch_images, with_kwargs=True)
    with mock.patch.object(scheduled_mix, "mix_step", watched_step):
        trainer.train(resume_from_checkpoint=resume)
    run.logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    run.problem_type = trainer.model.config.problem_type
    return run


def seen_in_ranks(schedule: Schedule, folder: Path) -> tuple[int, Run]:
    """Train in a process of several that have joined one world."""
    from accelerate.state import AcceleratorState  # noqa: PLC0415

    try:
        return dist.get_rank(), seen(schedule, folder)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
