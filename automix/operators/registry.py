"""The table of operators, and one call that draws and applies."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import Generator, Tensor

from automix.operator_info import OPERATOR_FACTS, Operator
from automix.operators.comixup.operator import apply_comixup, draw_comixup
from automix.operators.fmix import apply_fmix, draw_fmix
from automix.operators.gridmix import apply_gridmix, draw_gridmix
from automix.operators.guidedmixup import apply_guidedmixup, draw_guidedmixup
from automix.operators.mixup_cutmix import (
    apply_cutmix,
    apply_mixup,
    apply_none,
    draw_cutmix,
    draw_mixup,
    draw_none,
)
from automix.operators.puzzlemix.operator import apply_puzzlemix, draw_puzzlemix
from automix.operators.recursivemix import apply_recursivemix, draw_recursivemix
from automix.operators.resizemix import apply_resizemix, draw_resizemix
from automix.operators.rmix import apply_rmix, draw_rmix
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


def _entry(
    operator: Operator, draw: DrawFunction[Draws], apply: ApplyFunction[Draws]
) -> tuple[Operator, OperatorSpec[Any]]:
    return operator, OperatorSpec(facts=OPERATOR_FACTS[operator], draw=draw, apply=apply)


# Each operator has draws of a type of its own, which a table of all of them cannot name; `_entry`
# checks that its two halves agree.
OPERATORS: Mapping[Operator, OperatorSpec[Any]] = MappingProxyType(
    dict(
        (
            _entry(Operator.NONE, draw_none, apply_none),
            _entry(Operator.MIXUP, draw_mixup, apply_mixup),
            _entry(Operator.CUTMIX, draw_cutmix, apply_cutmix),
            _entry(Operator.RESIZEMIX, draw_resizemix, apply_resizemix),
            _entry(Operator.FMIX, draw_fmix, apply_fmix),
            _entry(Operator.GRIDMIX, draw_gridmix, apply_gridmix),
            _entry(Operator.SALIENCYMIX, draw_saliencymix, apply_saliencymix),
            _entry(Operator.PUZZLEMIX, draw_puzzlemix, apply_puzzlemix),
            _entry(Operator.COMIXUP, draw_comixup, apply_comixup),
            _entry(Operator.GUIDEDMIXUP, draw_guidedmixup, apply_guidedmixup),
            _entry(Operator.RMIX, draw_rmix, apply_rmix),
            _entry(Operator.SALIENCY_GRAFTING, draw_saliency_grafting, apply_saliency_grafting),
            _entry(Operator.RECURSIVEMIX, draw_recursivemix, apply_recursivemix),
        )
    )
)


def checked_strength(operator: Operator | str, strength: float | None) -> float:
    """Return the strength of an operator, its default where None.

    Raises:
        ValueError: an unknown operator, or a strength outside its range.
    """
    if operator not in OPERATORS:
        known = ", ".join(OPERATORS)
        raise ValueError(f"operator: expected one of {known}, got {operator!r}")
    facts = OPERATORS[Operator(operator)].facts.strength
    strength = facts.default if strength is None else strength
    if not facts.low <= strength <= facts.high:
        raise ValueError(
            f"strength: expected {facts.low} to {facts.high} for {operator} ({facts.meaning}), "
            f"got {strength}"
        )
    return strength


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
    strength = checked_strength(operator, strength)
    spec = OPERATORS[Operator(operator)]
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
