"""The Gaussian process of the additive model: covariances, marginal likelihood, posterior means.

Shapes: E episodes, S segments, D decisions, F features of a state.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from agents.states import StateScale

Floats = NDArray[np.float64]

# Grids for the two free numbers, chosen by marginal likelihood: correlation of the effects of
# neighbouring segments, and the share of the variance that is the schedule's.
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
    """What was done, (E, S) indices of decisions; centred values (E,); (D, D) prior covariances."""

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
