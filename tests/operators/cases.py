"""Batches, scenarios and calls that the operator tests share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from automix.operator_info import Operator
from automix.operators.fmix import FMixDraws
from automix.operators.gridmix import GridMixDraws
from automix.operators.mixup_cutmix import CutMixDraws, MixupDraws, NoneDraws
from automix.operators.puzzlemix.operator import PuzzleMixDraws
from automix.operators.recursivemix import RecursiveMixDraws
from automix.operators.registry import OPERATORS
from automix.operators.resizemix import ResizeMixDraws
from automix.operators.rmix import RMixDraws
from automix.operators.saliencymix import SaliencyMixDraws
from automix.operators.types import BatchShape, MixedBatch

ALL = sorted(OPERATORS)
WITH_SALIENCY = [name for name in ALL if OPERATORS[name].facts.needs_saliency]
# Their labels are the ratio of the importance that survives; see the slow reference.
LABELS_ARE_PIXEL_SHARES = sorted(
    set(ALL) - {Operator.SALIENCY_GRAFTING, Operator.BERNOULLI_GRAFTING}
)
TWO_PARENTS = sorted(set(ALL) - {Operator.COMIXUP})
# The others show pixels of the partner at another place, or of an earlier batch.
REBUILT_BY_MASK = sorted(
    set(TWO_PARENTS) - {Operator.RESIZEMIX, Operator.PUZZLEMIX, Operator.RECURSIVEMIX}
)
NUM_CLASSES = 11


@dataclass(frozen=True)
class Scenario:
    """One kind of batch."""

    batch: int
    channels: int = 3
    size: tuple[int, int] = (32, 32)
    dtype: torch.dtype = torch.float32
    layout: str = "contiguous"

    def __str__(self) -> str:
        height, width = self.size
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.batch}x{self.channels}x{height}x{width}-{dtype}-{self.layout}"


# Every batch size, channel count, size, dtype and layout occurs, and every layout with a dtype
# other than float32.
SCENARIOS = [
    Scenario(1),
    Scenario(2, channels=1, layout="channels_last"),
    Scenario(3, channels=4, size=(24, 40)),
    Scenario(7, size=(13, 17), layout="strided"),
    Scenario(5, size=(24, 40), dtype=torch.float16, layout="channels_last"),
    Scenario(3, channels=1, size=(13, 17), dtype=torch.bfloat16),
    Scenario(2, channels=4, size=(17, 16), dtype=torch.float16, layout="strided"),
    Scenario(7, size=(30, 33), dtype=torch.bfloat16, layout="channels_last"),
]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def as_laid_out(images: Tensor, layout: str) -> Tensor:
    """Return equal images in a memory layout."""
    if layout == "channels_last":
        return images.contiguous(memory_format=torch.channels_last)
    if layout == "strided":
        return torch.stack([images, images], -1).flatten(3)[..., ::2]
    return images.contiguous()


def random_images(scenario: Scenario, seed: int = 0) -> Tensor:
    shape = (scenario.batch, scenario.channels, *scenario.size)
    images = torch.randn(shape, generator=seeded(seed)).to(scenario.dtype)
    return as_laid_out(images, scenario.layout)


def constant_images(scenario: Scenario) -> Tensor:
    """Return images whose every pixel is their class over 16, exact in half precision."""
    level = torch.arange(scenario.batch).view(-1, 1, 1, 1) / 16
    shape = (scenario.batch, scenario.channels, *scenario.size)
    return as_laid_out(level.expand(shape).to(scenario.dtype), scenario.layout)


def classes(scenario: Scenario) -> Tensor:
    """Return a class of its own for each image."""
    return torch.arange(scenario.batch)


def random_saliency(scenario: Scenario, seed: int = 0) -> Tensor:
    """Return positive maps with a peak, like those of a trained network."""
    coarse = torch.randn((scenario.batch, 1, 4, 4), generator=seeded(seed)).exp()
    smooth = torch.nn.functional.interpolate(coarse, size=scenario.size, mode="bilinear")
    noise = torch.rand((scenario.batch, *scenario.size), generator=seeded(seed + 1))
    return smooth[:, 0] * (noise + 0.5)


def shape_of(images: Tensor) -> BatchShape:
    return BatchShape(images.shape[0], images.shape[2], images.shape[3])


def draw(operator: Operator, images: Tensor, seed: int = 0) -> Any:
    """Return the parameters of an operator of its default strength."""
    spec = OPERATORS[operator]
    strength = spec.facts.strength.default
    return spec.draw(shape_of(images), strength=strength, generator=seeded(seed))


def previous_batch(scenario: Scenario) -> MixedBatch:
    """Return a mixed batch of constant images, in which the classes are reversed."""
    images, targets = constant_images(scenario).flip(0), classes(scenario).flip(0)
    spec = OPERATORS[Operator.MIXUP]
    return spec.apply(images, targets, draw(Operator.MIXUP, images, 9), num_classes=NUM_CLASSES)


def apply(
    operator: Operator,
    scenario: Scenario,
    images: Tensor,
    draws: Any,
    targets: Tensor | None = None,
) -> MixedBatch:
    """Apply an operator with whatever else it needs."""
    spec = OPERATORS[operator]
    targets = classes(scenario) if targets is None else targets
    return spec.apply(
        images,
        targets,
        draws,
        num_classes=NUM_CLASSES,
        saliency_BHW=random_saliency(scenario) if spec.facts.needs_saliency else None,
        previous=previous_batch(scenario) if spec.facts.needs_previous else None,
    )


def _reversed(batch: int) -> Tensor:
    return torch.arange(batch - 1, -1, -1)


def _no_box(batch: int) -> Tensor:
    return torch.tensor([3, 3, 2, 9]).expand(batch, 4)


# Draws with which nothing of the partner is left. GuidedMixup has none: both maps have a sum of
# 1, so each image has a weight somewhere. Saliency Grafting has them only with an option.
IDENTITY: dict[Operator, Callable[[BatchShape], Any]] = {
    Operator.NONE: lambda shape: NoneDraws(torch.arange(shape.batch)),
    Operator.MIXUP: lambda shape: MixupDraws(_reversed(shape.batch), torch.ones(shape.batch)),
    Operator.MANIFOLD_MIXUP: lambda shape: MixupDraws(
        _reversed(shape.batch), torch.ones(shape.batch)
    ),
    Operator.CUTMIX: lambda shape: CutMixDraws(
        _reversed(shape.batch), torch.ones(shape.batch), _no_box(shape.batch)
    ),
    Operator.RESIZEMIX: lambda shape: ResizeMixDraws(_reversed(shape.batch), _no_box(shape.batch)),
    Operator.RECURSIVEMIX: lambda shape: RecursiveMixDraws(_no_box(shape.batch)),
    Operator.FMIX: lambda shape: FMixDraws(
        _reversed(shape.batch),
        torch.ones(shape.batch),
        torch.zeros(shape.batch),
        torch.randn((shape.batch, shape.height, shape.width // 2 + 1, 2), generator=seeded(0)),
    ),
    Operator.GRIDMIX: lambda shape: GridMixDraws(
        _reversed(shape.batch), *torch.tensor([1, 3, 1, 0.9, 1, 0, 0]).expand(shape.batch, 7).T
    ),
    Operator.SALIENCYMIX: lambda shape: SaliencyMixDraws(
        _reversed(shape.batch), torch.ones(shape.batch), *torch.zeros((2, shape.batch)).long()
    ),
    Operator.PUZZLEMIX: lambda shape: PuzzleMixDraws(
        _reversed(shape.batch), torch.ones(shape.batch)
    ),
    Operator.RMIX: lambda shape: RMixDraws(
        _reversed(shape.batch), torch.zeros(shape.batch), torch.ones(shape.batch)
    ),
}
