"""Stands for torchvision's ``references/classification/train.py``: its loader, loss and epochs.

Names, signatures, order and defaults are those of the script; without logging, evaluation, EMA and
models. The same tests run the script itself where AUTOMIX_TORCHVISION_TRAIN names it.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torchvision
from torch import nn
from torch.utils.data.dataloader import default_collate
from torchvision.transforms import v2


def get_mixup_cutmix(*, mixup_alpha: float, cutmix_alpha: float, num_classes: int) -> Any:
    mixup_cutmix: list[Any] = []
    if mixup_alpha > 0:
        mixup_cutmix.append(v2.MixUp(alpha=mixup_alpha, num_classes=num_classes))
    if cutmix_alpha > 0:
        mixup_cutmix.append(v2.CutMix(alpha=cutmix_alpha, num_classes=num_classes))
    return v2.RandomChoice(mixup_cutmix) if mixup_cutmix else None


def train_one_epoch(  # noqa: PLR0917
    model: nn.Module,
    criterion: nn.Module,
    optimizer: torch.optim.Optimizer,
    data_loader: Any,
    device: torch.device,
    epoch: int,
    args: argparse.Namespace,
    model_ema: Any = None,
    scaler: Any = None,
) -> None:
    model.train()
    for batch in data_loader:
        image, target = batch[0].to(device), batch[1].to(device)
        loss = criterion(model(image), target)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()


def main(args: argparse.Namespace) -> None:
    args.distributed = dist.is_initialized()
    if args.distributed:
        args.rank = dist.get_rank()
    device = torch.device(args.device)
    to_tensors = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
    dataset = torchvision.datasets.ImageFolder(Path(args.data_path) / "train", to_tensors)
    sampler: Any = torch.utils.data.RandomSampler(dataset)
    if args.distributed:
        sampler = torch.utils.data.distributed.DistributedSampler(dataset)
    num_classes = len(dataset.classes)
    mixup_cutmix = get_mixup_cutmix(
        mixup_alpha=args.mixup_alpha, cutmix_alpha=args.cutmix_alpha, num_classes=num_classes
    )

    def collate_fn(batch: Any) -> Any:
        collated = default_collate(batch)
        return collated if mixup_cutmix is None else mixup_cutmix(*collated)

    data_loader = torch.utils.data.DataLoader(
        dataset, args.batch_size, sampler=sampler, num_workers=args.workers, collate_fn=collate_fn
    )
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    model.append(nn.Linear(16, num_classes)).to(device)
    model_without_ddp = model
    if args.distributed:
        model = nn.parallel.DistributedDataParallel(model)
    criterion = nn.CrossEntropyLoss(label_smoothing=args.label_smoothing)
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9)
    if args.resume:
        checkpoint = torch.load(args.resume, map_location="cpu", weights_only=True)
        model_without_ddp.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        args.start_epoch = checkpoint["epoch"] + 1
    for epoch in range(args.start_epoch, args.epochs):
        if args.distributed:
            sampler.set_epoch(epoch)
        train_one_epoch(model, criterion, optimizer, data_loader, device, epoch, args)
        if args.output_dir:
            checkpoint = {
                "model": model_without_ddp.state_dict(),
                "optimizer": optimizer.state_dict(),
                "epoch": epoch,
            }
            torch.save(checkpoint, Path(args.output_dir) / f"model_{epoch}.pth")


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    for name, default in (
        ("data-path", ""), ("device", "cuda"), ("batch-size", 32), ("epochs", 90), ("workers", 16),
        ("lr", 0.1), ("label-smoothing", 0.0), ("mixup-alpha", 0.0), ("cutmix-alpha", 0.0),
        ("output-dir", ""), ("resume", ""), ("start-epoch", 0), ("model", "resnet18"),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=type(default), default=default)
    return parser


if __name__ == "__main__":
    main(get_args_parser().parse_args())
