"""Cost of a step of RL-Mix beyond a plain training step: ours against the published one.

    python -m benchmarks.rlmix --json rlmix.json

The published code does not run on a CPU (every device is written out as CUDA), so its sequence of
operations is re-created here at the same sizes: a full pass for the saliency of the clean batch, a
quantile of every row at every image's percentile, float64 masks, a second full pass on the mixed
batch whose input gradient gives the reward, copies to the host in between. Both are compared with a
plain step of their own loop: overhead = step / plain step - 1. The agent itself is not timed.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor
from torch.nn import functional as F

from automix.configuration.task import ModelConfig, TaskConfig
from automix.configuration.trainer import TrainerConfig
from automix.data.splits import ChannelStatistics, SearchData, Split
from automix.models.build import build_model
from automix.operator_info import Operator
from automix.random_streams import Stream, stream_generator
from automix.schedule import Decision
from automix.training.trainer import build_trainer
from benchmarks.measure import median_seconds
from envs.rlmix.config import RLMixConfig
from envs.rlmix.env import RLMixEnv

NUM_CLASSES = 100
_STEPS = 10_000


@dataclass(frozen=True, kw_only=True)
class Options:
    """Cost of a step of RL-Mix over a plain training step."""

    model: str = "preact_resnet18"
    """The network."""
    width: int = 16
    """Channels of its first stage; 64 is the published network."""
    layer: str = "stage3"
    """Where our cheap gradient maps are taken."""
    batch_size: int = 100
    """Images per step."""
    size: int = 32
    """Side of the images, in pixels."""
    threads: int = 1
    """Threads of torch."""
    rounds: int = 7
    """Times each step is timed; the median counts."""
    json: Path | None = None
    """File for the figures."""


class Published:
    """The published step, re-created: order, passes and copies as in its environment."""

    def __init__(self, options: Options, data: SearchData) -> None:
        self.model = build_model(
            ModelConfig(name=options.model, width=options.width),
            num_classes=NUM_CLASSES,
            channels=3,
            generator=stream_generator(0, Stream.INITIALIZATION),
        ).train()
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4
        )
        images, self.labels = data.train.take(torch.arange(options.batch_size))
        self.images = images.float() / 255
        self.targets = F.one_hot(self.labels, NUM_CLASSES).float()
        self.generator = np.random.default_rng(0)
        self.actions: list[int] = []
        self.saliency = self.observe()

    def plain(self) -> None:
        """One training step on the clean batch."""
        self.optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(self.model(self.images), self.labels))
        self.optimizer.step()

    def observe(self) -> Tensor:
        """Return the pooled saliency of the clean batch; its gradients are thrown away."""
        images = self.images.clone().requires_grad_()
        logits = self.model(images)
        loss = 2 * F.cross_entropy(logits, self.labels, reduction="none") / NUM_CLASSES
        torch.autograd.backward(loss.mean())
        assert images.grad is not None
        maps = images.grad.square().mean(dim=1).sqrt()
        self.optimizer.zero_grad()
        pooled = F.avg_pool2d(maps[:, None], maps.shape[-1] // 8)[:, 0]
        shares = pooled / pooled.sum(dim=(1, 2), keepdim=True)
        self.observation = shares.cpu().numpy(), logits.detach().cpu().numpy()
        return pooled

    def step(self) -> None:
        """Mix as a random action says, train, compute the reward, and observe again."""
        action = self.generator.integers(10, size=len(self.images))
        for index in action:
            self.actions.append(int(index))
        mixed, targets = self._mixed(torch.linspace(0, 0.99, 10)[torch.from_numpy(action)])
        images = mixed.clone().requires_grad_()
        logits = self.model(images)
        loss = (-targets * logits.log_softmax(dim=1)).sum(dim=1).mean()
        torch.autograd.backward(loss)
        assert images.grad is not None
        maps = F.avg_pool2d(images.grad.square().mean(dim=1).sqrt()[:, None], maps_side(images))
        self.optimizer.step()
        self.optimizer.zero_grad()
        clean, other = self.saliency.flatten(), maps.flatten()
        self.reward = F.cosine_similarity(clean, other, dim=0).item()
        self.saliency = self.observe()

    def _mixed(self, percentiles: Tensor) -> tuple[Tensor, Tensor]:
        grid = int(self.generator.choice([2, 4]))
        cells = F.avg_pool2d(self.saliency[:, None], 8 // grid)[:, 0]
        rows = (cells / cells.sum(dim=(1, 2), keepdim=True)).flatten(1)
        # Every row at every image's percentile, of which the diagonal is kept.
        thresholds = torch.quantile(rows, percentiles, dim=1).diagonal()
        masks = (rows >= thresholds[:, None]).to(torch.int64).view(-1, 1, grid, grid)
        masks = F.interpolate(masks.double(), size=self.images.shape[-2:], mode="nearest")
        order = torch.from_numpy(self.generator.permutation(len(self.images)))
        partner_masks = masks[order]
        w1, w2 = self.generator.dirichlet([1.0, 1.0])
        equal = (masks == partner_masks).double()
        first = ((masks == 1) & (partner_masks == 0)).double()
        second = ((masks == 0) & (partner_masks == 1)).double()
        partner = self.images[order]
        mixed = equal * (w1 * self.images + w2 * partner) + first * self.images + second * partner
        areas = [mask.mean(dim=(1, 2, 3))[:, None] for mask in (equal, first, second)]
        targets = areas[0] * (w1 * self.targets + w2 * self.targets[order])
        targets = targets + areas[1] * self.targets + areas[2] * self.targets[order]
        return mixed.float(), targets.float()


def maps_side(images: Tensor) -> int:
    """Return the pixels along a side of one of 8 x 8 cells."""
    return images.shape[-1] // 8


def random_data(options: Options) -> SearchData:
    """Return uniform noise as images: what they show does not change what a step costs."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        shape = (count, 3, options.size, options.size)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        labels = torch.randint(0, NUM_CLASSES, (count,), generator=generator)
        return Split(images=images, labels=labels, num_classes=NUM_CLASSES)

    return SearchData(
        train=split(5 * options.batch_size),
        reward=split(options.batch_size),
        selection=split(1),
        class_names=tuple(map(str, range(NUM_CLASSES))),
        statistics=ChannelStatistics(mean=(0.5,) * 3, std=(0.25,) * 3),
        fingerprint="noise",
    )


