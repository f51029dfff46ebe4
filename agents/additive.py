"""Additive Gaussian-process model: the return as a sum of effects of decisions and states."""

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

# A feature that varies less than this over all episodes is a constant.
_LEAST_DEVIATION = 1e-6
# One odd training must not decide what holds for it alone.
_FARTHEST = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StateScale:
    """Means and deviations of the F features of an observation at one time of a training run.

    Attributes:
        center: (F,); 0 where a feature is unknown.
        weight: (F,), what standardized features are multiplied by: 1 over the deviation, 0 for
            features that are unknown or constant.
    """

    center: Floats
    weight: Floats

    @classmethod
    def of(cls, states: Floats) -> Self:
        """Return the scale of (E, F) observations; rows of NaN are not known."""
        known = states[~np.isnan(states).any(axis=1)]
        if not len(known):
            nothing = np.zeros(states.shape[1])
            return cls(center=nothing, weight=nothing)
        deviation = known.std(axis=0)
        varies = deviation > _LEAST_DEVIATION
        weight = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
        return cls(center=known.mean(axis=0), weight=weight)

    @property
    def num_varying(self) -> int:
        """Return how many features differ between training runs."""
        return int(np.count_nonzero(self.weight))

    def features(self, states: Floats) -> Floats:
        """Return (N, F) features, on average 0 with products of 1 with themselves in each row.

        What is not known is taken as the mean.
        """
        scaled = np.nan_to_num((states - self.center) * self.weight)
        clipped = np.clip(scaled, -_FARTHEST, _FARTHEST)
        features: Floats = clipped / math.sqrt(max(1, self.num_varying))
        return features


