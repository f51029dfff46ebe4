"""Names and facts of the mixing operators: one frozen table, free of torch.

A schedule, a configuration and the help text need these facts without loading a tensor library.
The functions themselves are in `automix.operators.registry`, under the same names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Operator(StrEnum):
    """A way to mix two (or more) images and their labels."""

    NONE = "none"
    MIXUP = "mixup"
    CUTMIX = "cutmix"
    RESIZEMIX = "resizemix"
    FMIX = "fmix"
    GRIDMIX = "gridmix"
    SALIENCYMIX = "saliencymix"
    PUZZLEMIX = "puzzlemix"
    COMIXUP = "comixup"
    GUIDEDMIXUP = "guidedmixup"
    RMIX = "rmix"
    SALIENCY_GRAFTING = "saliency_grafting"
    RECURSIVEMIX = "recursivemix"


class Family(StrEnum):
    """How an operator chooses what to take from which image."""

    NONE = "none"
    RANDOM = "random"
    SALIENCY_MAX = "saliency_max"
    SALIENCY_SAMPLED = "saliency_sampled"


@dataclass(frozen=True, slots=True, kw_only=True)
class StrengthFacts:
    """The one knob of an operator.

    Attributes:
        low: smallest allowed value.
        high: largest allowed value.
        levels: values from weak to strong that a policy chooses between.
        default: the value of the published recipe, or the nearest to it.
        meaning: what the number is, with its unit.
    """

    low: float
    high: float
    levels: tuple[float, ...]
    default: float
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorFacts:
    """What is known of an operator without running it.

    Attributes:
        family: how it chooses what to take from which image.
        needs_saliency: whether it reads a saliency map of the batch.
        needs_previous: whether it mixes with the batch of the step before.
        strength: range and meaning of its strength.
        summary: one line on what it does.
        paper: where it is described; empty for none.
    """

    family: Family
    strength: StrengthFacts
    summary: str
    paper: str = ""
    needs_saliency: bool = False
    needs_previous: bool = False


def _alpha(*levels: float) -> StrengthFacts:
    return StrengthFacts(
        low=0.01,
        high=10.0,
        levels=levels,
        default=1.0,
        meaning="alpha of Beta(alpha, alpha); larger mixes more evenly",
    )


_FIXED = StrengthFacts(low=0.0, high=0.0, levels=(0.0,), default=0.0, meaning="no effect: always 0")

OPERATOR_FACTS: Mapping[Operator, OperatorFacts] = MappingProxyType(
    {
        Operator.NONE: OperatorFacts(
            family=Family.NONE, strength=_FIXED, summary="leaves the batch as it is"
        ),
        Operator.MIXUP: OperatorFacts(
            family=Family.RANDOM,
            strength=_alpha(0.2, 1.0, 2.0),
            summary="blends whole images",
            paper="https://arxiv.org/abs/1710.09412",
        ),
        Operator.CUTMIX: OperatorFacts(
            family=Family.RANDOM,
            strength=_alpha(0.2, 1.0, 2.0),
            summary="pastes a random box of the partner",
            paper="https://arxiv.org/abs/1905.04899",
        ),
        Operator.RESIZEMIX: OperatorFacts(
            family=Family.RANDOM,
            strength=StrengthFacts(
                low=0.15,
                high=1.0,
                levels=(0.4, 0.8, 1.0),
                default=0.8,
                meaning="largest side of the pasted image, as a share of the image side",
            ),
            summary="shrinks the whole partner and pastes it",
            paper="https://arxiv.org/abs/2012.11101",
        ),
        Operator.FMIX: OperatorFacts(
            family=Family.RANDOM,
            strength=_alpha(0.2, 1.0, 2.0),
            summary="cuts along a random low-frequency mask",
            paper="https://arxiv.org/abs/2002.12047",
        ),
        Operator.GRIDMIX: OperatorFacts(
            family=Family.RANDOM,
            strength=_alpha(0.2, 1.0, 2.0),
            summary="pastes a lattice of holes of the partner",
            paper="https://doi.org/10.1016/j.patcog.2020.107594",
        ),
        Operator.SALIENCYMIX: OperatorFacts(
            family=Family.SALIENCY_MAX,
            needs_saliency=True,
            strength=_alpha(0.2, 1.0, 2.0),
            summary="pastes a box around the partner's saliency peak",
            paper="https://arxiv.org/abs/2006.01791",
        ),
        Operator.PUZZLEMIX: OperatorFacts(
            family=Family.SALIENCY_MAX,
            needs_saliency=True,
            strength=_alpha(0.2, 1.0, 2.0),
            summary="optimizes which cell comes from which image",
            paper="https://arxiv.org/abs/2009.06962",
        ),
        Operator.COMIXUP: OperatorFacts(
            family=Family.SALIENCY_MAX,
            needs_saliency=True,
            strength=StrengthFacts(
                low=0.01,
                high=10.0,
                levels=(0.5, 2.0, 4.0),
                default=2.0,
                meaning="alpha of Dirichlet(alpha, .., alpha); larger shows images more evenly",
            ),
            summary="optimizes the cells of a whole group of images jointly",
            paper="https://arxiv.org/abs/2102.03065",
        ),
        Operator.GUIDEDMIXUP: OperatorFacts(
            family=Family.SALIENCY_MAX,
            needs_saliency=True,
            strength=_FIXED,
            summary="blends each pixel by the ratio of the two saliencies",
            paper="https://arxiv.org/abs/2306.16612",
        ),
        Operator.RMIX: OperatorFacts(
            family=Family.SALIENCY_SAMPLED,
            needs_saliency=True,
            strength=_alpha(0.2, 1.0, 2.0),
            summary="compares random saliency percentiles of the two images cell by cell",
            paper="https://arxiv.org/abs/2212.04875",
        ),
        Operator.SALIENCY_GRAFTING: OperatorFacts(
            family=Family.SALIENCY_SAMPLED,
            needs_saliency=True,
            strength=StrengthFacts(
                low=0.01,
                high=10.0,
                levels=(0.05, 0.2, 0.5),
                default=0.2,
                meaning="temperature of the cell selection; near 0 takes the saliency peak only",
            ),
            summary="grafts cells sampled by saliency and calibrates the label",
            paper="https://arxiv.org/abs/2112.08796",
        ),
        Operator.RECURSIVEMIX: OperatorFacts(
            family=Family.RANDOM,
            needs_previous=True,
            strength=StrengthFacts(
                low=0.05,
                high=0.95,
                levels=(0.25, 0.5, 0.75),
                default=0.5,
                meaning="largest area of the pasted previous batch, as a share of the image",
            ),
            summary="pastes the shrunken mixed batch of the step before",
            paper="https://arxiv.org/abs/2203.06844",
        ),
    }
)
