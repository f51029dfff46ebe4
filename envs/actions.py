"""MultiDiscrete actions to decisions and mixtures, and back."""

import itertools

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from automix.operator_info import OPERATOR_FACTS, Operator
from automix.schedule import Decision, Mixing, equal_mixture
from envs.config import EnvironmentConfig

Action = NDArray[np.int64]

# Of the operators of a mixture; the schedules that ship have two or three, too.
_SIZES = (2, 3)


class ActionCodec:
    """Translates (operator, strength, probability) indices into a `Decision`.

    Operators with fewer levels than asked for use their strongest level for the rest. Several
    actions may mean the same decision (all that choose ``none`` do); `encode` returns the first.

    Where the configuration says ``actions: mixtures``, an action is the place of a decision or a
    mixture in `choices`: the same decisions, then two and three of the operators at their default
    strengths, all equally likely.
    """

    def __init__(self, config: EnvironmentConfig) -> None:
        self._operators = config.operators
        self._num_strengths = config.num_strengths
        self._probabilities = config.probabilities
        self._parts = spaces.MultiDiscrete(
            [len(config.operators), config.num_strengths, len(config.probabilities)]
        )
        self._choices: tuple[Mixing, ...] = self.decisions()
        self._is_indexed = config.actions == "mixtures"
        if self._is_indexed:
            self._choices += _mixtures(config.operators)
        self.space = spaces.MultiDiscrete([len(self._choices)]) if self._is_indexed else self._parts

    def decode(self, action: Action) -> Mixing:
        """Return what an action means, integers within `space`: of shape (3,), or (1,)."""
        if not self.space.contains(np.asarray(action, dtype=np.int64)):
            raise ValueError(f"expected an action in {self.space}, got {action!r}")
        return self._choices[int(action[0])] if self._is_indexed else self._decision(action)

    def encode(self, choice: Mixing) -> Action:
        """Return the first action that means ``choice``.

        Raises:
            ValueError: no action does.
        """
        for action in np.ndindex(*self.space.nvec):
            candidate = np.array(action, dtype=np.int64)
            if self.decode(candidate) == choice:
                return candidate
        raise ValueError(f"expected a decision that the actions reach, got {choice.label()}")

    def choices(self) -> tuple[Mixing, ...]:
        """Return all that actions mean, each once, in the order of the actions."""
        return self._choices

    def decisions(self) -> tuple[Decision, ...]:
        """Return every reachable decision once, in the order of the actions."""
        # A dict keeps the order of the actions; a set would not.
        actions = np.ndindex(*self._parts.nvec)
        return tuple(dict.fromkeys(self._decision(np.array(action)) for action in actions))

    def _decision(self, action: Action) -> Decision:
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


def _mixtures(operators: tuple[Operator, ...]) -> tuple[Mixing, ...]:
    mixing = [Decision(operator=name) for name in operators if name is not Operator.NONE]
    return tuple(
        equal_mixture(chosen) for size in _SIZES for chosen in itertools.combinations(mixing, size)
    )


def _spread(levels: tuple[float, ...], count: int) -> tuple[float, ...]:
    """Return ``count`` of the levels from the weakest to the strongest; one means the middle."""
    if count >= len(levels):
        return levels
    if count == 1:
        return (levels[len(levels) // 2],)
    step = (len(levels) - 1) / (count - 1)
    return tuple(levels[round(index * step)] for index in range(count))