def steps_of(options: Options) -> dict[str, Callable[[], Any]]:
    """Return what is timed, by name."""
    data = random_data(options)
    # Small steps for a long time: noise must not make the training diverge.
    task = TaskConfig(
        model=ModelConfig(name=options.model, width=options.width),
        trainer=TrainerConfig(
            epochs=_STEPS // 5, batch_size=options.batch_size, learning_rate=1e-4
        ),
    )
    published = Published(options, data)
    trainer = build_trainer(task, data, seed=0)
    calls: dict[str, Callable[[], Any]] = {
        "published: plain step": published.plain,
        "published: step": published.step,
        "ours: plain step": lambda: trainer.train(Decision(operator=Operator.NONE), num_steps=1),
    }
    cheap = RLMixConfig(layer=options.layer, reward="gradient_similarity")
    variants = {
        f"published reward at {options.layer}": cheap,
        f"validation gain, maps of {options.layer}": RLMixConfig(
            layer=options.layer, validate_every=500
        ),
        "published reward at the image": cheap.model_copy(update={"layer": None}),
    }
    for name, config in variants.items():
        calls[f"ours: step, {name}"] = _step_of(task, config, data)
    return calls


def _step_of(task: TaskConfig, config: RLMixConfig, data: SearchData) -> Callable[[], Any]:
    env = RLMixEnv(task, config, data=data, seed=0)
    env.reset()
    action = np.random.default_rng(0).integers(10, size=task.trainer.batch_size)
    return lambda: env.step(action)


def main(options: Options) -> None:
    """Measure, print, and write the figures."""
    torch.set_num_threads(options.threads)
    seconds = median_seconds(steps_of(options), rounds=options.rounds, device=torch.device("cpu"))
    print(
        f"{options.model}, width {options.width}, batches of {options.batch_size} x 3 x "
        f"{options.size} x {options.size}, {options.threads} thread, torch {torch.__version__}"
    )
    print("\n| step | ms | overhead over its plain step | fraction of the published |")
    print("|---|---:|---:|---:|")
    published = _overhead(seconds, "published: step")
    rows = []
    for name, value in seconds.items():
        overhead = _overhead(seconds, name)
        rows.append({"name": name, "ms": 1e3 * value, "overhead": overhead})
        fraction = f"{overhead / published:.2f}" if overhead else ""
        print(f"| {name} | {1e3 * value:.1f} | {overhead:.2f} | {fraction} |")
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


def _overhead(seconds: dict[str, float], name: str) -> float:
    return seconds[name] / seconds[name.split(":", maxsplit=1)[0] + ": plain step"] - 1


if __name__ == "__main__":
    main(tyro.cli(Options))
