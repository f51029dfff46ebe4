"""The values that operators take and return.

Shape suffixes: B batch, C channels, H rows, W columns, K classes, P grid side.
"""

from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from torch import Generator, Tensor

from automix.operator_info import OperatorFacts

Draws_co = TypeVar("Draws_co", covariant=True)
Draws_contra = TypeVar("Draws_contra", contravariant=True)
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


class DrawFunction(Protocol[Draws_co]):
    """Draws every random parameter of an operator from an explicit generator."""

    def __call__(self, shape: BatchShape, *, strength: float, generator: Generator) -> Draws_co:
        """Return the parameters as tensors on the generator's device."""
        ...


class ApplyFunction(Protocol[Draws_contra]):
    """Applies drawn parameters: a pure function without randomness."""

    def __call__(
        self,
        images_BCHW: Tensor,
        targets: Tensor,
        draws: Draws_contra,
        *,
        num_classes: int | None = None,
        saliency_BHW: Tensor | None = None,
        previous: MixedBatch | None = None,
    ) -> MixedBatch:
        """Return the mixed batch; nothing that is passed in is modified."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorSpec(Generic[Draws]):
    """An operator: its facts and its two halves."""

    facts: OperatorFacts
    draw: DrawFunction[Draws]
    apply: ApplyFunction[Draws]
