"""The Gaussian process of additive effects, against sums written out and a density of SciPy."""

import math

import numpy as np
import pytest
from scipy import stats

from agents.additive import fit_additive
from agents.additive_columns import (
    Columns,
    EffectBasis,
    StateScale,
    decision_covariance,
    low_rank_root,
)
from agents.additive_regression import DualRegression, Fractions, PrimalRegression
from automix.operator_info import Operator
from automix.schedule import Decision, even_schedule

CHOICES = (
    Decision(operator=Operator.NONE),
    Decision(operator=Operator.MIXUP, strength=0.2),
    Decision(operator=Operator.MIXUP, strength=2.0, probability=0.5),
)
E, S, D, F = 9, 3, len(CHOICES), 2
RHO = 0.6
GENERATOR = np.random.default_rng(0)
DECISIONS = GENERATOR.integers(D, size=(E, S))
FEATURES = GENERATOR.normal(size=(E, F)) / math.sqrt(F)
VALUES = GENERATOR.normal(size=E)
VALUES -= VALUES.mean()
FIRST, REST = slice(5), slice(5, E)
BASIS = EffectBasis.of(low_rank_root(decision_covariance(CHOICES)), DECISIONS, correlation=RHO)


def kernel(i: int, j: int) -> float:
    """Return K_ij of the module's docstring, before it is scaled."""
    prior = decision_covariance(CHOICES)
    return float(
        sum(
            RHO ** abs(s - t) * prior[DECISIONS[i, s], DECISIONS[j, t]]
            for s in range(S)
            for t in range(S)
        )
    )


def test_covariances_of_decisions() -> None:
    prior = decision_covariance(CHOICES)
    # Weakest and strongest Mixup have half of their effect in common; p is 1 and 0.5.
    expected = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.25], [0.0, 0.25, 0.25]])
    np.testing.assert_allclose(prior, expected)


@pytest.mark.parametrize("c", [0.3, 0.0])
@pytest.mark.parametrize("kind", [PrimalRegression, DualRegression])
def test_the_likelihood_and_the_effects_are_those_of_the_formulas(
    kind: type[PrimalRegression | DualRegression], c: float
) -> None:
    a, b = 0.5, 0.4
    fractions = Fractions(schedule=a, state=c, reaction=b)
    fit = kind(Columns(BASIS, DECISIONS, FEATURES), VALUES, reacts=True).fit(fractions)
    coefficients = fit.posterior.coefficients()

    raw = np.array([[kernel(i, j) for j in range(E)] for i in range(E)])
    scale = np.diag(raw).mean()
    products = FEATURES @ FEATURES.T
    total = a * (1 - b) * raw / scale + a * b * raw / scale * products + c * products + 1
    total = VALUES.var() * (total + (1 - a - c) * np.eye(E))
    density = stats.multivariate_normal(np.zeros(E), total).logpdf(VALUES)
    assert fit.likelihood - 0.5 * E * math.log(2 * math.pi) == pytest.approx(density)

    weights = np.linalg.solve(total, VALUES)
    prior = decision_covariance(CHOICES)
    effects = BASIS.effects(coefficients.effects)
    slopes = BASIS.effects(coefficients.slopes.T)
    for s, d in np.ndindex(S, D):
        row = [
            sum(RHO ** abs(s - t) * prior[DECISIONS[i, t], d] for t in range(S)) / scale
            for i in range(E)
        ]
        assert effects[s, d] == pytest.approx(VALUES.var() * a * (1 - b) * (weights @ row))
        expected = VALUES.var() * a * b * ((weights * row) @ FEATURES)
        np.testing.assert_allclose(slopes[:, s, d], expected)


@pytest.mark.parametrize("reaction", [0.4, 0.0])
@pytest.mark.parametrize("kind", [PrimalRegression, DualRegression])
def test_further_episodes_are_as_good_as_those_of_the_start(
    kind: type[PrimalRegression | DualRegression], reaction: float
) -> None:
    fractions = Fractions(schedule=0.5, state=0.3, reaction=reaction)
    reacts = reaction > 0
    whole = (
        kind(Columns(BASIS, DECISIONS, FEATURES), VALUES, reacts=reacts).fit(fractions).posterior
    )
    first, rest = (Columns(BASIS, DECISIONS[part], FEATURES[part]) for part in (FIRST, REST))
    # Values of another center, which is subtracted in the end.
    posterior = kind(first, VALUES[FIRST] + 5, reacts=reacts).fit(fractions).posterior
    before = posterior.coefficients()
    more = posterior.copy()
    more.add(rest, VALUES[REST] + 5)
    expected, coefficients = whole.coefficients(), more.coefficients(center=5.0)
    np.testing.assert_allclose(coefficients.effects, expected.effects)
    np.testing.assert_allclose(coefficients.slopes, expected.slopes)
    np.testing.assert_array_equal(posterior.coefficients().effects, before.effects)


def test_features_of_states_are_standardized_and_unknown_ones_are_average() -> None:
    generator = np.random.default_rng(1)
    states = np.column_stack(
        [generator.normal(3, 2, 200), np.ones(200), generator.normal(size=200)]
    )
    states[:5] = np.nan
    scale = StateScale.of(states)
    features = scale.features(states)
    assert (features[:5] == 0).all()
    assert (features[:, 1] == 0).all()
    assert np.abs(features.mean(axis=0)).max() < 0.01
    assert (features[5:] ** 2).sum(axis=1).mean() == pytest.approx(1, abs=0.01)
    # An odd run counts as 4 deviations.
    assert scale.features(np.array([[1e6, 1.0, 0.0]]))[0, 0] == pytest.approx(4 / math.sqrt(2))
    assert not StateScale.of(states[:5]).features(states).any()


def test_a_fit_finds_the_best_schedule_of_additive_values() -> None:
    generator = np.random.default_rng(2)
    worth = np.array([[0.0, 1.0, 0.2], [0.5, 0.0, 0.3], [0.9, 0.0, 0.1]])
    decisions = generator.integers(D, size=(60, S))
    values = worth[np.arange(S), decisions].sum(axis=1) + generator.normal(scale=0.05, size=60)
    schedules = [even_schedule([CHOICES[index] for index in row]) for row in decisions]
    fit = fit_additive(schedules, values.tolist(), CHOICES, num_segments=S)
    assert fit.best_schedule() == even_schedule([CHOICES[1], CHOICES[0], CHOICES[0]])
    assert (fit.effects.shape, fit.reactions) == ((S, D), ())
    with pytest.raises(ValueError, match="expected at least 8 schedules"):
        fit_additive(schedules[:7], values[:7].tolist(), CHOICES, num_segments=S)
