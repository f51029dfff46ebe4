"""Names and facts of the mixing operators: one frozen table, free of torch.

A schedule, a configuration and the help text need these facts without loading a tensor library.
The functions themselves are in `automix.operators.registry`, under the same names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
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
    BERNOULLI_GRAFTING = "bernoulli_grafting"
    RECURSIVEMIX = "recursivemix"
    MANIFOLD_MIXUP = "manifold_mixup"
    ADAUTOMIX = "adautomix"


class Family(StrEnum):
    """Rule by which an operator chooses what to take from which image."""

    NONE = "none"
    RANDOM = "random"
    SALIENCY_MAX = "saliency_max"
    SALIENCY_SAMPLED = "saliency_sampled"


class SaliencyKind(StrEnum):
    """Method that computes saliency maps."""

    INPUT_GRADIENT = "input_gradient"
    LAYER_GRADIENT = "layer_gradient"
    REDUCED_GRADIENT = "reduced_gradient"
    SPECTRAL_RESIDUAL = "spectral_residual"
    ATTENTION_ROLLOUT = "attention_rollout"


class Statistics(StrEnum):
    """Statistics that batch norm uses during a saliency pass."""

    BATCH = "batch"
    """Layers in train mode use this batch's statistics, layers in eval mode the running ones."""

    RUNNING = "running"
    """All layers use their running statistics, as in eval mode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StrengthFacts:
    """The one knob of an operator."""

    low: float
    high: float
    # From weak to strong: what a policy chooses between.
    levels: tuple[float, ...]
    # That of the published recipe, or the nearest to it.
    default: float
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorFacts:
    """Everything known of an operator without running it."""

    # Its name and its color, ``#rrggbb``, in every picture and table: an operator is recognized
    # from one report to the next. See `automix.reporting.palette` for the choice.
    label: str
    color: str
    family: Family
    strength: StrengthFacts
    # For help texts, without a full stop.
    summary: str
    paper: str = ""
    # Inputs apart from images and targets: a saliency map of the batch, and the mixed batch of the
    # step before. Whoever mixes provides only what is needed, because a map costs a backward pass.
    needs_saliency: bool = False
    needs_previous: bool = False
    # It blends in a layer of the network, drawn for each batch. Of images alone it makes what it
    # does at the input, one of the layers: whoever trains has to blend in the others too.
    mixes_features: bool = False
    # It has a network of its own, which learns while the classifier trains.
    learns: bool = False
    # Its labels are lam * own + (1 - lam) * partner, of two images of the batch.
    mixes_pairs: bool = True
    # Each pixel is of one of the two images, and lam the area that the own one keeps.
    pastes: bool = False
    # Weight of Decoupled Mixup's term (https://arxiv.org/abs/2203.10761). Published are 0.01 for
    # Mixup, FMix and SaliencyMix, 0.1 for CutMix and ResizeMix (CIFAR-100, ResNet-18).
    decoupled_eta: float = 0.1


# Mixup is published with 0.2 on ImageNet and 1 on CIFAR, Manifold Mixup with 2.
_ALPHA = StrengthFacts(
    low=0.01,
    high=10.0,
    levels=(0.2, 1.0, 2.0),
    default=1.0,
    meaning="alpha of Beta(alpha, alpha); larger mixes more evenly",
)
# For operators without a knob: one level, so that a policy has nothing to choose.
_FIXED = StrengthFacts(low=0.0, high=0.0, levels=(0.0,), default=0.0, meaning="no effect: always 0")

OPERATOR_FACTS: Mapping[Operator, OperatorFacts] = MappingProxyType(
    {
        Operator.NONE: OperatorFacts(
            label="none",
            color="#c8cbd0",
            family=Family.NONE,
            strength=_FIXED,
            summary="leaves the batch as it is",
        ),
        Operator.MIXUP: OperatorFacts(
            label="Mixup",
            color="#0072b2",
            family=Family.RANDOM,
            strength=_ALPHA,
            summary="blends whole images",
            paper="https://arxiv.org/abs/1710.09412",
            decoupled_eta=0.01,
        ),
        Operator.CUTMIX: OperatorFacts(
            label="CutMix",
            color="#56b4e9",
            family=Family.RANDOM,
            strength=_ALPHA,
            summary="pastes a random box of the partner",
            pastes=True,
            paper="https://arxiv.org/abs/1905.04899",
        ),
        Operator.RESIZEMIX: OperatorFacts(
            label="ResizeMix",
            color="#009e73",
            family=Family.RANDOM,
            # Sides are uniform from 0.1, so the largest has to be above that.
            strength=StrengthFacts(
                low=0.15,
                high=1.0,
                levels=(0.4, 0.8, 1.0),
                default=0.8,
                meaning="largest side of the pasted image, as a fraction of the image side",
            ),
            summary="shrinks the whole partner and pastes it",
            pastes=True,
            paper="https://arxiv.org/abs/2012.11101",
        ),
        Operator.FMIX: OperatorFacts(
            label="FMix",
            color="#366e6b",
            family=Family.RANDOM,
            strength=_ALPHA,
            summary="cuts along a random low-frequency mask",
            pastes=True,
            paper="https://arxiv.org/abs/2002.12047",
            decoupled_eta=0.01,
        ),
        Operator.GRIDMIX: OperatorFacts(
            label="GridMix",
            color="#4d4690",
            family=Family.RANDOM,
            strength=_ALPHA,
            summary="pastes a lattice of holes of the partner",
            pastes=True,
            paper="https://doi.org/10.1016/j.patcog.2020.107594",
        ),
        Operator.SALIENCYMIX: OperatorFacts(
            label="SaliencyMix",
            color="#d55e00",
            family=Family.SALIENCY_MAX,
            needs_saliency=True,
            strength=_ALPHA,
            summary="pastes a box around the partner's saliency peak",
            pastes=True,
            paper="https://arxiv.org/abs/2006.01791",
            decoupled_eta=0.01,
        ),
        Operator.PUZZLEMIX: OperatorFacts(
            label="PuzzleMix",
            color="#e69f00",
            family=Family.SALIENCY_MAX,
            needs_saliency=True,
            strength=_ALPHA,
            summary="optimizes which cell comes from which image",
            paper="https://arxiv.org/abs/2009.06962",
        ),
        Operator.COMIXUP: OperatorFacts(
            label="Co-Mixup",
            color="#8a3b08",
            family=Family.SALIENCY_MAX,
            needs_saliency=True,
            mixes_pairs=False,
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
            label="GuidedMixup",
            color="#f0e442",
            family=Family.SALIENCY_MAX,
            needs_saliency=True,
            # Masks and pairs follow from the saliency alone.
            strength=_FIXED,
            summary="blends each pixel by the ratio of the two saliencies",
            paper="https://arxiv.org/abs/2306.16612",
        ),
        Operator.RMIX: OperatorFacts(
            label="R-Mix",
            color="#a15afc",
            family=Family.SALIENCY_SAMPLED,
            needs_saliency=True,
            strength=_ALPHA,
            summary="compares random saliency percentiles of the two images cell by cell",
            paper="https://arxiv.org/abs/2212.04875",
        ),
        Operator.SALIENCY_GRAFTING: OperatorFacts(
            label="Saliency Grafting",
            color="#cc79a7",
            family=Family.SALIENCY_SAMPLED,
            needs_saliency=True,
            # On maps of a trained network about an eighth, a half and three quarters of the image.
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
        Operator.BERNOULLI_GRAFTING: OperatorFacts(
            label="Bernoulli Grafting",
            color="#3018d8",
            family=Family.SALIENCY_SAMPLED,
            needs_saliency=True,
            strength=StrengthFacts(
                low=0.01,
                high=10.0,
                levels=(0.2, 1.0, 2.0),
                default=1.0,
                meaning="alpha of Beta(alpha, alpha), the fraction of the salient cells",
            ),
            summary="grafts a random part of the salient cells and calibrates the label",
            paper="https://arxiv.org/abs/2112.08796",
        ),
        Operator.RECURSIVEMIX: OperatorFacts(
            label="RecursiveMix",
            color="#88c28a",
            family=Family.RANDOM,
            needs_previous=True,
            mixes_pairs=False,
            strength=StrengthFacts(
                low=0.05,
                high=0.95,
                levels=(0.25, 0.5, 0.75),
                default=0.5,
                meaning="largest area of the pasted previous batch, as a fraction of the image",
            ),
            summary="pastes the shrunken mixed batch of the step before",
            paper="https://arxiv.org/abs/2203.06844",
        ),
        Operator.MANIFOLD_MIXUP: OperatorFacts(
            label="Manifold Mixup",
            color="#0c5054",
            family=Family.RANDOM,
            mixes_features=True,
            strength=replace(_ALPHA, default=2.0),
            summary="blends the images, or the features of a hidden layer",
            paper="https://arxiv.org/abs/1806.05236",
            decoupled_eta=0.01,
        ),
        Operator.ADAUTOMIX: OperatorFacts(
            label="Adversarial AutoMixup",
            color="#480024",
            family=Family.RANDOM,
            learns=True,
            strength=_ALPHA,
            summary="blends by the mask of a network that is trained against the classifier",
            paper="https://arxiv.org/abs/2312.11954",
            decoupled_eta=0.01,
        ),
    }
)
