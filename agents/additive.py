"""What the episodes of a search say about each decision at each time: an additive model.

The value of a schedule is modelled as a sum over its segments. The effect of a decision varies
smoothly over the training, and decisions of the same operator resemble each other: a Gaussian
process with an additive kernel, whose best schedule is found exactly, segment by segment. It
learns from the same episodes as the agent, and from all of them at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from automix.schedule import Decision, Schedule
from automix.schedule_builders import even_schedule
from automix.vocabulary import OPERATOR_FACTS, Operator

Floats = NDArray[np.float64]

# Two strengths or shares of one operator share at least this much of their effect.
_SHARED_BY_OPERATOR = 0.5
# Grids for the two free numbers, chosen by marginal likelihood: correlation of the effects of
# neighbouring segments, and the share of the variance that is the schedule's.
_CORRELATIONS = (0.3, 0.6, 0.8, 0.9)
_SIGNAL_SHARES = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
FEWEST_EPISODES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class AdditiveFit:
    """A fitted model.

    Attributes:
        choices: the D decisions whose effects were estimated.
        effects: (S, D), estimated contribution of each decision in each segment to the value of a
            schedule, in the unit of the value; the prior mean is 0.
        correlation: of the effects of neighbouring segments, in (0, 1).
        signal_share: share of the variance of the values that schedules explain, in (0, 1).
    """

    choices: tuple[Decision, ...]
    effects: Floats
    correlation: float
    signal_share: float

    def best_schedule(self) -> Schedule:
        """Return the schedule of the largest estimated value."""
        return even_schedule([self.choices[index] for index in self.effects.argmax(axis=1)])


def fit_additive(
    schedules: Sequence[Schedule],
    values: Sequence[float],
    choices: Sequence[Decision],
    *,
    num_segments: int,
) -> AdditiveFit:
    """Fit the model to finished episodes.

    Args:
        schedules: what was done, of at most ``num_segments`` equal segments.
        values: what came of it, one finite number each; higher is better.
        choices: the decisions there are; those of ``schedules`` are among them.
        num_segments: S.

    Raises:
        ValueError: there are fewer than 8 episodes, or not one value per schedule.
    """
    if len(schedules) < FEWEST_EPISODES or len(schedules) != len(values):
        raise ValueError(
            f"expected at least {FEWEST_EPISODES} schedules with a value each, got "
            f"{len(schedules)} and {len(values)}"
        )
    similarity = _similarity(choices)
    index = {decision: number for number, decision in enumerate(choices)}
    taken = np.array(
        [
            [index[schedule.at(segment / num_segments)] for segment in range(num_segments)]
            for schedule in schedules
        ]
    )
    centred = np.asarray(values, dtype=np.float64) - np.mean(values)
    variance = float(np.var(centred)) or 1.0
    fits = [
        _fit(taken, centred, variance, similarity, correlation, share)
        for correlation in _CORRELATIONS
        for share in _SIGNAL_SHARES
    ]
    _, effects, correlation, share = max(fits, key=lambda fit: fit[0])
    return AdditiveFit(
        choices=tuple(choices), effects=effects, correlation=correlation, signal_share=share
    )


def _similarity(choices: Sequence[Decision]) -> Floats:
    """Return (D, D) prior covariances of the effects of decisions in one segment."""
    result = np.zeros((len(choices), len(choices)))
    for row, first in enumerate(choices):
        for column, second in enumerate(choices):
            if first.operator is second.operator:
                gap = abs(_relative(first) - _relative(second))
                own = (1 - _SHARED_BY_OPERATOR) * (1 - gap)
                result[row, column] = _share(first) * _share(second) * (_SHARED_BY_OPERATOR + own)
    return result


def _relative(decision: Decision) -> float:
    """Return the strength within the operator's levels, weak 0 to strong 1."""
    levels = OPERATOR_FACTS[decision.operator].strength.levels
    span = levels[-1] - levels[0]
    return (decision.strength - levels[0]) / span if span else 0.0


def _share(decision: Decision) -> float:
    return 1.0 if decision.operator is Operator.NONE else decision.probability


def _fit(
    taken: NDArray[np.int64],
    centred: Floats,
    variance: float,
    similarity: Floats,
    correlation: float,
    signal_share: float,
) -> tuple[float, Floats, float, float]:
    """Return log marginal likelihood, (S, D) posterior means, and the two numbers given."""
    num_episodes, num_segments = taken.shape
    distance = np.abs(np.subtract.outer(np.arange(num_segments), np.arange(num_segments)))
    between = correlation**distance
    # (E, S, D): covariance of an episode's value with each effect.
    with_effects = np.einsum("st,etd->esd", between, similarity[taken])
    rows = np.arange(num_segments)
    covariance = np.stack([with_effects[:, rows, other].sum(axis=1) for other in taken], axis=1)
    scale = variance * signal_share / float(np.mean(np.diag(covariance)))
    noise = variance * (1 - signal_share)
    # The mean of the values is not known: it is integrated out with a wide prior.
    total = scale * covariance + noise * np.eye(num_episodes) + variance
    factor = linalg.cho_factor(total, lower=True)
    weights = linalg.cho_solve(factor, centred)
    log_determinant = 2 * float(np.log(np.diag(factor[0])).sum())
    likelihood = -0.5 * (float(centred @ weights) + log_determinant)
    effects = scale * np.einsum("e,esd->sd", weights, with_effects)
    return likelihood, effects, correlation, signal_share
