"""The potential whose gain is the reward: pure functions of what is known of a training run."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from automix.training.metrics import EvalMetrics
from envs.config import EnvironmentConfig, PotentialWeights
from envs.measurement import Reading

_SINGLE: Mapping[str, PotentialWeights] = MappingProxyType(
    {
        "calibrated_nll": PotentialWeights(calibrated_nll=1.0),
        "nll": PotentialWeights(nll=1.0),
        "accuracy": PotentialWeights(accuracy=1.0),
    }
)
_PARTS: Mapping[str, Callable[[EvalMetrics], float]] = MappingProxyType(
    {
        "calibrated_nll": lambda metrics: -metrics.calibrated_nll,
        "nll": lambda metrics: -metrics.nll,
        "accuracy": lambda metrics: metrics.accuracy,
    }
)


class Potential:
    """The potential that a configuration names, of readings."""

    def __init__(self, config: EnvironmentConfig, *, num_classes: int) -> None:
        self._config = config
        self._num_classes = num_classes
        self.diverged = diverged_potential(config, num_classes=num_classes)

    def of(self, reading: Reading) -> float:
        """Return the potential of a training run, see `potential_of`."""
        return potential_of(
            reading.reward,
            self._config,
            num_classes=self._num_classes,
            similarity=reading.similarity,
        )


def potential_of(
    metrics: EvalMetrics, config: EnvironmentConfig, *, num_classes: int, similarity: float = 0.0
) -> float:
    """Return the potential of a training run; a non-finite one counts as diverged.

    A gradient similarity is no property of a classifier but of the decisions so far: its potential
    is the mean over all segments, those to come counting 0, so that the reward of a segment is its
    share of the mean.

    Args:
        metrics: on the reward split.
        config: names the potential.
        num_classes: K.
        similarity: sum of the gradient similarities of the segments so far.
    """
    if config.potential == "gradient_similarity":
        value = similarity / config.num_segments
    else:
        value = _weighted(_weights(config), _PARTS, metrics)
    return value if math.isfinite(value) else diverged_potential(config, num_classes=num_classes)


def diverged_potential(config: EnvironmentConfig, *, num_classes: int) -> float:
    """Return the potential of a run whose loss is not finite.

    It is worth what a classifier is that predicts every class alike: the largest loss a
    calibrated classifier can have, and chance accuracy. Its gradients are like nothing.
    """
    if config.potential == "gradient_similarity":
        return 0.0
    chance = EvalMetrics(
        nll=math.log(num_classes),
        calibrated_nll=math.log(num_classes),
        accuracy=1 / num_classes,
        temperature=1.0,
        num_images=0,
    )
    return _weighted(_weights(config), _PARTS, chance)


def _weights(config: EnvironmentConfig) -> PotentialWeights:
    return _SINGLE.get(config.potential, config.potential_weights)


def _weighted(
    weights: PotentialWeights,
    parts: Mapping[str, Callable[[EvalMetrics], float]],
    metrics: EvalMetrics,
) -> float:
    # A part of weight 0 is not read: 0 * infinity is NaN.
    return math.fsum(weight * parts[name](metrics) for name, weight in weights if weight)
