"""Work for the processes of `test_ranks`: a loop of a user, in networks whose parts talk."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from automix.integrations import ScheduledMix
from automix.schedule import Schedule

NUM_CLASSES, STEPS = 5, 8


class SynchronizedNorm(nn.BatchNorm2d):
    """Stands for `torch.nn.SyncBatchNorm`, which refuses a CPU: means over all processes."""

    def forward(self, images: Tensor) -> Tensor:
        if not self.training:
            return super().forward(images)
        moments = torch.stack((images.mean((0, 2, 3)), images.square().mean((0, 2, 3)))).detach()
        dist.all_reduce(moments)
        mean, square = (moments / dist.get_world_size()).unbind()
        return F.batch_norm(images, mean, square - mean.square(), self.weight, self.bias)


def network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    norm = SynchronizedNorm(4) if kind == "norms" else nn.Identity()
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(144, NUM_CLASSES)
    )
    if kind != "sharded":
        return nn.parallel.DistributedDataParallel(model)
    from torch.distributed.device_mesh import init_device_mesh  # noqa: PLC0415
    from torch.distributed.fsdp import fully_shard  # noqa: PLC0415

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    fully_shard(model[0], mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def trained(kind: str, schedule: Schedule) -> tuple[list[bool], list[float]]:
    """Train a few steps; return which were mixed, and the losses."""
    model, mixed, losses = network(kind), [], []
    rank = dist.get_rank()
    mix = ScheduledMix(schedule, num_classes=NUM_CLASSES, total_steps=STEPS, model=model, rank=rank)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(STEPS):
        images, labels = batch(step, rank)
        images, targets = mix(images, labels)
        mixed.append(bool((targets.amax(1) < 1).any()))
        loss = F.cross_entropy(model(images), targets)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    return mixed, losses


def batch(step: int, rank: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(100 * rank + step)
    return torch.rand(6, 3, 8, 8, generator=generator), torch.arange(6) % NUM_CLASSES


def refused(kind: str, schedule: Schedule, differing: str) -> str:
    """Return what a process hears that differs from the other one in one argument."""
    options: dict[str, Any] = {"total_steps": STEPS, "seed": 0}
    options[differing] = options[differing] + dist.get_rank()
    mix = ScheduledMix(schedule, num_classes=NUM_CLASSES, model=network(kind), **options)
    try:
        mix(*batch(0, 0))
    except ValueError as error:
        return str(error)
    return "taken"
