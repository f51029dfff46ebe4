"""What the episodes of a search say about each decision at each time: an additive model.

The value of a schedule is modelled as a sum over its segments. The effect of a decision varies
smoothly over the training, and decisions of the same operator resemble each other: a Gaussian
process with an additive kernel, whose best schedule is found exactly, segment by segment. It
learns from the same episodes as the agent, and from all of them at once.

With what was observed before each decision, most of a training's luck is known before its last
decisions are taken: on 213 random trainings of the digits, the observation before the last of 8
segments explained 0.68 of the variance of the end. The effects of a segment are then estimated
given the state that it found, and estimates of the last segment from two halves of the trainings
correlated 0.90 instead of 0.78.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from threadpoolctl import threadpool_limits

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
# And for what is known from the state before a segment: its share of the variance, and the share
# of the rest that is the schedule's.
_STATE_SHARES = (0.0, 0.3, 0.6, 0.8)
_SIGNAL_SHARES_GIVEN_STATE = (0.1, 0.2, 0.4, 0.6)
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
    states: Floats | None = None,
) -> AdditiveFit:
    """Fit the model to finished episodes.

    Args:
        schedules: what was done, of at most ``num_segments`` equal segments.
        values: what came of it, one finite number each; higher is better.
        choices: the decisions there are; those of ``schedules`` are among them.
        num_segments: S.
        states: (E, S, F), what was observed before each decision; NaN where that is not known.

    Raises:
        ValueError: there are fewer than 8 episodes, or not one value per schedule.
    """
    if len(schedules) < FEWEST_EPISODES or len(schedules) != len(values):
        raise ValueError(
            f"expected at least {FEWEST_EPISODES} schedules with a value each, got "
            f"{len(schedules)} and {len(values)}"
        )
    index = {decision: number for number, decision in enumerate(choices)}
    episodes = _Episodes(
        taken=np.array(
            [
                [index[schedule.at(segment / num_segments)] for segment in range(num_segments)]
                for schedule in schedules
            ]
        ),
        values=np.asarray(values, dtype=np.float64) - np.mean(values),
        similarity=_similarity(choices),
    )
    # The matrices are small, for which threads take twenty times as long as none; and sums that are
    # split among threads have other bits.
    with threadpool_limits(limits=1, user_api="blas"):
        whole, effects = _fit_all(episodes, states)
    return AdditiveFit(
        choices=tuple(choices),
        effects=effects,
        correlation=whole.correlation,
        signal_share=whole.signal_share,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Episodes:
    """What was done, (E, S) indices of decisions; centred values (E,); (D, D) prior covariances."""

    taken: NDArray[np.int64]
    values: Floats
    similarity: Floats

    @property
    def variance(self) -> float:
        return float(np.var(self.values)) or 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    """Log marginal likelihood, (segments, D) posterior means, and the two numbers given."""

    likelihood: float
    effects: Floats
    correlation: float
    signal_share: float


def _fit_all(episodes: _Episodes, states: Floats | None) -> tuple[_Fit, Floats]:
    """Return the most likely fit to all segments, and the effects of each given the states."""
    whole = max(
        (
            _fit(episodes, covariances, share)
            for covariances in (_covariances(episodes, 0, each) for each in _CORRELATIONS)
            for share in _SIGNAL_SHARES
        ),
        key=lambda fit: fit.likelihood,
    )
    effects = whole.effects
    if states is not None:
        for first in range(1, states.shape[1]):
            effects[first] = _given_state(episodes, whole, states[:, first], first=first)
    return whole, effects


def _given_state(episodes: _Episodes, whole: _Fit, states: Floats, *, first: int) -> Floats:
    """Return (D,) effects of segment ``first``, given (E, F) states before it."""
    kernel = _state_kernel(states)
    covariances = _covariances(episodes, first, whole.correlation)
    fits = (
        _fit(episodes, covariances, share * (1 - state_share), (state_share, kernel))
        for state_share in _STATE_SHARES
        for share in _SIGNAL_SHARES_GIVEN_STATE
    )
    best: Floats = max(fits, key=lambda fit: fit.likelihood).effects[0]
    return best


def _state_kernel(states: Floats) -> Floats:
    """Return (E, E) products of standardised features; unknown and constant ones count as 0."""
    known = states[:, ~np.isnan(states).all(axis=0)]
    deviation = np.nanstd(known, axis=0)
    varying = deviation > 1e-6
    scaled = (known - np.nanmean(known, axis=0))[:, varying] / deviation[varying]
    scaled = np.nan_to_num(scaled)
    kernel: Floats = scaled @ scaled.T / max(1, scaled.shape[1])
    return kernel


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Covariances:
    """Prior covariances for one correlation of the segments from a first one on.

    (E, E) of values with each other, of mean 1 on the diagonal, and (E, S, D) of values with
    effects, on the same scale.
    """

    correlation: float
    values: Floats
    with_effects: Floats


def _covariances(episodes: _Episodes, first: int, correlation: float) -> _Covariances:
    taken = episodes.taken[:, first:]
    rows = np.arange(taken.shape[1])
    between = correlation ** np.abs(np.subtract.outer(rows, rows))
    with_effects = np.einsum("st,etd->esd", between, episodes.similarity[taken], optimize=True)
    values = np.stack([with_effects[:, rows, other].sum(axis=1) for other in taken], axis=1)
    scale = float(np.mean(np.diag(values)))
    return _Covariances(
        correlation=correlation, values=values / scale, with_effects=with_effects / scale
    )


def _fit(
    episodes: _Episodes,
    covariances: _Covariances,
    signal_share: float,
    state: tuple[float, Floats] | None = None,
) -> _Fit:
    """Fit the effects, and optionally a share of the variance with a kernel of the states."""
    variance = episodes.variance
    state_share, kernel = state or (0.0, np.zeros(()))
    noise = variance * (1 - signal_share - state_share)
    # The mean of the values is not known: it is integrated out with a wide prior.
    total = variance * (signal_share * covariances.values + state_share * kernel + 1)
    total[np.diag_indices_from(total)] += noise
    factor = linalg.cho_factor(total, lower=True, overwrite_a=True, check_finite=False)
    weights = linalg.cho_solve(factor, episodes.values)
    log_determinant = 2 * float(np.log(np.diag(factor[0])).sum())
    return _Fit(
        likelihood=-0.5 * (float(episodes.values @ weights) + log_determinant),
        effects=variance * signal_share * np.tensordot(weights, covariances.with_effects, axes=1),
        correlation=covariances.correlation,
        signal_share=signal_share,
    )
