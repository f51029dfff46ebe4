"""A network in training, and how far cheap or old saliency maps agree with its input gradient."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from automix.data.batches import BatchPreparer
from automix.data.splits import Split
from automix.operators.mixup_cutmix import apply_mixup, draw_mixup
from automix.operators.types import BatchShape
from automix.saliency.gradient import input_gradient
from automix.saliency.sources import SaliencySource
from automix.training.metrics import soft_cross_entropy

GRIDS = (8, 4)
_WARMUP_STEPS = 20

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Overlap of the top quarter of cells with the input gradient's, mean over images.

    Attributes:
        by_grid: one figure per side of the grid in `GRIDS`.
    """

    by_grid: tuple[float, ...]


class Training:
    """Trains a network.

    Attributes:
        model: the network.
        rate: learning rate, reached after a warmup.
        num_steps: optimizer steps so far.
    """

    def __init__(
        self,
        model: nn.Module,
        split: Split,
        preparer: BatchPreparer,
        *,
        batch_size: int,
    ) -> None:
        self.model = model.train()
        self.generator = torch.Generator().manual_seed(0)
        self._split = split
        self._preparer = preparer
        self._batch_size = batch_size
        self.rate = 0.0
        self.num_steps = 0
        self._optimizer = torch.optim.SGD(
            model.parameters(), lr=0.0, momentum=0.9, nesterov=True, weight_decay=5e-4
        )
        self._batches = self._endless_batches()

    def next_batch(self) -> Batch:
        """Return the next augmented batch of endless shuffled epochs."""
        return next(self._batches)

    def step(self, batch: Batch, *, mixes: bool = True) -> None:
        """Run one optimizer step, on a fresh Mixup of the batch unless told otherwise."""
        images, labels = batch
        if mixes:
            shape = BatchShape(len(images), *images.shape[-2:])
            draws = draw_mixup(shape, strength=1.0, generator=self.generator)
            mixed = apply_mixup(images, labels, draws, num_classes=self._split.num_classes)
            images, targets = mixed.images, mixed.targets
        else:
            targets = nn.functional.one_hot(labels, self._split.num_classes).float()
        self.num_steps += 1
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate * min(1.0, self.num_steps / _WARMUP_STEPS)
        self._optimizer.zero_grad()
        torch.autograd.backward(soft_cross_entropy(self.model(images), targets))
        self._optimizer.step()

    def save(self, path: Path) -> None:
        """Write what `load` needs."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "num_steps": self.num_steps,
        }
        torch.save(state, path)

    def load(self, path: Path) -> None:
        """Continue from a file, on batches that were not drawn before."""
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.num_steps = state["num_steps"]
        self.generator.manual_seed(self.num_steps)

    @torch.no_grad()
    def accuracy(self, split: Split) -> float:
        """Return the fraction of images of another split that are classified correctly."""
        self.model.eval()
        num_right = torch.zeros((), dtype=torch.int64)
        for start in range(0, len(split), 500):
            images, labels = split.take(torch.arange(start, min(start + 500, len(split))))
            logits = self.model(self._preparer.evaluation(images))
            num_right += (logits.argmax(dim=1) == labels).sum()
        self.model.train()
        return num_right.item() / len(split)

    def _endless_batches(self) -> Iterator[Batch]:
        while True:
            order = torch.randperm(len(self._split), generator=self.generator)
            num_batches = len(order) // self._batch_size
            for indices in torch.split(order, self._batch_size)[:num_batches]:
                images, labels = self._split.take(indices)
                yield self._preparer.training(images, generator=self.generator), labels


def agreement_of_sources(
    training: Training, sources: Mapping[str, SaliencySource], *, num_batches: int
) -> dict[str, Agreement]:
    """Compare each source with the input gradient of the same weights on the same images."""
    values: dict[str, list[Tensor]] = {name: [] for name in sources}
    for _ in range(num_batches):
        images, labels = training.next_batch()
        reference = input_gradient(training.model, images, labels)
        for name, source in sources.items():
            values[name].append(_overlaps(source(training.model, images, labels), reference))
    return {name: _mean(overlaps) for name, overlaps in values.items()}


def agreement_of_held_maps(
    training: Training, *, num_steps: int, num_batches: int
) -> list[Agreement]:
    """Compare maps of age 0, 1, ... with fresh ones while the same batch is trained on.

    Each batch is held for ``num_steps`` steps, with a fresh Mixup in each.
    """
    values: list[list[Tensor]] = [[] for _ in range(num_steps)]
    for _ in range(num_batches):
        images, labels = training.next_batch()
        kept = input_gradient(training.model, images, labels)
        for age in range(num_steps):
            fresh = input_gradient(training.model, images, labels) if age else kept
            values[age].append(_overlaps(kept, fresh))
            training.step((images, labels))
    return [_mean(overlaps) for overlaps in values]


def agreement_of_old_maps(training: Training, *, ages: Sequence[int]) -> dict[int, Agreement]:
    """Compare one batch's maps with fresh ones after so many steps on other batches."""
    images, labels = training.next_batch()
    old = input_gradient(training.model, images, labels)
    results = {}
    for age in range(1, max(ages, default=0) + 1):
        training.step(training.next_batch())
        if age in ages:
            fresh = input_gradient(training.model, images, labels)
            results[age] = _mean([_overlaps(old, fresh)])
    return results


def generator_of(seed: int) -> Generator:
    """Return a CPU generator."""
    return torch.Generator().manual_seed(seed)


def agreement(maps_BHW: Tensor, reference_BHW: Tensor, *, grid: int = 8) -> Tensor:
    """Return the fraction of the reference's most salient cells that are among the map's.

    Both maps are averaged over ``grid`` x ``grid`` cells; compared are the top quarter of each.
    Unrelated maps agree to 0.25 on average.

    Args:
        maps_BHW: a source's maps.
        reference_BHW: the maps to compare with, usually the input gradient's.
        grid: cells per side, at least 2.

    Returns:
        (B,) float32 in [0, 1].
    """
    num_top = grid * grid // 4
    tops = []
    for maps in (maps_BHW, reference_BHW):
        cells = F.adaptive_avg_pool2d(maps[:, None].float(), grid).flatten(1)
        top = cells.topk(num_top, dim=1).indices
        tops.append(torch.zeros_like(cells).scatter_(1, top, 1.0))
    return (tops[0] * tops[1]).sum(dim=1) / num_top


def _overlaps(maps_BHW: Tensor, reference_BHW: Tensor) -> Tensor:
    return torch.stack([agreement(maps_BHW, reference_BHW, grid=grid) for grid in GRIDS])


def _mean(overlaps: Sequence[Tensor]) -> Agreement:
    return Agreement(by_grid=tuple(torch.cat(list(overlaps), dim=1).mean(dim=1).tolist()))
