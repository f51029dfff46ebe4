"""Slow reference of the additive model: its covariance written out, one Cholesky per candidate.

Equations (2) to (4) of `agents.additive` as they stand, with (E, E) matrices: the cost of a fit
grows with the third power of the episodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import linalg

from agents import additive_hyperparameters as grids
from agents.additive import AdditiveFit, Reaction
from agents.additive_columns import Floats, Indices, StateScale, decision_covariance
from agents.additive_regression import Fractions
from automix.schedule import Decision, Mixture, Schedule


@dataclass(frozen=True, kw_only=True)
class Data:
    """Decisions as (E, S) indices; centered values (E,); (D, D) prior covariances k."""

    decisions: Indices
    values: Floats
    prior: Floats

    @property
    def variance(self) -> float:
        return float(np.var(self.values)) or 1.0


@dataclass(frozen=True, kw_only=True)
class Covariances:
    """K of (2) from one segment on, (E, E), and (E, S, D) of values with effects, on its scale."""

    correlation: float
    values: Floats
    with_effects: Floats


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Log marginal likelihood (4), the (E,) weights w, and the hyperparameters they are of."""

    likelihood: float
    weights: Floats = field(repr=False)
    correlation: float
    fractions: Fractions


@dataclass(frozen=True, kw_only=True)
class DenseFit:
    """The fit, and the hyperparameters of each segment; of all of them without states."""

    fit: AdditiveFit
    fractions: list[Fractions]
    # The least difference of likelihoods by which any hyperparameters were preferred.
    margin: float


def fit_dense(
    schedules: Sequence[Schedule],
    values: Sequence[float],
    choices: Sequence[Decision],
    *,
    num_segments: int,
    states: Floats | None = None,
) -> DenseFit:
    """Return what `fit_additive` should."""
    index = {decision: number for number, decision in enumerate(choices)}
    starts = [segment / num_segments for segment in range(num_segments)]
    data = Data(
        decisions=np.array([[index[it.at(start)] for start in starts] for it in schedules]),
        values=np.asarray(values, dtype=np.float64) - np.mean(values),
        prior=decision_covariance(choices),
    )
    margins: list[float] = []
    by_segment = [] if states is None else list(states.swapaxes(0, 1))
    scales = [StateScale.of(observed) for observed in by_segment]
    features = [scale.features(rows) for scale, rows in zip(scales, by_segment, strict=True)]
    whole = fit_whole(data, features[0] if features else np.zeros((len(values), 0)), margins)
    if not scales:
        effects = effects_of(data, covariances_of(data, 0, whole.correlation), whole)
        fit = AdditiveFit(
            choices=tuple(map(Mixture.of, choices)),
            starts=tuple(starts),
            effects=effects,
            correlation=whole.correlation,
        )
        return DenseFit(fit=fit, fractions=[whole.fractions], margin=min(margins))

    effects_by_segment, reactions, fractions = [], [], []
    for first, (scale, rows) in enumerate(zip(scales, features, strict=True)):
        covariances = covariances_of(data, first, whole.correlation)
        best = fit_from(data, covariances, rows, margins)
        effects_by_segment.append(effects_of(data, covariances, best)[0])
        reactions.append(Reaction(scale=scale, slopes=slopes_of(data, covariances, best, rows)))
        fractions.append(best.fractions)
    fit = AdditiveFit(
        choices=tuple(map(Mixture.of, choices)),
        starts=tuple(starts),
        effects=np.stack(effects_by_segment),
        correlation=whole.correlation,
        reactions=tuple(reactions),
    )
    return DenseFit(fit=fit, fractions=fractions, margin=min(margins))


def fit_whole(data: Data, features: Floats, margins: list[float]) -> Fit:
    """Return the most likely fit to all segments: first c at a middle rho, then rho and a."""
    middle = covariances_of(data, 0, grids.CORRELATIONS[len(grids.CORRELATIONS) // 2])
    state = most_likely(fits(data, middle, features, grid(features)), margins).fractions.state
    candidates = [
        Fractions(schedule=schedule * (1 - state), state=state)
        for schedule in grids.SCHEDULE_FRACTIONS
    ]
    all_fits = [
        fit
        for correlation in grids.CORRELATIONS
        for fit in fits(data, covariances_of(data, 0, correlation), features, candidates)
    ]
    return most_likely(all_fits, margins)


def fit_from(data: Data, covariances: Covariances, features: Floats, margins: list[float]) -> Fit:
    """Return the most likely fit to the segments from one on: first a and c, then a and b."""
    alone = fits(data, covariances, features, grid(features))
    best = most_likely(alone, margins)
    if not features.any():
        return best
    state = best.fractions.state
    reacting = [
        Fractions(schedule=schedule * (1 - state), state=state, reaction=reaction)
        for reaction in grids.REACTION_FRACTIONS
        for schedule in grids.SCHEDULE_FRACTIONS_BY_STATE
    ]
    return most_likely([*alone, *fits(data, covariances, features, reacting)], margins)


def most_likely(candidates: Sequence[Fit], margins: list[float]) -> Fit:
    *_, second, best = sorted(candidates, key=lambda fit: fit.likelihood)
    margins.append(best.likelihood - second.likelihood)
    return max(candidates, key=lambda fit: fit.likelihood)


def grid(features: Floats) -> list[Fractions]:
    return [
        Fractions(schedule=schedule * (1 - state), state=state)
        for state in (grids.STATE_FRACTIONS if features.any() else (0.0,))
        for schedule in grids.SCHEDULE_FRACTIONS_BY_STATE
    ]


def covariances_of(data: Data, first: int, correlation: float) -> Covariances:
    """Return K, summed over all pairs of segments."""
    decisions = data.decisions[:, first:]
    rows = np.arange(decisions.shape[1])
    between = correlation ** np.abs(np.subtract.outer(rows, rows))
    # (E, S, D): sum_t rho^|s - t| k(d_it, d), the covariance of the value of episode i with the
    # effect of d in segment s. Summed over the decisions of another episode it is K.
    with_effects = np.einsum("st,etd->esd", between, data.prior[decisions], optimize=True)
    values = np.stack([with_effects[:, rows, other].sum(axis=1) for other in decisions], axis=1)
    scale = float(np.mean(np.diag(values)))
    return Covariances(
        correlation=correlation, values=values / scale, with_effects=with_effects / scale
    )


def fits(
    data: Data, covariances: Covariances, features: Floats, candidates: Sequence[Fractions]
) -> list[Fit]:
    products = features @ features.T
    return [fit_of(data, covariances, fractions, products) for fractions in candidates]


def fit_of(data: Data, covariances: Covariances, fractions: Fractions, products: Floats) -> Fit:
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
    return Fit(
        likelihood=-0.5 * (float(data.values @ weights) + log_determinant),
        weights=weights,
        correlation=covariances.correlation,
        fractions=fractions,
    )


def effects_of(data: Data, covariances: Covariances, fit: Fit) -> Floats:
    """Return (segments, D) posterior means in the average state, (3)."""
    amount = data.variance * fit.fractions.schedule * (1 - fit.fractions.reaction)
    effects: Floats = amount * np.tensordot(fit.weights, covariances.with_effects, axes=1)
    return effects


def slopes_of(data: Data, covariances: Covariances, fit: Fit, features: Floats) -> Floats:
    """Return (F, D) posterior means of the slopes of the first segment: (3) with a b and phi."""
    amount = data.variance * fit.fractions.schedule * fit.fractions.reaction
    weighted = fit.weights[:, None] * features
    slopes: Floats = amount * weighted.T @ covariances.with_effects[:, 0]
    return slopes
