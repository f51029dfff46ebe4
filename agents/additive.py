"""Additive Gaussian-process model: the outcome as a sum of effects of decisions and states.

With d_s the decision of segment s of S, x_s what was observed before it, and y the outcome of the
run:

    y = mu + sum_s f_s(d_s) + g(x) + noise                  (1)

Gaussian priors of mean 0 on the effects f_s: alike for decisions that are alike, k(d, d') (see
`decision_covariance`), and for neighboring segments, rho^|s - t|. g is linear in the standardized
features phi(x). The covariance of the outcomes of E runs is then, with v their variance,

    C = v [ a (1 - b) K + a b K * P + c P + 1 + (1 - a - c) I ]        (2)
    K_ij = sum_{s, t} rho^|s - t| k(d_is, d_jt) / (mean of the diagonal),  P = phi phi^T,

where a is the fraction of variance that the schedule explains, b the fraction of a that depends on
the state (an effect that reacts: f_s(d, x) = f_s(d) + phi(x) . slope), c that of the state itself,
and the rest noise; the 1 integrates out mu. With w = C^-1 (y - mean y), the posterior means are

    f_s(d) = v a (1 - b) sum_i w_i sum_t rho^|s - t| k(d_it, d)        (3)

and rho, a, b, c are those of a grid that maximize the marginal likelihood

    log p(y) = -1/2 (y^T w + log det C) + constant.                    (4)

Rasmussen and Williams, Gaussian Processes for Machine Learning, chapters 2 and 5.
Shape suffixes in comments: E episodes, S segments, D decisions, F features.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from threadpoolctl import threadpool_limits

from automix.operator_info import OPERATOR_FACTS, Operator
from automix.schedule import Decision, Schedule, even_schedule

Floats = NDArray[np.float64]

FEWEST_EPISODES = 8

# The grids. First for all segments: rho and, without states, a.
_CORRELATIONS = (0.3, 0.6, 0.8, 0.9)
_SCHEDULE_FRACTIONS = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
# c, and a / (1 - c) next to it.
_STATE_FRACTIONS = (0.0, 0.3, 0.6, 0.8, 0.95)
_SCHEDULE_FRACTIONS_BY_STATE = (0.1, 0.2, 0.4, 0.6)
# b.
_REACTION_FRACTIONS = (0.4, 0.8)

# Two strengths or probabilities of one operator have at least this much of their effect in common.
_COMMON_TO_OPERATOR = 0.5
# A feature that varies less than this over all episodes is a constant.
_LEAST_DEVIATION = 1e-6
# In standard deviations: one odd run must not decide what holds for it alone.
_FARTHEST = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AdditiveFit:
    """A fitted model of D decisions in S segments."""

    choices: tuple[Decision, ...]
    # (S, D), contributions to the value of a schedule, in the unit of the value.
    effects: Floats
    # rho.
    correlation: float
    # One per segment; () if no states were known.
    reactions: tuple["Reaction", ...] = ()

    def effects_in(self, segments: NDArray[np.int64], states: Floats) -> Floats:
        """Return (N, D) effects in N segments after (N, F) states; rows of NaN are not known."""
        effects: Floats = self.effects[segments]
        for segment, reaction in enumerate(self.reactions):
            rows = segments == segment
            # Not by BLAS, whose bits depend on the number of threads.
            effects[rows] += np.einsum(
                "nf,fd->nd", reaction.scale.features(states[rows]), reaction.slopes
            )
        return effects

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
    """Fit the model to finished episodes, whose schedules choose among ``choices``.

    A higher value is better. ``states``, (E, S, F), are what was observed before each decision; NaN
    where that is not known.

    Raises:
        ValueError: there are fewer than 8 episodes, or not one value per schedule.
    """
    if len(schedules) < FEWEST_EPISODES or len(schedules) != len(values):
        raise ValueError(
            f"expected at least {FEWEST_EPISODES} schedules with a value each, got "
            f"{len(schedules)} and {len(values)}"
        )
    index = {decision: number for number, decision in enumerate(choices)}
    starts = [segment / num_segments for segment in range(num_segments)]
    data = _Data(
        # A run that diverged has fewer segments: its last decision holds to the end.
        decisions=np.array([[index[it.at(start)] for start in starts] for it in schedules]),
        values=np.asarray(values, dtype=np.float64) - np.mean(values),
        prior=decision_covariance(choices),
    )
    # The matrices are small, for which threads take twenty times as long as none; and sums that are
    # split among threads have other bits.
    with threadpool_limits(limits=1, user_api="blas"):
        correlation, effects, reactions = _fit_segments(data, states)
    return AdditiveFit(
        choices=tuple(choices),
        effects=np.stack(effects),
        correlation=correlation,
        reactions=tuple(reactions),
    )


def decision_covariance(choices: Sequence[Decision]) -> Floats:
    """Return (D, D) prior covariances k of the effects of decisions in one segment; 1 at most.

    Decisions of one operator with mixing probabilities p, p' and relative strengths u, u' have
    k = p p' (c + (1 - c) (1 - |u - u'|)), those of different operators 0.
    """
    result = np.zeros((len(choices), len(choices)))
    for row, first in enumerate(choices):
        for column, second in enumerate(choices):
            if first.operator is second.operator:
                gap = abs(_relative_strength(first) - _relative_strength(second))
                by_strength = (1 - _COMMON_TO_OPERATOR) * (1 - gap)
                amount = _amount(first) * _amount(second)
                result[row, column] = amount * (_COMMON_TO_OPERATOR + by_strength)
    return result


def _relative_strength(decision: Decision) -> float:
    """Return the strength within the operator's levels, weak 0 to strong 1."""
    levels = OPERATOR_FACTS[decision.operator].strength.levels
    span = levels[-1] - levels[0]
    return (decision.strength - levels[0]) / span if span else 0.0


