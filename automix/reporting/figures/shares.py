"""What share of the batches each operator mixes over training: the data of the schedule figure.

Shape suffixes: O operators (in the order of `Operator`), E intervals between edges.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from automix.schedule import Decision, Schedule
from automix.vocabulary import OPERATOR_FACTS, Operator

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Mean share of the batches per operator over training.

    Attributes:
        edges: (E + 1,) float64, increasing from 0: where any schedule changes, and the end.
        shares: (O, E) float64; each column sums to 1.
        mixed_low: (E,) float64, lower quartile over schedules of the share that is mixed.
        mixed_high: (E,) float64, upper quartile.
    """

    edges: Floats
    shares: Floats
    mixed_low: Floats
    mixed_high: Floats


def shares_over_training(schedules: Sequence[Schedule], *, until: float = 1.0) -> Shares:
    """Return the mean over ``schedules`` of each operator's share, up to progress ``until``."""
    edges = starts_before(schedules, until)
    operators = list(Operator)
    none = operators.index(Operator.NONE)
    shares = np.zeros((len(schedules), len(operators), len(edges)))
    for index, schedule in enumerate(schedules):
        for interval, start in enumerate(edges):
            decision = schedule.at(start)
            share = 0.0 if decision.operator is Operator.NONE else decision.probability
            shares[index, operators.index(decision.operator), interval] = share
            shares[index, none, interval] = 1 - share
    low, high = np.quantile(1 - shares[:, none], (0.25, 0.75), axis=0)
    return Shares(
        edges=np.array([*edges, until]),
        shares=shares.mean(axis=0),
        mixed_low=low,
        mixed_high=high,
    )


def starts_before(schedules: Sequence[Schedule], until: float) -> list[float]:
    """Return where any of the schedules changes before progress ``until``, in order."""
    starts = {segment.start for schedule in schedules for segment in schedule.segments}
    return sorted(start for start in starts if start < until)


def relative_strength(decision: Decision) -> float:
    """Return where the strength lies between the operator's weak (0) and strong (1) level.

    NaN when nothing is mixed or the operator has no strength.
    """
    levels = OPERATOR_FACTS[decision.operator].strength.levels
    if len(levels) < 2 or decision.probability == 0:
        return math.nan
    return float(np.interp(decision.strength, levels, np.linspace(0, 1, len(levels))))
