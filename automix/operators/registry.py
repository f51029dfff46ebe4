"""The table of operators, and one call that draws and applies."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import Generator, Tensor

from automix.operators.basic import (
    apply_cutmix,
    apply_mixup,
    apply_none,
    draw_cutmix,
    draw_mixup,
    draw_none,
)
from automix.operators.saliency_grafting import apply_saliency_grafting, draw_saliency_grafting
from automix.operators.saliencymix import apply_saliencymix, draw_saliencymix
from automix.operators.types import (
    ApplyFunction,
    BatchShape,
    DrawFunction,
    Draws,
    MixedBatch,
    OperatorSpec,
)
from automix.vocabulary import OPERATOR_FACTS, Operator


def _spec(
    operator: Operator, draw: DrawFunction[Draws], apply: ApplyFunction[Draws]
) -> OperatorSpec[Draws]:
    return OperatorSpec(facts=OPERATOR_FACTS[operator], draw=draw, apply=apply)


# Each operator has draws of its own type, which a table of all of them cannot name.
OPERATORS: Mapping[Operator, OperatorSpec[Any]] = MappingProxyType(
    {
        Operator.NONE: _spec(Operator.NONE, draw_none, apply_none),
        Operator.MIXUP: _spec(Operator.MIXUP, draw_mixup, apply_mixup),
        Operator.CUTMIX: _spec(Operator.CUTMIX, draw_cutmix, apply_cutmix),
        Operator.SALIENCYMIX: _spec(Operator.SALIENCYMIX, draw_saliencymix, apply_saliencymix),
        Operator.SALIENCY_GRAFTING: _spec(
            Operator.SALIENCY_GRAFTING, draw_saliency_grafting, apply_saliency_grafting
        ),
    }
)


def mix(
    operator: Operator | str,
    images: Tensor,
    targets: Tensor,
    *,
    generator: Generator,
    strength: float | None = None,
    num_classes: int | None = None,
    saliency: Tensor | None = None,
    previous: MixedBatch | None = None,
) -> MixedBatch:
    """Draw the parameters of an operator and apply them.

    Args:
        operator: its name.
        images: (B, C, H, W) floating point; never modified.
        targets: (B,) integer classes, or (B, K) one-hot, soft or multi-label.
        generator: source of all randomness, on the device of the images.
        strength: the operator's one knob; its default where None.
        num_classes: number of classes, for integer targets.
        saliency: (B, H, W) floating point, for operators that need it.
        previous: the value of the step before, for operators that need it; None at the first.

    Raises:
        TypeError: images, targets or saliency are of a wrong type.
        ValueError: an unknown operator, a strength outside its range, or a wrong shape.
    """
    spec = OPERATORS[Operator(operator)]
    facts = spec.facts.strength
    strength = facts.default if strength is None else strength
    if not facts.low <= strength <= facts.high:
        raise ValueError(
            f"strength: expected {facts.low} to {facts.high} for {operator} ({facts.meaning}), "
            f"got {strength}"
        )
    if images.dim() != 4:
        raise ValueError(f"images: expected shape (B, C, H, W), got {tuple(images.shape)}")
    batch, _, height, width = images.shape
    draws = spec.draw(BatchShape(batch, height, width), strength=strength, generator=generator)
    return spec.apply(
        images,
        targets,
        draws,
        num_classes=num_classes,
        saliency_BHW=saliency,
        previous=previous,
    )
