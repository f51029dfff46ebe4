"""The potential whose gain is the reward: pure functions of evaluation metrics."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from automix.training.metrics import EvalMetrics
from envs.config import PotentialName

# A diverged run is worth what a classifier is that predicts every class alike: the largest loss
# a calibrated classifier can have, and chance accuracy.
POTENTIALS: Mapping[PotentialName, Callable[[EvalMetrics], float]] = MappingProxyType(
    {
        "calibrated_nll": lambda metrics: -metrics.calibrated_nll,
        "nll": lambda metrics: -metrics.nll,
        "accuracy": lambda metrics: metrics.accuracy,
    }
)


def potential_of(metrics: EvalMetrics, name: PotentialName, *, num_classes: int) -> float:
    """Return the potential of a classifier; a non-finite one counts as diverged."""
    value = POTENTIALS[name](metrics)
    return value if math.isfinite(value) else diverged_potential(name, num_classes=num_classes)


def diverged_potential(name: PotentialName, *, num_classes: int) -> float:
    """Return the potential of a run whose loss is not finite: that of chance."""
    return 1 / num_classes if name == "accuracy" else -math.log(num_classes)
