"""MultiDiscrete actions to decisions and back."""

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from automix.operator_info import OPERATOR_FACTS, Operator
from automix.schedule import Decision
from envs.config import EnvironmentConfig

Action = NDArray[np.int64]


class ActionCodec:
    """Translates (operator, strength, probability) indices into a `Decision`.

    Operators with fewer levels than asked for use their strongest level for the rest. Several
    actions may mean the same decision (all that choose ``none`` do); `encode` returns the first.
    """

    def __init__(self, config: EnvironmentConfig) -> None:
        self._operators = config.operators
        self._num_strengths = config.num_strengths
        self._probabilities = config.probabilities
        self.space = spaces.MultiDiscrete(
            [len(config.operators), config.num_strengths, len(config.probabilities)]
        )

    def decode(self, action: Action) -> Decision:
        """Return the decision of an action of shape (3,), integers within `space`."""
        if not self.space.contains(np.asarray(action, dtype=np.int64)):
            raise ValueError(f"expected an action in {self.space}, got {action!r}")
        index, level, number = (int(part) for part in action)
        operator = self._operators[index]
        if operator is Operator.NONE:
            return Decision(operator=operator)
        # An operator with fewer levels repeats its strongest: the space is the same for all.
        levels = _spread(OPERATOR_FACTS[operator].strength.levels, self._num_strengths)
        strength = levels[min(level, len(levels) - 1)]
        return Decision(
            operator=operator, strength=strength, probability=self._probabilities[number]
        )

    def encode(self, decision: Decision) -> Action:
        """Return the first action that means ``decision``.

        Raises:
            ValueError: no action does.
        """
        for action in np.ndindex(*self.space.nvec):
            candidate = np.array(action, dtype=np.int64)
            if self.decode(candidate) == decision:
                return candidate
        raise ValueError(f"expected a decision that the actions reach, got {decision.label()}")

    def decisions(self) -> tuple[Decision, ...]:
        """Return every reachable decision once, in the order of the actions."""
        # A dict keeps the order of the actions; a set would not.
        return tuple(dict.fromkeys(self.decode(np.array(a)) for a in np.ndindex(*self.space.nvec)))


def _spread(levels: tuple[float, ...], count: int) -> tuple[float, ...]:
    """Return ``count`` of the levels from the weakest to the strongest; one means the middle."""
    if count >= len(levels):
        return levels
    if count == 1:
        return (levels[len(levels) // 2],)
    step = (len(levels) - 1) / (count - 1)
    return tuple(levels[round(index * step)] for index in range(count))
