"""The table of operators, and one call that draws and applies."""

# A new operator touches six places:
#
# 1. automix/operator_info.py: its name in `Operator`, and its row of facts: label, color, family,
#    strength, summary, paper, and whether it needs saliency or the previous batch. Configuration,
#    help, schedules, action space, figures and cost estimates read this row. A test refuses a color
#    that is too close to another one, also in color blindness.
# 2. automix/operators/<name>.py (a folder if it has a solver): a named tuple of draws,
#    `draw_<name>` and `apply_<name>`, with formula, paper and an example in the docstring.
#    `apply_<name>` takes `saliency_BHW` or `previous` only if the facts say so.
# 3. `OPERATORS` below: one line.
# 4. tests/operators/test_<name>.py: the method again as plain loops over pixels, and the
#    comparison. What must hold of every operator is tested without a further line.
# 5. docs/schedule.md: its row in the table of strengths.
# 6. tests/golden/losses.json: `python -m tests.training.golden_losses --add` adds its line.

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Concatenate

from torch import Generator, Tensor

from automix.operator_info import OPERATOR_FACTS, Operator
from automix.operators.adautomix import apply_adautomix, draw_adautomix
from automix.operators.comixup.operator import apply_comixup, draw_comixup
from automix.operators.fmix import apply_fmix, draw_fmix
from automix.operators.gridmix import apply_gridmix, draw_gridmix
from automix.operators.guidedmixup import apply_guidedmixup, draw_guidedmixup
from automix.operators.manifold_mixup import apply_manifold_mixup
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
from automix.operators.saliency_grafting import (
    apply_bernoulli_grafting,
    apply_saliency_grafting,
    draw_bernoulli_grafting,
    draw_saliency_grafting,
)
from automix.operators.saliencymix import apply_saliencymix, draw_saliencymix
from automix.operators.types import BatchShape, Draws, MixedBatch, OperatorSpec


def _entry(
    operator: Operator,
    draw: Callable[Concatenate[BatchShape, ...], Draws],
    apply: Callable[Concatenate[Tensor, Tensor, Draws, ...], MixedBatch],
) -> tuple[Operator, OperatorSpec[Any]]:
    return operator, OperatorSpec(facts=OPERATOR_FACTS[operator], draw=draw, function=apply)


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
            _entry(Operator.BERNOULLI_GRAFTING, draw_bernoulli_grafting, apply_bernoulli_grafting),
            _entry(Operator.RECURSIVEMIX, draw_recursivemix, apply_recursivemix),
            _entry(Operator.MANIFOLD_MIXUP, draw_mixup, apply_manifold_mixup),
            _entry(Operator.ADAUTOMIX, draw_adautomix, apply_adautomix),
        )
    )
)


def checked_strength(operator: Operator | str, strength: float | None) -> float:
    """Return the strength of an operator, its default where None.

    Raises:
        ValueError: an unknown operator, or a strength outside its range.
    """
    if operator not in OPERATORS:
        raise ValueError(f"operator: expected one of {', '.join(OPERATORS)}, got {operator!r}")
    facts = OPERATOR_FACTS[Operator(operator)].strength
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
        num_classes: K, for integer targets.
        saliency: (B, H, W) floating point, non-negative, any scale; for operators that need it. A
            map that is zero or not finite counts as uniform.
        previous: the value of the step before, for operators that need it; None at the first.

    Raises:
        TypeError: images, targets or saliency are of a wrong type.
        ValueError: an unknown operator, a strength outside its range, or a wrong shape.

    Examples:
        Pixels that hold the class of their image show that labels follow the pixels.

        >>> import torch
        >>> images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 8, 8)
        >>> generator = torch.Generator().manual_seed(0)
        >>> mixed = mix("cutmix", images, torch.arange(4), generator=generator, num_classes=4)
        >>> mixed.targets.shape, bool(mixed.lam.min() < 1)
        (torch.Size([4, 4]), True)
        >>> torch.allclose(mixed.targets @ torch.arange(4.0), mixed.images.mean((1, 2, 3)))
        True
    """
    strength = checked_strength(operator, strength)
    if images.dim() != 4:
        raise ValueError(f"images: expected shape (B, C, H, W), got {tuple(images.shape)}")
    spec = OPERATORS[Operator(operator)]
    batch, _, height, width = images.shape
    draws = spec.draw(BatchShape(batch, height, width), strength=strength, generator=generator)
    return spec.apply(
        images, targets, draws, num_classes=num_classes, saliency_BHW=saliency, previous=previous
    )
