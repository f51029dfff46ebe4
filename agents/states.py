"""What was observed before a decision, as numbers that can be compared: standardised features."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# A feature that varies less than this over all episodes is a constant.
_LEAST_DEVIATION = 1e-6
# One odd training must not decide what holds for it alone.
_FARTHEST = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StateScale:
    """Means and deviations of the F features of an observation at one time of a training.

    Attributes:
        centre: (F,); 0 where a feature is unknown.
        weight: (F,), what standardised features are multiplied by: 1 over the deviation, 0 for
            features that are unknown or constant.
    """

    centre: Floats
    weight: Floats

    @classmethod
    def of(cls, states: Floats) -> Self:
        """Return the scale of (E, F) observations; rows of NaN are not known."""
        known = states[~np.isnan(states).any(axis=1)]
        if not len(known):
            nothing = np.zeros(states.shape[1])
            return cls(centre=nothing, weight=nothing)
        deviation = known.std(axis=0)
        varies = deviation > _LEAST_DEVIATION
        weight = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
        return cls(centre=known.mean(axis=0), weight=weight)

    @property
    def num_varying(self) -> int:
        """Return how many features differ between trainings."""
        return int(np.count_nonzero(self.weight))

    def features(self, states: Floats) -> Floats:
        """Return (N, F) features, on average 0 with products of 1 with themselves in each row.

        What is not known is taken as the mean.
        """
        scaled = np.nan_to_num((states - self.centre) * self.weight)
        clipped = np.clip(scaled, -_FARTHEST, _FARTHEST)
        features: Floats = clipped / math.sqrt(max(1, self.num_varying))
        return features