# Grids for the two free numbers, chosen by marginal likelihood: correlation of the effects of
# neighboring segments, and the share of the variance that is the schedule's.
_CORRELATIONS = (0.3, 0.6, 0.8, 0.9)
_SIGNAL_SHARES = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
# And for what is known from the state before a segment: its share of the variance, and the share
# of the rest that is the schedule's.
_STATE_SHARES = (0.0, 0.3, 0.6, 0.8, 0.95)
_SIGNAL_SHARES_GIVEN_STATE = (0.1, 0.2, 0.4, 0.6)
# And for the share of the schedule's variance that is a reaction of its effects to the state.
_REACTION_SHARES = (0.4, 0.8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaction:
    """How the effects of the decisions of a segment change with the state before it.

    Attributes:
        scale: of the F features of that state.
        slopes: (F, D), change of each effect with each feature of the scale.
    """

    scale: StateScale
    slopes: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Episodes:
    """Decisions as (E, S) indices; centered values (E,); (D, D) prior covariances."""

    taken: NDArray[np.int64]
    values: Floats
    similarity: Floats

    @property
    def variance(self) -> float:
        """Return the variance of the values, 1 if they are all the same."""
        return float(np.var(self.values)) or 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shares:
    """What the variance of the values is divided into; the rest is noise.

    Attributes:
        schedule: what decisions explain.
        state: what the state before the first of them explains.
        reaction: share of ``schedule`` that depends on that state.
    """

    schedule: float
    state: float = 0.0
    reaction: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Log marginal likelihood, (E,) weights of the episodes, and the two numbers they are of."""

    likelihood: float
    weights: Floats
    correlation: float
    shares: _Shares


def fit_segments(
    episodes: Episodes, states: Floats | None
) -> tuple[Fit, list[Floats], list[Reaction]]:
    """Return the fit to all segments; the effects of each segment; how they react to states."""
    by_segment = [] if states is None else list(states.swapaxes(0, 1))
    scales = [StateScale.of(seen) for seen in by_segment]
    features = [scale.features(seen) for scale, seen in zip(scales, by_segment, strict=True)]
    whole = _fit_whole(episodes, features[0] if features else np.zeros((len(episodes.values), 0)))
    if not scales:
        covariances = _covariances(episodes, 0, whole.correlation)
        return whole, list(_effects(episodes, covariances, whole)), []
    effects, reactions = [], []
    for first, (scale, seen) in enumerate(zip(scales, features, strict=True)):
        covariances = _covariances(episodes, first, whole.correlation)
        fit = _fit_from(episodes, covariances, seen)
        effects.append(_effects(episodes, covariances, fit)[0])
        slopes = _slopes(episodes, covariances, fit, seen)
        reactions.append(Reaction(scale=scale, slopes=slopes))
    return whole, effects, reactions


def _fit_whole(episodes: Episodes, features: Floats) -> Fit:
    """Return the most likely fit to all segments: which correlation, and which shares."""
    middle = _covariances(episodes, 0, _CORRELATIONS[len(_CORRELATIONS) // 2])
    state = _most_likely(episodes, middle, features, _state_grid(features)).shares.state
    shares = [_Shares(schedule=share * (1 - state), state=state) for share in _SIGNAL_SHARES]
    candidates = (
        _most_likely(episodes, _covariances(episodes, 0, each), features, shares)
        for each in _CORRELATIONS
    )
    return max(candidates, key=lambda fit: fit.likelihood)


def _fit_from(episodes: Episodes, covariances: "Covariances", features: Floats) -> Fit:
    """Return the most likely fit to the segments from one on, given the features before it."""
    fit = _most_likely(episodes, covariances, features, _state_grid(features))
    if not features.any():
        return fit
    state = fit.shares.state
    reacting = [
        _Shares(schedule=share * (1 - state), state=state, reaction=reaction)
        for reaction in _REACTION_SHARES
        for share in _SIGNAL_SHARES_GIVEN_STATE
    ]
    other = _most_likely(episodes, covariances, features, reacting)
    return max(fit, other, key=lambda fit: fit.likelihood)


def _state_grid(features: Floats) -> list[_Shares]:
    states = _STATE_SHARES if features.any() else (0.0,)
    return [
        _Shares(schedule=share * (1 - state), state=state)
        for state in states
        for share in _SIGNAL_SHARES_GIVEN_STATE
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Covariances:
    """Prior covariances for one correlation of the segments from a first one on.

    (E, E) of values with each other, of mean 1 on the diagonal, and (E, S, D) of values with
    effects, on the same scale.
    """

    correlation: float
    values: Floats
    with_effects: Floats


def _covariances(episodes: Episodes, first: int, correlation: float) -> Covariances:
    taken = episodes.taken[:, first:]
    rows = np.arange(taken.shape[1])
    between = correlation ** np.abs(np.subtract.outer(rows, rows))
    with_effects = np.einsum("st,etd->esd", between, episodes.similarity[taken], optimize=True)
    values = np.stack([with_effects[:, rows, other].sum(axis=1) for other in taken], axis=1)
    scale = float(np.mean(np.diag(values)))
    return Covariances(
        correlation=correlation, values=values / scale, with_effects=with_effects / scale
    )


def _most_likely(
    episodes: Episodes, covariances: Covariances, features: Floats, candidates: Sequence[_Shares]
) -> Fit:
    products = features @ features.T
    fits = (_fit(episodes, covariances, shares, products) for shares in candidates)
    return max(fits, key=lambda fit: fit.likelihood)


def _fit(episodes: Episodes, covariances: Covariances, shares: _Shares, products: Floats) -> Fit:
    """Fit with given shares; ``products`` (E, E) of the features of the states."""
    variance = episodes.variance
    # The mean of the values is not known: it is integrated out with a wide prior.
    total = shares.schedule * covariances.values * (1 - shares.reaction) + 1
    if shares.reaction:
        total += shares.schedule * shares.reaction * covariances.values * products
    if shares.state:
        total += shares.state * products
    total[np.diag_indices_from(total)] += 1 - shares.schedule - shares.state
    total *= variance
    factor = linalg.cho_factor(total, lower=True, overwrite_a=True, check_finite=False)
    weights = linalg.cho_solve(factor, episodes.values)
    log_determinant = 2 * float(np.log(np.diag(factor[0])).sum())
    return Fit(
        likelihood=-0.5 * (float(episodes.values @ weights) + log_determinant),
        weights=weights,
        correlation=covariances.correlation,
        shares=shares,
    )


def _effects(episodes: Episodes, covariances: Covariances, fit: Fit) -> Floats:
    """Return (segments, D) posterior means in the average state."""
    amount = episodes.variance * fit.shares.schedule * (1 - fit.shares.reaction)
    effects: Floats = amount * np.tensordot(fit.weights, covariances.with_effects, axes=1)
    return effects


def _slopes(episodes: Episodes, covariances: Covariances, fit: Fit, features: Floats) -> Floats:
    """Return (F, D) posterior means of what the effects of the first segment change with."""
    amount = episodes.variance * fit.shares.schedule * fit.shares.reaction
    weighted = fit.weights[:, None] * features
    slopes: Floats = amount * weighted.T @ covariances.with_effects[:, 0]
    return slopes


# Two strengths or shares of one operator share at least this much of their effect.
_SHARED_BY_OPERATOR = 0.5
FEWEST_EPISODES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class AdditiveFit:
    """A fitted model.

    Attributes:
        choices: the D decisions whose effects were estimated.
        effects: (S, D), estimated contribution of each decision in each segment to the value of a
            schedule, in the unit of the value; the prior mean is 0.
        correlation: of the effects of neighboring segments, in (0, 1).
        reactions: how the effects of each segment change with the state before it; () if no
            states were known.
    """

    choices: tuple[Decision, ...]
    effects: Floats
    correlation: float
    reactions: tuple[Reaction, ...] = ()

    def effects_in(self, segments: NDArray[np.int64], states: Floats) -> Floats:
        """Return (N, D) effects in N segments, given the (N, F) states before them.

        A state that is not known, a row of NaN, is taken as the average one.
        """
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
    episodes = Episodes(
        taken=np.array(
            [
                [index[schedule.at(segment / num_segments)] for segment in range(num_segments)]
                for schedule in schedules
            ]
        ),
        values=np.asarray(values, dtype=np.float64) - np.mean(values),
        similarity=decision_covariance(choices),
    )
    # The matrices are small, for which threads take twenty times as long as none; and sums that are
    # split among threads have other bits.
    with threadpool_limits(limits=1, user_api="blas"):
        whole, effects, reactions = fit_segments(episodes, states)
    return AdditiveFit(
        choices=tuple(choices),
        effects=np.stack(effects),
        correlation=whole.correlation,
        reactions=tuple(reactions),
    )


def decision_covariance(choices: Sequence[Decision]) -> Floats:
    """Return (D, D) prior covariances of the effects of decisions in one segment; 1 at most."""
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
