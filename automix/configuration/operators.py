"""Options of operators beside their strength, for training runs that follow a published recipe."""

from typing import Annotated, Literal

from pydantic import Field

from automix.configuration.base import Config
from automix.operator_info import Operator

BOX_OPERATORS = frozenset(
    {
        Operator.CUTMIX,
        Operator.RESIZEMIX,
        Operator.SALIENCYMIX,
        Operator.RECURSIVEMIX,
        Operator.GRIDMIX,
    }
)
"""Operators that paste rectangles, whose sides `OperatorOptions.patch_size` aligns."""

_Grid = Annotated[int, Field(ge=1, le=64)]


class RMixOptions(Config):
    """Options of R-Mix."""

    grids: Annotated[tuple[_Grid, ...], Field(min_length=1)] = (4,)
    """Cells along a side of the saliency maps; each batch draws one of these. Published: 2 and 4 at
    32 x 32 pixels."""

    per: Literal["image", "batch"] = "image"
    """Whether every image draws its weight, or a batch has one. Published: batch."""


class CoMixupOptions(Config):
    """Options of Co-Mixup."""

    most_inputs: Annotated[int, Field(ge=1)] | Literal["few"] | None = "few"
    """Images that an output may show. few: 3, as the published solver shows 2 to 4; null: any
    number, for the lowest objective."""

    group: Annotated[int, Field(ge=1)] = 20
    """Largest number of images that are mixed with each other."""

    peak_window: Annotated[int, Field(ge=1)] | None = None
    """Side in pixels of the windows whose sums have the peak of a map. Published: 8. Null: one cell
    of four along a side."""


class ManifoldMixupOptions(Config):
    """Options of Manifold Mixup."""

    layers: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Layers of which each batch draws one: input, and names of modules of the network. Published:
    the input and the first two blocks of the network, which null stands for."""


class OperatorOptions(Config):
    """Options of the operators that have some."""

    rmix: RMixOptions = Field(default_factory=RMixOptions)
    """R-Mix."""

    comixup: CoMixupOptions = Field(default_factory=CoMixupOptions)
    """Co-Mixup."""

    manifold_mixup: ManifoldMixupOptions = Field(default_factory=ManifoldMixupOptions)
    """Manifold Mixup."""

    attention_labels: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Weight of attention in the labels of cutmix, resizemix, fmix, gridmix and saliencymix in a
    vision transformer (TransMix): a part counts by the attention of the class token to it, not by
    its area. Published: 0.5 in the code, 1 in the paper. 0: by area alone."""

    patch_size: Annotated[int, Field(ge=1, le=1024)] | Literal["network"] | None = None
    """Pixels along a side of the patches to which the boxes of cutmix, resizemix, saliencymix and
    recursivemix and the holes of gridmix are aligned, so that no token of a vision transformer is
    of two images. network: those of its first layer. Null: boxes of any pixels, as published."""

    def changes(self, operator: Operator) -> bool:
        """Return whether an operator draws or applies with options that are not the defaults."""
        # Asked at every step: defaults are made for these two alone.
        match operator:
            case Operator.RMIX:
                return self.rmix != RMixOptions()
            case Operator.COMIXUP:
                return self.comixup != CoMixupOptions()
            case _:
                return self.patch_size is not None and operator in BOX_OPERATORS
