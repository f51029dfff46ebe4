"""The Gaussian process of additive effects, against sums written out and a density of SciPy."""

import math

import numpy as np
import pytest
from scipy import stats

from agents import additive
from agents.additive import StateScale, decision_covariance, fit_additive
from automix.operator_info import Operator
from automix.schedule import Decision, even_schedule

CHOICES = (
    Decision(operator=Operator.NONE),
    Decision(operator=Operator.MIXUP, strength=0.2),
    Decision(operator=Operator.MIXUP, strength=2.0, probability=0.5),
)
E, S, D, F = 9, 3, len(CHOICES), 2
RHO = 0.6


def data_of(seed: int = 0) -> tuple[additive._Data, np.ndarray]:
    """Return E random episodes, and features of the states before them."""
    generator = np.random.default_rng(seed)
    values = generator.normal(size=E)
    data = additive._Data(
        decisions=generator.integers(D, size=(E, S)),
        values=values - values.mean(),
        prior=decision_covariance(CHOICES),
    )
    return data, generator.normal(size=(E, F)) / math.sqrt(F)


def kernel(data: additive._Data, i: int, j: int) -> float:
    """Return K_ij of the module's docstring, before it is scaled."""
    return float(
        sum(
            RHO ** abs(s - t) * data.prior[data.decisions[i, s], data.decisions[j, t]]
            for s in range(S)
            for t in range(S)
        )
    )


def test_covariances_of_decisions() -> None:
    prior = decision_covariance(CHOICES)
    # Weakest and strongest Mixup have half of their effect in common; p is 1 and 0.5.
    expected = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.25], [0.0, 0.25, 0.25]])
    np.testing.assert_allclose(prior, expected)


def test_the_likelihood_and_the_effects_are_those_of_the_formulas() -> None:
    data, features = data_of()
    a, b, c = 0.5, 0.4, 0.3
    covariances = additive._covariances(data, 0, RHO)
    fractions = additive._Fractions(schedule=a, state=c, reaction=b)
    fit = additive._fit(data, covariances, fractions, features @ features.T)

    raw = np.array([[kernel(data, i, j) for j in range(E)] for i in range(E)])
    scale = np.diag(raw).mean()
    products = features @ features.T
    total = a * (1 - b) * raw / scale + a * b * raw / scale * products + c * products + 1
    total = data.variance * (total + (1 - a - c) * np.eye(E))
    density = stats.multivariate_normal(np.zeros(E), total).logpdf(data.values)
    assert fit.likelihood - 0.5 * E * math.log(2 * math.pi) == pytest.approx(density)

    weights = np.linalg.solve(total, data.values)
    effects = additive._effects(data, covariances, fit)
    slopes = additive._slopes(data, covariances, fit, features)
    for s, d in np.ndindex(S, D):
        row = [
            sum(RHO ** abs(s - t) * data.prior[data.decisions[i, t], d] for t in range(S)) / scale
            for i in range(E)
        ]
        assert effects[s, d] == pytest.approx(data.variance * a * (1 - b) * (weights @ row))
        if s == 0:
            expected = data.variance * a * b * ((weights * row) @ features)
            np.testing.assert_allclose(slopes[:, d], expected)


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
