"""Stands for timm's ``train.py`` in the tests: what of it decides who mixes, and with what loss.

Names, signatures, order and defaults are those of the script, all parts those of the library. The
same tests run the script itself where AUTOMIX_TIMM_TRAIN names it; tried with that of 1.0.29.
"""

import argparse
import importlib
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

timm_data: Any = importlib.import_module("timm.data")
timm_loss: Any = importlib.import_module("timm.loss")
timm_utils: Any = importlib.import_module("timm.utils")
Mixup, FastCollateMixup = timm_data.Mixup, timm_data.FastCollateMixup
create_model: Any = importlib.import_module("timm").create_model
resume_checkpoint: Any = importlib.import_module("timm.models").resume_checkpoint
create_optimizer_v2: Any = importlib.import_module("timm.optim").create_optimizer_v2
create_scheduler_v2: Any = importlib.import_module("timm.scheduler").create_scheduler_v2
ClassificationTask: Any = importlib.import_module("timm.task").ClassificationTask


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("data_dir")
    for name, default in (
        ("num-classes", 10), ("batch-size", 128), ("epochs", 300), ("cooldown-epochs", 0),
        ("warmup-epochs", 5), ("workers", 4), ("seed", 42), ("mixup-off-epoch", 0),
        ("grad-accum-steps", 1), ("aug-splits", 0), ("mixup", 0.0), ("cutmix", 0.0),
        ("smoothing", 0.1), ("lr", 0.05), ("model", ""), ("opt", "sgd"), ("device", "cuda"),
        ("output", ""), ("experiment", ""), ("resume", ""),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--input-size", type=int, nargs=3)
    parser.add_argument("--no-prefetcher", action="store_true")
    parser.add_argument("--jsd-loss", action="store_true")
    args = parser.parse_args()
    args.prefetcher = not args.no_prefetcher
    args.rank = dist.get_rank() if dist.is_initialized() else 0
    return args


def main() -> None:
    args = parse_args()
    device = torch.device(args.device)
    torch.manual_seed(args.seed + args.rank)
    model = create_model(args.model, num_classes=args.num_classes).to(device)
    loader_train, mixup_fn, mixup_active = loader_of(args, device)
    loss = loss_of(args, mixup_active=mixup_active)
    task = ClassificationTask(model=model, criterion=loss, device=device, verbose=False)
    optimizer = create_optimizer_v2(task.get_trainable_module(), opt=args.opt, lr=args.lr)
    start_epoch = 0
    if args.resume:
        start_epoch = resume_checkpoint(model, args.resume, optimizer) or 0
    if dist.is_initialized():
        task.prepare_distributed()
    _, num_epochs = create_scheduler_v2(
        optimizer, num_epochs=args.epochs, cooldown_epochs=args.cooldown_epochs
    )
    folder = timm_utils.get_outdir(args.output, args.experiment) if args.experiment else None
    for epoch in range(start_epoch, num_epochs):
        train_one_epoch(
            epoch,
            task.get_trainable_module(),
            loader_train,
            optimizer,
            args,
            task=task,
            device=device,
            mixup_fn=mixup_fn,
        )
        if folder is not None:
            saver = timm_utils.CheckpointSaver(model, optimizer, args, checkpoint_dir=folder)
            saver.save_checkpoint(epoch)


def loader_of(args: argparse.Namespace, device: torch.device) -> tuple[Any, Any, bool]:
    collate_fn, mixup_fn = None, None
    mixup_active = args.mixup > 0 or args.cutmix > 0
    if mixup_active:
        mixup_args = {
            "mixup_alpha": args.mixup,
            "cutmix_alpha": args.cutmix,
            "label_smoothing": args.smoothing,
            "num_classes": args.num_classes,
        }
        if args.prefetcher:
            collate_fn = FastCollateMixup(**mixup_args)
        else:
            mixup_fn = Mixup(**mixup_args)
    dataset = timm_data.create_dataset("", root=args.data_dir, split="train", is_training=True)
    loader = timm_data.create_loader(
        dataset,
        input_size=tuple(args.input_size),
        batch_size=args.batch_size,
        is_training=True,
        use_prefetcher=args.prefetcher,
        num_workers=args.workers,
        collate_fn=collate_fn,
        device=device,
        distributed=dist.is_initialized(),
    )
    return loader, mixup_fn, mixup_active


def loss_of(args: argparse.Namespace, *, mixup_active: bool) -> Any:
    if args.jsd_loss:
        return timm_loss.JsdCrossEntropy(num_splits=args.aug_splits, smoothing=args.smoothing)
    if mixup_active:
        return timm_loss.SoftTargetCrossEntropy()
    if args.smoothing:
        return timm_loss.LabelSmoothingCrossEntropy(smoothing=args.smoothing)
    return nn.CrossEntropyLoss()


def train_one_epoch(  # noqa: PLR0917
    epoch: int,
    model: nn.Module,
    loader: Any,
    optimizer: torch.optim.Optimizer,
    args: argparse.Namespace,
    task: Any = None,
    device: Any = "cuda",
    mixup_fn: Any = None,
) -> None:
    if args.mixup_off_epoch and epoch >= args.mixup_off_epoch:
        if args.prefetcher and loader.mixup_enabled:
            loader.mixup_enabled = False
        elif mixup_fn is not None:
            mixup_fn.mixup_enabled = False
    model.train()
    optimizer.zero_grad()
    for index, batch in enumerate(loader):
        images, target = batch
        if not args.prefetcher:
            images, target = images.to(device), target.to(device)
            if mixup_fn is not None:
                images, target = mixup_fn(images, target)
        torch.autograd.backward(task(images, target)["loss"] / args.grad_accum_steps)
        if (index + 1) % args.grad_accum_steps == 0 or index == len(loader) - 1:
            optimizer.step()
            optimizer.zero_grad()


if __name__ == "__main__":
    main()
