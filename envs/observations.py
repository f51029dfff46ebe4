"""What the policy sees: a named vector of features that do not depend on the data set."""

import math

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.config import EnvironmentConfig
from envs.features import View, features_of
from envs.readings import Reading

Observation = NDArray[np.float32]


class ObservationBuilder:
    """Builds observations, and names, bounds and meanings of their features."""

    def __init__(self, config: EnvironmentConfig, *, num_classes: int) -> None:
        self._scale = math.log(num_classes)
        self.features = features_of(config.operators, config.observation)
        self._low = np.array([feature.low for feature in self.features], dtype=np.float32)
        self._high = np.array([feature.high for feature in self.features], dtype=np.float32)
        self.space = spaces.Box(self._low, self._high, dtype=np.float32)

    def build(self, now: Reading, before: Reading | None) -> Observation:
        """Return a fresh (F,) float32 vector within `space`; NaN becomes the upper bound."""
        view = View(now=now, before=before or now, scale=self._scale)
        vector = np.array([feature.read(view) for feature in self.features], dtype=np.float64)
        vector = np.where(np.isnan(vector), self._high, vector)
        return np.clip(vector, self._low, self._high).astype(np.float32)