def _amount(decision: Decision) -> float:
    return 1.0 if decision.operator is Operator.NONE else decision.probability


@dataclass(frozen=True, slots=True, kw_only=True)
class StateScale:
    """Standardization of the F features of an observation at one time of a training run."""

    center: Floats
    # 1 over the deviation; 0 for features that are unknown or constant.
    weight: Floats

    @classmethod
    def of(cls, states: Floats) -> Self:
        """Return the scale of (E, F) observations; rows of NaN are not known."""
        complete = states[~np.isnan(states).any(axis=1)]
        if not len(complete):
            nothing = np.zeros(states.shape[1])
            return cls(center=nothing, weight=nothing)
        deviation = complete.std(axis=0)
        varies = deviation > _LEAST_DEVIATION
        weight = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
        return cls(center=complete.mean(axis=0), weight=weight)

    def features(self, states: Floats) -> Floats:
        """Return (N, F) features phi, so scaled that phi(x) . phi(x) is 1 on average."""
        # What is not known is taken as the mean, which is 0.
        scaled = np.nan_to_num((states - self.center) * self.weight)
        clipped = np.clip(scaled, -_FARTHEST, _FARTHEST)
        features: Floats = clipped / math.sqrt(max(1, int(np.count_nonzero(self.weight))))
        return features


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaction:
    """Change of the effects of a segment with the state before it: (F, D) slopes of features."""

    scale: StateScale
    slopes: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class _Data:
    """Decisions as (E, S) indices; centered values (E,); (D, D) prior covariances k."""

    decisions: NDArray[np.int64]
    values: Floats
    prior: Floats

    @property
    def variance(self) -> float:
        """Variance of the values, 1 if they are all the same."""
        return float(np.var(self.values)) or 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fractions:
    """Fractions of the variance of the values: a, c and b of (2)."""

    schedule: float
    state: float = 0.0
    reaction: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Covariances:
    """K of (2) from one segment on, (E, E), and (E, S, D) of values with effects, on its scale."""

    correlation: float
    values: Floats
    with_effects: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    """Log marginal likelihood (4), the (E,) weights w, and the hyperparameters they are of."""

    likelihood: float
    weights: Floats
    correlation: float
    fractions: _Fractions


def _fit_segments(data: _Data, states: Floats | None) -> tuple[float, list[Floats], list[Reaction]]:
    """Return rho; the effects of each segment; how they react to states."""
    by_segment = [] if states is None else list(states.swapaxes(0, 1))
    scales = [StateScale.of(observed) for observed in by_segment]
    features = [scale.features(rows) for scale, rows in zip(scales, by_segment, strict=True)]
    whole = _fit_whole(data, features[0] if features else np.zeros((len(data.values), 0)))
    if not scales:
        covariances = _covariances(data, 0, whole.correlation)
        return whole.correlation, list(_effects(data, covariances, whole)), []

    # With states, each segment is fitted again with what was observed right before it: that
    # explains what happened before and the noise of the seed, and leaves the segments from here on.
    effects, reactions = [], []
    for first, (scale, rows) in enumerate(zip(scales, features, strict=True)):
        covariances = _covariances(data, first, whole.correlation)
        fit = _fit_from(data, covariances, rows)
        effects.append(_effects(data, covariances, fit)[0])
        reactions.append(Reaction(scale=scale, slopes=_slopes(data, covariances, fit, rows)))
    return whole.correlation, effects, reactions


