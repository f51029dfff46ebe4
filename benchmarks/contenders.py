"""Functions to time: our operators, torchvision v2, timm, and functions named by the user."""

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from automix.operator_info import Operator
from automix.operators.blend import take
from automix.operators.guidedmixup import gaussian_blur, greedy_partner
from automix.operators.puzzlemix.energy import PuzzleWeights
from automix.operators.registry import OPERATORS
from automix.operators.sampling import unit_sum
from automix.operators.types import BatchShape, MixedBatch
from benchmarks.inputs import Batch

NUM_CLASSES = 100

Call = Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """An operator with options.

    Attributes:
        operator: its name.
        draw: options of its drawing half.
        apply: options of its applying half.
        limit: largest multiple of the floor at 32 x 32 on one thread that we promise.
    """

    operator: Operator
    draw: Mapping[str, Any] = field(default_factory=dict)
    apply: Mapping[str, Any] = field(default_factory=dict)
    limit: float | None = None


VARIANTS: Mapping[str, Variant] = {
    "none": Variant(operator=Operator.NONE),
    "mixup": Variant(operator=Operator.MIXUP, limit=1.3),
    "mixup, one lam": Variant(operator=Operator.MIXUP, draw={"per": "batch"}),
    "cutmix": Variant(operator=Operator.CUTMIX, limit=2),
    "cutmix, one box": Variant(operator=Operator.CUTMIX, draw={"per": "batch"}),
    "cutmix, one box, in place": Variant(
        operator=Operator.CUTMIX, draw={"per": "batch"}, apply={"in_place": True}
    ),
    "resizemix": Variant(operator=Operator.RESIZEMIX, limit=4),
    "fmix": Variant(operator=Operator.FMIX, limit=8),
    "fmix, one mask": Variant(operator=Operator.FMIX, draw={"per": "batch"}, limit=2.5),
    "gridmix": Variant(operator=Operator.GRIDMIX),
    "saliencymix": Variant(operator=Operator.SALIENCYMIX, limit=3),
    "puzzlemix 4x4, still": Variant(
        operator=Operator.PUZZLEMIX, apply={"transport": False}, limit=20
    ),
    "puzzlemix 4x4": Variant(operator=Operator.PUZZLEMIX, limit=30),
    "puzzlemix 8x8, 2 labels": Variant(
        operator=Operator.PUZZLEMIX, apply={"weights": PuzzleWeights(grid=8, num_labels=2)}
    ),
    "puzzlemix 16x16": Variant(
        operator=Operator.PUZZLEMIX, apply={"weights": PuzzleWeights(grid=16)}, limit=200
    ),
    "comixup 4x4": Variant(operator=Operator.COMIXUP, limit=50),
    "guidedmixup, random pairs": Variant(
        operator=Operator.GUIDEDMIXUP, draw={"pairing": "random"}, limit=4
    ),
    "guidedmixup": Variant(operator=Operator.GUIDEDMIXUP),
    "rmix 4x4": Variant(operator=Operator.RMIX, apply={"grid": 4}, limit=3),
    "rmix 8x8": Variant(operator=Operator.RMIX, apply={"grid": 8}, limit=3),
    "saliency_grafting": Variant(operator=Operator.SALIENCY_GRAFTING, limit=3),
    "recursivemix": Variant(operator=Operator.RECURSIVEMIX),
}
"""Operators of the table that are missing here are timed with their defaults."""

PAIRING = "guidedmixup, pairing alone"
PAIRING_LIMIT = 15.0


def floor(batch: Batch) -> Call:
    """Return what everything is compared with: index and blend with one weight."""
    partner = torch.randperm(len(batch.images), device=batch.images.device)

    def blend_all() -> Tensor:
        return torch.lerp(batch.images, batch.images[partner], 0.3)

    return blend_all


def all_variants() -> dict[str, Variant]:
    """Return `VARIANTS` and the defaults of every other registered operator."""
    timed = {variant.operator for variant in VARIANTS.values()}
    others = [operator for operator in OPERATORS if operator not in timed]
    return dict(VARIANTS) | {str(name): Variant(operator=name) for name in others}


def our_call(variant: Variant, batch: Batch, generator: Generator) -> Call:
    """Return a call of one of our operators, draws included."""
    spec = OPERATORS[variant.operator]
    count, _, height, width = batch.images.shape
    facts = spec.facts
    saliency = batch.saliency if facts.needs_saliency else None
    # What may be written over is a copy of its own, as for timm.
    images = batch.images.clone() if variant.apply.get("in_place") else batch.images

    def mix(previous: MixedBatch | None) -> MixedBatch:
        draws = spec.draw(
            BatchShape(count, height, width),
            strength=facts.strength.default,
            generator=generator,
            **variant.draw,
        )
        return spec.apply(
            images,
            batch.targets,
            draws,
            num_classes=NUM_CLASSES,
            saliency_BHW=saliency,
            previous=previous,
            **variant.apply,
        )

    return partial(mix, mix(None) if facts.needs_previous else None)


def pairing_call(batch: Batch) -> Call:
    """Return a call of GuidedMixup's greedy pairing."""
    maps = unit_sum(gaussian_blur(batch.saliency))
    return partial(greedy_partner, maps)


def neighbors(batch: Batch) -> Iterator[tuple[str, Call]]:
    """Yield the mixing functions of torchvision and timm that can take the batch.

    They draw from global generators. timm writes into its input, so it gets a copy of its own.
    """
    # Here, not on top: a benchmark with --ours-only needs neither.
    from timm.data.mixup import Mixup  # noqa: PLC0415
    from torchvision.transforms import v2  # noqa: PLC0415

    images, targets = batch.images, batch.targets
    for name, transform in (
        ("torchvision v2 MixUp", v2.MixUp(num_classes=NUM_CLASSES)),
        ("torchvision v2 CutMix", v2.CutMix(num_classes=NUM_CLASSES)),
    ):
        yield name, partial(transform, images, targets)
    if len(images) % 2:
        return  # timm refuses odd batches
    own_copy = take(images, torch.arange(len(images), device=images.device))
    for mode in ("batch", "elem"):
        for name, alphas in (("Mixup", (1.0, 0.0)), ("CutMix", (0.0, 1.0))):
            mixer = Mixup(  # type: ignore[no-untyped-call]
                *alphas, mode=mode, num_classes=NUM_CLASSES, label_smoothing=0.0
            )
            yield f"timm {name}, {mode}", partial(mixer, own_copy, targets)


def named_function(path: str) -> Callable[[Tensor, Tensor], object]:
    """Return the function that ``module:function`` names.

    Raises:
        ValueError: the path has another form, or there is no such function.
    """
    module, _, name = path.partition(":")
    if not module or not name:
        raise ValueError(f"against: expected module:function, got {path!r}")
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(f"against: expected a module of Python, got {module!r}: {error}") from None
    function: Callable[[Tensor, Tensor], object] | None = getattr(imported, name, None)
    if not callable(function):
        raise ValueError(f"against: expected a function in {module}, got {name!r}")
    return function
