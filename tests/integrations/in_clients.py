"""One short run in each library's own loop, and what its batches and losses were."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from automix.integrations import ScheduledMix
from automix.schedule import Decision, even_schedule

scheduled_mix: Any = importlib.import_module("automix.integrations.scheduled_mix")
NUM_CLASSES, IMAGES, BATCH, EPOCHS = 3, 24, 4, 3
OPERATORS = ("cutmix", "mixup", "saliencymix")
IN_TURN = even_schedule([Decision(operator=name) for name in OPERATORS])
QUIET = {
    "logger": False, "enable_model_summary": False, "enable_progress_bar": False,
    "enable_checkpointing": False, "accelerator": "cpu",
}  # fmt: skip


@dataclass
class Run:
    """Steps and losses of a run: those of the loop, and those by hand."""

    steps: list[tuple[int, str]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    by_hand: list[float] = field(default_factory=list)

    def take(self, logits: Tensor, targets: Tensor, loss: Tensor) -> None:
        """Keep the losses of a batch."""
        self.losses.append(loss.item())
        self.by_hand.append(-(targets * logits.log_softmax(1)).sum(1).mean().item())


@contextmanager
def watched(run: Run) -> Iterator[None]:
    """Keep the steps that are mixed."""
    mix_step = scheduled_mix.mix_step

    def watched_step(decision: Any, *args: Any, **options: Any) -> Any:
        run.steps.append((options["key"].step, decision.operator.value))
        return mix_step(decision, *args, **options)

    with mock.patch.object(scheduled_mix, "mix_step", watched_step):
        yield


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, NUM_CLASSES))


def loader(workers: int = 0) -> DataLoader[tuple[Tensor, ...]]:
    images = torch.rand(IMAGES, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(images, torch.arange(IMAGES) % NUM_CLASSES)
    return DataLoader(data, BATCH, num_workers=workers)


def accelerate_run(folder: Path, *, epochs: int, resumes: bool, forgets: bool, workers: int) -> Run:
    from accelerate import Accelerator  # noqa: PLC0415
    from accelerate.state import AcceleratorState  # noqa: PLC0415

    accelerator, run = Accelerator(cpu=True), Run()
    try:
        raw = network()
        model, optimizer, batches = accelerator.prepare(
            raw, torch.optim.AdamW(raw.parameters()), loader(workers)
        )
        mix = ScheduledMix(
            IN_TURN,
            num_classes=NUM_CLASSES,
            total_steps=EPOCHS * len(batches),
            model=model,
            rank=accelerator.process_index,
            optimizer=optimizer,
        )
        if not forgets:
            accelerator.register_for_checkpointing(mix)
        if resumes:
            accelerator.load_state(str(folder / "accelerate"))
        for _ in range(epochs):
            for images, labels in batches:
                mixed, targets = mix(images, labels)
                logits = model(mixed)
                loss = F.cross_entropy(logits, targets)
                run.take(logits, targets, loss)
                optimizer.zero_grad()
                accelerator.backward(loss)
                optimizer.step()
        accelerator.save_state(str(folder / "accelerate"))
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    return run


def fabric_run(folder: Path, *, epochs: int, resumes: bool, forgets: bool, workers: int) -> Run:
    from lightning.fabric import Fabric  # noqa: PLC0415

    devices = dist.get_world_size() if dist.is_initialized() else 1
    fabric = Fabric(accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto")
    fabric.launch()
    raw, run = network(), Run()
    model, optimizer = fabric.setup(raw, torch.optim.AdamW(raw.parameters()))
    batches: Any = fabric.setup_dataloaders(loader(workers))
    mix = ScheduledMix(
        IN_TURN,
        num_classes=NUM_CLASSES,
        total_steps=EPOCHS * len(batches),
        model=model.module,
        rank=fabric.global_rank,
        optimizer=optimizer,
    )
    state: dict[str, Any] = {"model": model, "optimizer": optimizer}
    if not forgets:
        # Objects with a state are saved and restored as networks are.
        state["mix"] = mix
    if resumes:
        fabric.load(folder / "fabric.pt", state)
    for _ in range(epochs):
        for images, labels in batches:
            mixed, targets = mix(images, labels)
            logits = model(mixed)
            loss = F.cross_entropy(logits, targets)
            run.take(logits, targets, loss)
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()
    fabric.save(folder / "fabric.pt", state)
    return run


def lightning_run(folder: Path, *, epochs: int, resumes: bool, forgets: bool, workers: int) -> Run:
    from lightning.pytorch import LightningModule, Trainer  # noqa: PLC0415

    from automix.integrations.lightning_callback import ScheduledMixCallback  # noqa: PLC0415

    run = Run()

    class Classifier(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.network(images)
            return logits

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            logits = self(batch[0])
            loss = F.cross_entropy(logits, batch[1])
            run.take(logits, batch[1], loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters())

    devices = dist.get_world_size() if dist.is_initialized() else 1
    strategy = "ddp" if devices > 1 else "auto"
    batches = loader(workers)
    total_steps = EPOCHS * len(batches) // devices
    trainer = Trainer(
        max_epochs=epochs + resumes,
        devices=devices,
        strategy=strategy,
        callbacks=[ScheduledMixCallback(IN_TURN, num_classes=NUM_CLASSES, total_steps=total_steps)],
        **QUIET,  # type: ignore[arg-type]
    )
    path = folder / "lightning.ckpt"
    if forgets:
        torch.save(torch.load(path, weights_only=True) | {"callbacks": {}}, path)
    trainer.fit(Classifier(), batches, ckpt_path=path if resumes else None, weights_only=True)
    trainer.save_checkpoint(path)
    return run


def fastai_run(folder: Path, *, epochs: int, resumes: bool, forgets: bool, workers: int) -> Run:
    from fastai.basics import DataLoaders, Learner  # noqa: PLC0415
    from fastai.callback import progress  # noqa: F401, PLC0415
    from fastai.losses import CrossEntropyLossFlat  # noqa: PLC0415

    from automix.integrations.fastai import ScheduledMixCallback  # noqa: PLC0415

    run, cross_entropy = Run(), CrossEntropyLossFlat()
    forward = cross_entropy.func.forward

    def watched_loss(logits: Tensor, targets: Tensor) -> Tensor:
        loss: Tensor = forward(logits, targets)
        if targets.ndim == 2:
            run.take(logits, targets, loss)
        return loss

    cross_entropy.func.forward = watched_loss
    data = DataLoaders(loader(workers), loader(), device=torch.device("cpu"))
    mixes = ScheduledMixCallback(IN_TURN, num_classes=NUM_CLASSES)
    learn = Learner(data, network(), loss_func=cross_entropy, cbs=mixes, model_dir=folder)
    learn.path = folder
    with learn.no_bar(), learn.no_logging():
        learn.fit(EPOCHS, 0.01, start_epoch=1 if resumes else 0)
    run.steps, run.losses = run.steps[: 6 * epochs], run.losses[: 6 * epochs]
    run.by_hand = run.by_hand[: 6 * epochs]
    return run


RUNS: dict[str, Callable[..., Run]] = {
    "accelerate": accelerate_run,
    "fabric": fabric_run,
    "lightning": lightning_run,
    "fastai": fastai_run,
}


def seen(
    client: str,
    folder: Path,
    *,
    epochs: int = EPOCHS,
    resumes: bool = False,
    forgets: bool = False,
    workers: int = 0,
) -> Run:
    """Train in the loop of a library, and return what was seen."""
    steps = Run()
    with watched(steps):
        run = RUNS[client](folder, epochs=epochs, resumes=resumes, forgets=forgets, workers=workers)
    run.steps = run.steps or steps.steps
    return run


def seen_in_ranks(client: str, folder: Path) -> tuple[int, Run]:
    """Train in a process of several that have joined one world."""
    return dist.get_rank(), seen(client, folder)
