"""Values that operators take and return.

Shape suffixes in all operators: B batch, C channels, H rows, W columns, K classes, P cells along a
side of a grid. A suffix of one, such as mask_B1HW, is a dimension to broadcast over.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Concatenate, Generic, NamedTuple, TypeVar

from torch import Tensor

from automix.operator_info import OperatorFacts

Draws = TypeVar("Draws")


class BatchShape(NamedTuple):
    """The part of a batch's shape that draws depend on."""

    batch: int
    height: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedBatch:
    """A mixed batch, with everything needed to mix anything else the same way.

    Tensors may share memory with one another, with the draws, or (where nothing is mixed) with
    what was passed in: copy them before writing into them.

    Attributes:
        images: (B, C, H, W), dtype, device and memory format of the input.
        targets: (B, K) float32 soft targets; rows of single-label targets sum to 1.
        partner: (B,) int64, index of the second parent of each image.
        lam: (B,) float32 in [0, 1], label weight of the FIRST parent (the batch's own image).
        mask: (B, 1, H, W) float32 in [0, 1], weight of the PARTNER per pixel; None where more
            than two images are mixed or the partner is not in the batch.
        own_targets: the first parent's targets as they were given, (B,) or (B, K).
        partner_targets: the second parent's targets, same form; None where there are more than
            two parents.
    """

    images: Tensor
    targets: Tensor
    partner: Tensor
    lam: Tensor
    mask: Tensor | None
    own_targets: Tensor
    partner_targets: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorSpec(Generic[Draws]):
    """An operator: its facts and its two halves."""

    facts: OperatorFacts  # what is known of it without running it
    # ``draw(shape, *, strength, generator)`` draws every random parameter, as tensors on the
    # generator's device.
    draw: Callable[Concatenate[BatchShape, ...], Draws]
    # ``function(images_BCHW, targets, draws, *, num_classes)`` applies them, without randomness and
    # without modifying what is passed in. It takes ``saliency_BHW`` and ``previous`` exactly if the
    # facts say that it needs them.
    function: Callable[Concatenate[Tensor, Tensor, Draws, ...], MixedBatch]

    def apply(
        self,
        images_BCHW: Tensor,
        targets: Tensor,
        draws: Draws,
        *,
        num_classes: int | None = None,
        saliency_BHW: Tensor | None = None,
        previous: MixedBatch | None = None,
        **options: Any,
    ) -> MixedBatch:
        """Call the applying half with the inputs that it uses, out of all that there are."""
        if self.facts.needs_saliency:
            options["saliency_BHW"] = saliency_BHW
        if self.facts.needs_previous:
            options["previous"] = previous
        return self.function(images_BCHW, targets, draws, num_classes=num_classes, **options)
