"""Choice of the hyperparameters of the additive model by its marginal likelihood, over grids.

One correlation rho for all segments, then the fractions a, b, c of each; see `agents.additive`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from agents.additive_columns import Columns, EffectBasis, StateBasis
from agents.additive_regression import (
    Coefficients,
    Fit,
    Fractions,
    Posterior,
    regress,
)

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

# First for all segments: rho and, without states, a.
CORRELATIONS = (0.3, 0.6, 0.8, 0.9)
SCHEDULE_FRACTIONS = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
# c, and a / (1 - c) next to it.
STATE_FRACTIONS = (0.0, 0.3, 0.6, 0.8, 0.95)
SCHEDULE_FRACTIONS_BY_STATE = (0.1, 0.2, 0.4, 0.6)
# b.
REACTION_FRACTIONS = (0.4, 0.8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Episodes:
    """Finished episodes, and a root B of the (D, D) covariances of decisions."""

    # (E, S) indices, (E,) values, (E, S, F) before each decision.
    decisions: Indices
    values: Floats
    states: Floats | None
    root: Floats

    def centered(self, center: float) -> Self:
        """Return the same with values from which ``center`` is subtracted."""
        return replace(self, values=self.values - center)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentModel:
    """Fitted model of the segments from one on, with what was observed right before it.

    That explains what happened before and the noise of the seed, and leaves the segments from here.
    """

    first: int
    effects: EffectBasis
    states: StateBasis
    # Of centered values; further episodes can be added to it.
    posterior: Posterior

    def columns(self, episodes: Episodes) -> Columns:
        """Return the columns of any episodes in the bases of this model."""
        return _columns(episodes, self.first, self.effects, self.states)

    def first_effects(self, coefficients: Coefficients) -> tuple[Floats, Floats]:
        """Return effects of the first segment in the average state, (D,), and slopes, (F, D)."""
        effects = self.effects.effects(coefficients.effects)[0]
        slopes = self.effects.effects(coefficients.slopes.T)[:, 0]
        return effects, self.states.directions @ slopes


def fit_without_states(episodes: Episodes) -> tuple[float, Floats]:
    """Return the most likely rho, and (S, D) effects, of centered values."""
    whole = _fit_whole(episodes, None)
    coefficients = whole.fit.posterior.coefficients()
    return whole.correlation, whole.basis.effects(coefficients.effects)


def fit_segments(episodes: Episodes) -> tuple[float, list[SegmentModel]]:
    """Return the most likely rho, and a model from each segment on, of centered values."""
    assert episodes.states is not None
    bases = [StateBasis.of(observed) for observed in episodes.states.swapaxes(0, 1)]
    correlation = _fit_whole(episodes, bases[0]).correlation
    models = []
    for first, states in enumerate(bases):
        effects = EffectBasis.of(
            episodes.root, episodes.decisions[:, first:], correlation=correlation
        )
        fit = _fit_reacting(_columns(episodes, first, effects, states), episodes.values)
        models.append(
            SegmentModel(first=first, effects=effects, states=states, posterior=fit.posterior)
        )
    return correlation, models


@dataclass(frozen=True, slots=True, kw_only=True)
class _Whole:
    """The fit of one correlation to all segments."""

    correlation: float
    basis: EffectBasis
    fit: Fit


def _columns(
    episodes: Episodes, first: int, effects: EffectBasis, states: StateBasis | None
) -> Columns:
    if states is None:
        features = np.zeros((len(episodes.values), 0))
    else:
        assert episodes.states is not None
        features = states.columns(episodes.states[:, first])
    return Columns(effects, episodes.decisions[:, first:], features)


def _fit_whole(episodes: Episodes, states: StateBasis | None) -> _Whole:
    """Return the most likely fit to all segments: first c at a middle rho, then rho and a."""

    def fit(correlation: float, candidates: Sequence[Fractions]) -> _Whole:
        basis = EffectBasis.of(episodes.root, episodes.decisions, correlation=correlation)
        columns = _columns(episodes, 0, basis, states)
        return _Whole(
            correlation=correlation, basis=basis, fit=_fit(columns, episodes.values, candidates)
        )

    middle = CORRELATIONS[len(CORRELATIONS) // 2]
    state = 0.0
    if states is not None and states.rank:
        state = fit(middle, _grid(STATE_FRACTIONS)).fit.fractions.state
    candidates = _grid([state], SCHEDULE_FRACTIONS)
    fits = (fit(correlation, candidates) for correlation in CORRELATIONS)
    return max(fits, key=lambda whole: whole.fit.likelihood)


def _fit_reacting(columns: Columns, values: Floats) -> Fit:
    """Return the most likely fit to the segments from one on: first a and c, then a and b."""
    if not columns.features.shape[1]:
        return _fit(columns, values, _grid([0.0]))
    fit = _fit(columns, values, _grid(STATE_FRACTIONS))
    reacting = [
        Fractions(schedule=alone.schedule, state=alone.state, reaction=reaction)
        for reaction in REACTION_FRACTIONS
        for alone in _grid([fit.fractions.state])
    ]
    other = _fit(columns, values, reacting)
    return max(fit, other, key=lambda fit: fit.likelihood)


def _fit(columns: Columns, values: Floats, candidates: Sequence[Fractions]) -> Fit:
    # All of a grid react, or none.
    regression = regress(columns, values, reacts=candidates[0].reacts)
    # One by one: each holds a factor.
    return max(map(regression.fit, candidates), key=lambda fit: fit.likelihood)


def _grid(
    states: Sequence[float], schedules: Sequence[float] = SCHEDULE_FRACTIONS_BY_STATE
) -> list[Fractions]:
    return [
        Fractions(schedule=schedule * (1 - state), state=state)
        for state in states
        for schedule in schedules
    ]
