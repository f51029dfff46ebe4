"""The additive model rollout by rollout, against the dense formulas."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from agents import additive
from agents.additive import AdditiveFit, AdditiveModel, fit_additive
from agents.additive_columns import Floats, StateScale, decision_covariance
from automix.operator_info import Operator
from automix.schedule import Decision, Schedule, even_schedule
from tests.agents import dense_additive as dense

CHOICES = (
    Decision(operator=Operator.NONE),
    *(
        Decision(operator=name, strength=strength, probability=probability)
        for name in (Operator.MIXUP, Operator.CUTMIX)
        for strength in (0.2, 2.0)
        for probability in (0.5, 1.0)
    ),
)
F = 5


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Keep the dense formulas from waiting for threads."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield


class Run(NamedTuple):
    """Finished episodes: schedules, values, (E, S, F) states."""

    schedules: list[Schedule]
    values: list[float]
    states: Floats

    def part(self, episodes: slice) -> "Run":
        return Run(self.schedules[episodes], self.values[episodes], self.states[episodes])


def simulated(count: int, *, num_segments: int, seed: int = 0, num_choices: int = 9) -> Run:
    """Return episodes with all that happens to states: constants, parallels, outliers, NaN, ends.

    Effects of decisions react to the first feature.
    """
    generator = np.random.default_rng(seed)
    decisions = generator.integers(num_choices, size=(count, num_segments))
    states = generator.normal(size=(count, num_segments, F)) * [1, 1, 1, 0.1, 3]
    states[..., 1] = 0.25
    states[..., 2] = states[..., 0] - states[..., 4]
    # Far beyond 4 deviations; not known, as before a snapshot.
    states[generator.random((count, num_segments)) < 0.02] *= 50
    states[generator.random(count) < 0.1, : num_segments // 2] = np.nan
    worth, slope = generator.normal(size=(2, num_segments, num_choices))
    rows = np.arange(num_segments)
    reaction = slope[rows, decisions] * np.clip(np.nan_to_num(states[..., 0]), -3, 3)
    values = (worth[rows, decisions] + reaction).sum(axis=1) + generator.normal(size=count)
    schedules = [even_schedule([CHOICES[index] for index in row]) for row in decisions]
    # Runs that diverged end early.
    for number in np.flatnonzero(generator.random(count) < 0.05):
        kept = schedules[number].segments[: max(1, num_segments // 2)]
        schedules[number] = Schedule(segments=kept)
        states[number, len(kept) :] = np.nan
    return Run(schedules, values.tolist(), states)


def assert_same_means(fit: AdditiveFit, expected: AdditiveFit, states: Floats | None) -> None:
    """Compare all effects, in all states, to 1e-8 of the largest."""
    assert fit.correlation == expected.correlation
    size = np.abs(expected.effects).max()
    np.testing.assert_allclose(fit.effects, expected.effects, rtol=0, atol=1e-8 * size)
    if states is None:
        return
    for segment in range(states.shape[1]):
        segments = np.full(len(states), segment)
        effects, others = (one.effects_in(segments, states[:, segment]) for one in (fit, expected))
        np.testing.assert_allclose(effects, others, rtol=0, atol=1e-8 * np.abs(others).max())


@given(
    count=st.integers(8, 40),
    num_segments=st.integers(1, 3),
    num_choices=st.integers(2, 9),
    knows=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_the_means_are_those_of_the_dense_formulas(
    count: int, num_segments: int, num_choices: int, *, knows: bool, seed: int
) -> None:
    run = simulated(count, num_segments=num_segments, seed=seed, num_choices=num_choices)
    states = run.states if knows else None
    expected = dense.fit_dense(
        run.schedules, run.values, CHOICES, num_segments=num_segments, states=states
    )
    # Where two hyperparameters are as likely as each other, rounding decides.
    assume(expected.margin > 1e-9 or num_segments == 1)
    fit = fit_additive(run.schedules, run.values, CHOICES, num_segments=num_segments, states=states)
    assert_same_means(fit, expected.fit, states)


@pytest.mark.parametrize("count", [144, 256])
def test_the_means_of_many_episodes_are_those_of_the_dense_formulas(count: int) -> None:
    """So many that X^T X is smaller than C, with and without what reacts."""
    run = simulated(count, num_segments=2, seed=1)
    expected = dense.fit_dense(
        run.schedules, run.values, CHOICES, num_segments=2, states=run.states
    )
    assert any(fractions.reacts for fractions in expected.fractions)
    fit = fit_additive(run.schedules, run.values, CHOICES, num_segments=2, states=run.states)
    assert_same_means(fit, expected.fit, run.states)


def test_all_values_alike_have_no_effects() -> None:
    run = simulated(20, num_segments=2)
    fit = fit_additive(run.schedules, [0.5] * 20, CHOICES, num_segments=2, states=run.states)
    assert not fit.effects.any()


def fit_of_fixed_hyperparameters(run: Run, *, num_choosing: int) -> AdditiveFit:
    """Return what the dense formulas make of all episodes with what the first ones chose."""
    first = run.part(slice(num_choosing))
    chosen = dense.fit_dense(
        first.schedules, first.values, CHOICES, num_segments=2, states=first.states
    )
    index = {decision: number for number, decision in enumerate(CHOICES)}
    data = dense.Data(
        decisions=np.array([[index[it.at(start)] for start in (0, 0.5)] for it in run.schedules]),
        values=np.array(run.values) - np.mean(run.values),
        prior=decision_covariance(CHOICES),
    )
    effects, reactions = [], []
    for segment, fractions in enumerate(chosen.fractions):
        covariances = dense.covariances_of(data, segment, chosen.fit.correlation)
        # On the scale of the first ones.
        factor = np.trace(covariances.values) / len(run.values)
        factor /= np.trace(covariances.values[:num_choosing, :num_choosing]) / num_choosing
        covariances = dataclasses.replace(
            covariances,
            values=covariances.values * factor,
            with_effects=covariances.with_effects * factor,
        )
        scale = StateScale.of(first.states[:, segment])
        features = scale.features(run.states[:, segment])
        fit = dense.fit_of(data, covariances, fractions, features @ features.T)
        effects.append(dense.effects_of(data, covariances, fit)[0])
        slopes = dense.slopes_of(data, covariances, fit, features)
        reactions.append(additive.Reaction(scale=scale, slopes=slopes))
    return dataclasses.replace(chosen.fit, effects=np.stack(effects), reactions=tuple(reactions))


def test_further_episodes_are_fitted_with_the_hyperparameters_of_the_first_ones() -> None:
    run = simulated(280, num_segments=2, seed=2)
    expected = fit_of_fixed_hyperparameters(run, num_choosing=256)
    fit = fit_additive(run.schedules, run.values, CHOICES, num_segments=2, states=run.states)
    assert any(reaction.slopes.any() for reaction in fit.reactions)
    assert_same_means(fit, expected, run.states)


def in_parts(run: Run, stops: Sequence[int]) -> AdditiveFit:
    """Return the last of the fits after each stop."""
    model = AdditiveModel(CHOICES, num_segments=2)
    for stop in stops:
        part = run.part(slice(len(model), stop))
        model.add(*part)
        fit = model.fit()
    return fit


@pytest.mark.parametrize(
    "stops",
    [
        # Rollouts; with one that is cut by a run that diverged; one by one at the end.
        range(240, 321, 16),
        [64, 240, 272, 283, 299, 320],
        [287, *range(288, 321)],
    ],
)
def test_rollouts_leave_no_trace(stops: Sequence[int]) -> None:
    run = simulated(320, num_segments=2, seed=3)
    for count in (stops[-2], 320):
        whole = fit_additive(
            *run.part(slice(count))[:2], CHOICES, num_segments=2, states=run.states[:count]
        )
        piecewise = in_parts(run, [stop for stop in stops if stop <= count])
        np.testing.assert_array_equal(piecewise.effects, whole.effects)
        for one, other in zip(piecewise.reactions, whole.reactions, strict=True):
            np.testing.assert_array_equal(one.slopes, other.slopes)
            np.testing.assert_array_equal(one.scale.weight, other.scale.weight)


def test_threads_leave_no_trace() -> None:
    run = simulated(300, num_segments=2, seed=4)
    fits = []
    for limit in (1, 4):
        with threadpool_limits(limits=limit, user_api="blas"):
            fits.append(
                fit_additive(run.schedules, run.values, CHOICES, num_segments=2, states=run.states)
            )
    np.testing.assert_array_equal(fits[0].effects, fits[1].effects)


def test_the_first_episodes_choose_for_an_eighth_more_at_most() -> None:
    counts = [additive._num_choosing(count) for count in range(256, 5000)]
    assert {256, 512, 1024, 2048, 4096} <= set(counts)
    assert all(9 * first >= 8 * count for count, first in enumerate(counts, start=256))


def test_values_come_with_schedules() -> None:
    run = simulated(8, num_segments=2)
    model = AdditiveModel(CHOICES, num_segments=2)
    with pytest.raises(ValueError, match="expected one value per schedule, got 7 for 8"):
        model.add(run.schedules, run.values[:7])
    model.add(run.schedules[:7], run.values[:7])
    with pytest.raises(ValueError, match="expected at least 8 schedules"):
        model.fit()