def _fit_whole(data: _Data, features: Floats) -> _Fit:
    """Return the most likely fit to all segments: first c at a middle rho, then rho and a."""
    middle = _covariances(data, 0, _CORRELATIONS[len(_CORRELATIONS) // 2])
    state = _most_likely(data, middle, features, _grid(features)).fractions.state
    fractions = [
        _Fractions(schedule=schedule * (1 - state), state=state) for schedule in _SCHEDULE_FRACTIONS
    ]
    candidates = (
        _most_likely(data, _covariances(data, 0, correlation), features, fractions)
        for correlation in _CORRELATIONS
    )
    return max(candidates, key=lambda fit: fit.likelihood)


def _fit_from(data: _Data, covariances: _Covariances, features: Floats) -> _Fit:
    """Return the most likely fit to the segments from one on: first a and c, then a and b."""
    fit = _most_likely(data, covariances, features, _grid(features))
    if not features.any():
        return fit
    state = fit.fractions.state
    reacting = [
        _Fractions(schedule=schedule * (1 - state), state=state, reaction=reaction)
        for reaction in _REACTION_FRACTIONS
        for schedule in _SCHEDULE_FRACTIONS_BY_STATE
    ]
    other = _most_likely(data, covariances, features, reacting)
    return max(fit, other, key=lambda fit: fit.likelihood)


def _grid(features: Floats) -> list[_Fractions]:
    return [
        _Fractions(schedule=schedule * (1 - state), state=state)
        for state in (_STATE_FRACTIONS if features.any() else (0.0,))
        for schedule in _SCHEDULE_FRACTIONS_BY_STATE
    ]


def _covariances(data: _Data, first: int, correlation: float) -> _Covariances:
    decisions = data.decisions[:, first:]
    rows = np.arange(decisions.shape[1])
    between = correlation ** np.abs(np.subtract.outer(rows, rows))
    # (E, S, D): sum_t rho^|s - t| k(d_it, d), the covariance of the value of episode i with the
    # effect of d in segment s. Summed over the decisions of another episode it is K.
    with_effects = np.einsum("st,etd->esd", between, data.prior[decisions], optimize=True)
    values = np.stack([with_effects[:, rows, other].sum(axis=1) for other in decisions], axis=1)
    scale = float(np.mean(np.diag(values)))
    return _Covariances(
        correlation=correlation, values=values / scale, with_effects=with_effects / scale
    )


def _most_likely(
    data: _Data, covariances: _Covariances, features: Floats, candidates: Sequence[_Fractions]
) -> _Fit:
    products = features @ features.T
    fits = (_fit(data, covariances, fractions, products) for fractions in candidates)
    return max(fits, key=lambda fit: fit.likelihood)


def _fit(data: _Data, covariances: _Covariances, fractions: _Fractions, products: Floats) -> _Fit:
    """Solve (2) to (4) with fixed fractions; ``products`` is P, (E, E)."""
    # Term by term; + 1 is the wide prior of mu, in units of the variance.
    total = fractions.schedule * covariances.values * (1 - fractions.reaction) + 1
    if fractions.reaction:
        total += fractions.schedule * fractions.reaction * covariances.values * products
    if fractions.state:
        total += fractions.state * products
    total[np.diag_indices_from(total)] += 1 - fractions.schedule - fractions.state
    total *= data.variance
    # C = L L^T: log det C is twice the sum of the logarithms of the diagonal of L.
    factor = linalg.cho_factor(total, lower=True, overwrite_a=True, check_finite=False)
    weights = linalg.cho_solve(factor, data.values)
    log_determinant = 2 * float(np.log(np.diag(factor[0])).sum())
    return _Fit(
        likelihood=-0.5 * (float(data.values @ weights) + log_determinant),
        weights=weights,
        correlation=covariances.correlation,
        fractions=fractions,
    )


def _effects(data: _Data, covariances: _Covariances, fit: _Fit) -> Floats:
    """Return (segments, D) posterior means in the average state, (3)."""
    amount = data.variance * fit.fractions.schedule * (1 - fit.fractions.reaction)
    effects: Floats = amount * np.tensordot(fit.weights, covariances.with_effects, axes=1)
    return effects


def _slopes(data: _Data, covariances: _Covariances, fit: _Fit, features: Floats) -> Floats:
    """Return (F, D) posterior means of the slopes of the first segment: (3) with a b and phi."""
    amount = data.variance * fit.fractions.schedule * fit.fractions.reaction
    weighted = fit.weights[:, None] * features
    slopes: Floats = amount * weighted.T @ covariances.with_effects[:, 0]
    return slopes
