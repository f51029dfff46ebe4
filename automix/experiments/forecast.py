"""How many episodes a search will need: from the trainings of a probe, before any search.

The value of a schedule is modelled as in `agents.additive`, as a sum of effects of its decisions,
and the trainings of the probe say what is likely of these effects: how large they are (both the
constants and the random schedules say so), how alike in neighbouring segments, how much larger at
the end. From what is then likely, whole searches are simulated.

Constant schedules have a mean of their own. On the digits, random schedules are 0.014 nats better
than the mean of the constants that they are made of (100 and 20 trainings each): variety helps by
itself, and without this a forecast took the best constant for better than it was.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from agents.additive import decision_covariance
from automix.schedule import Decision, Schedule

Floats = NDArray[np.float64]
MOST_EPISODES = 1024
"""Simulated searches end here."""

_NUM_WORLDS = 100
# In each world, of which the mean is taken: a single search leads early by luck, or late.
_NUM_SEARCHES = 3
_CONFIDENCE = 0.8
# A difference of two means over n paired seeds is seen when it is twice its standard error.
_STANDARD_ERRORS = 2.0
# What is averaged over, by marginal likelihood: correlation of the effects of neighbouring
# segments; how much larger effects are at the end than at the start, as a logarithm; the share of
# the variance of random schedules that is theirs; and the noise, over the variance within
# constants. 256 random trainings of the digits were the most likely at 0.3, 1 and 0.2; 240 of
# CIFAR-10 photographs at 0.3, 2 and 0.6.
_CORRELATIONS = (0.0, 0.3, 0.6, 0.8, 0.9)
_GROWTHS = (0.0, 1.0, 2.0, 3.0)
_SHARES = np.array([0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
_NOISES = np.array([0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """When a search will have a schedule that is seen to beat every constant.

    Attributes:
        episodes: how many it takes in the median of all that the trainings leave possible; None for
            more than 1,024, or never.
        low: lower end of the interval that holds it with probability ``confidence``, because a
            probe says only so much; None like ``episodes``.
        high: upper end; None for more than 1,024.
        confidence: 0.8.
    """

    episodes: int | None
    low: int | None
    high: int | None
    confidence: float = _CONFIDENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlan:
    """The search that a forecast is for.

    Attributes:
        choices: decisions in each segment.
        constants: what is held constant for comparison.
        num_segments: segments of an episode.
        num_seeds: paired seeds of the final comparison.
        episodes_per_rollout: the answer is a multiple of it.
    """

    choices: tuple[Decision, ...]
    constants: tuple[Decision, ...]
    num_segments: int
    num_seeds: int
    episodes_per_rollout: int


def forecast_episodes(
    schedules: Sequence[Schedule], losses: ArrayLike, plan: SearchPlan, *, seed: int
) -> Forecast:
    """Return how many episodes a search needs, from finished trainings.

    A search is simulated as the additive fit to random episodes; that PPO does about as well with
    the same number was measured (docs/search.md). It succeeds when the true value of its schedule
    is above that of the best constant by two standard errors of the final comparison.

    Args:
        schedules: of N trainings; among them constants with several trainings each, and others.
        losses: (N,) finite, lower is better.
        plan: the search.
        seed: of the simulations.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        probed = _Probed.of(schedules, np.asarray(losses, dtype=np.float64), plan)
        worlds = _Worlds(probed, plan)
        generator = np.random.default_rng(seed)
        counts = _counts(plan.episodes_per_rollout)
        needs = sorted(
            _need(worlds.draw(generator), plan, counts, generator) for _ in range(_NUM_WORLDS)
        )
    tail = (1 - _CONFIDENCE) / 2
    low, middle, high = (
        int(need) if math.isfinite(need := needs[int(share * (_NUM_WORLDS - 1))]) else None
        for share in (tail, 0.5, 1 - tail)
    )
    return Forecast(episodes=middle, low=low, high=high)


def _need(
    world: "_World", plan: SearchPlan, counts: Sequence[int], generator: np.random.Generator
) -> float:
    """Return after how many episodes the mean of a few searches leads by the margin."""
    margin = _STANDARD_ERRORS * math.sqrt(2 * world.noise / plan.num_seeds)
    leads = [_search(world, plan, counts, generator) for _ in range(_NUM_SEARCHES)]
    seen = np.mean(leads, axis=0) >= margin
    return counts[int(seen.argmax())] if seen.any() else math.inf


def _counts(step: int) -> list[int]:
    """Return multiples of ``step``: each of the first ones, then four for every doubling."""
    multiples = [1]
    while (following := multiples[-1] + max(1, multiples[-1] // 4)) * step <= MOST_EPISODES:
        multiples.append(following)
    return [each * step for each in multiples]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Probed:
    """Trainings as rows of a linear model of S x D effects.

    Attributes:
        decisions: D; the choices of the search first.
        features: (N, S * D), 1 where a decision was taken.
        values: (N,) negative losses.
        groups: (N, 2), 1 for constants and for others: each has a mean of its own.
        noise: variance within constants.
    """

    decisions: tuple[Decision, ...]
    features: Floats
    values: Floats
    groups: Floats
    noise: float

    @classmethod
    def of(cls, schedules: Sequence[Schedule], losses: Floats, plan: SearchPlan) -> "_Probed":
        rows = [
            [each.at(s / plan.num_segments) for s in range(plan.num_segments)] for each in schedules
        ]
        decisions = tuple(
            dict.fromkeys([*plan.choices, *plan.constants, *itertools.chain.from_iterable(rows)])
        )
        index = {decision: number for number, decision in enumerate(decisions)}
        taken = np.array([[index[decision] for decision in row] for row in rows])
        is_constant = np.array([len(set(row)) == 1 for row in rows])
        first = taken[:, 0]
        tables = [
            losses[is_constant & (first == each)] for each in set(first[is_constant].tolist())
        ]
        within = [np.square(table - table.mean()).sum() for table in tables]
        freedom = sum(len(table) - 1 for table in tables)
        return cls(
            decisions=decisions,
            features=_one_hot(taken, len(decisions)),
            values=-losses,
            groups=np.stack([is_constant, ~is_constant], axis=1).astype(np.float64),
            noise=max(float(sum(within)) / freedom, 1e-12),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _World:
    """Effects as they may be.

    Attributes:
        effects: (S, D).
        penalty: what constants have less of, besides.
        covariance: (S * D, S * D), prior of the effects, which the search knows.
        noise: variance of a training.
    """

    effects: Floats
    penalty: float
    covariance: Floats
    noise: float


class _Worlds:
    """What is likely after a probe."""

    def __init__(self, probed: _Probed, plan: SearchPlan) -> None:
        self._probed = probed
        self._shape = (plan.num_segments, len(probed.decisions))
        similarity = decision_covariance(probed.decisions)
        # Contrasts that the means of the two groups do not enter.
        basis = np.linalg.qr(probed.groups, mode="complete")[0][:, probed.groups.shape[1] :]
        self._features = basis.T @ probed.features
        self._values = basis.T @ probed.values
        self._priors = [
            _prior(similarity, plan.num_segments, correlation=correlation, growth=growth)
            for correlation in _CORRELATIONS
            for growth in _GROWTHS
        ]
        self._variances, self._noises = self._grid(plan)
        likelihoods = np.stack([self._likelihoods(prior) for prior in self._priors])
        weights = np.exp(likelihoods - likelihoods.max())
        self._shares = (weights / weights.sum()).ravel()
        self._each = weights[0].size

    def draw(self, generator: np.random.Generator) -> _World:
        """Draw a prior by its likelihood, then effects given the trainings."""
        choice = int(generator.choice(len(self._shares), p=self._shares))
        variance = float(self._variances[choice % self._each])
        noise = float(self._noises[choice % self._each])
        covariance = variance * self._priors[choice // self._each]
        factor = np.linalg.cholesky(covariance + 1e-9 * variance * np.eye(len(covariance)))
        effects = factor @ generator.standard_normal(len(covariance))
        seen = self._features @ effects
        seen += np.sqrt(noise) * generator.standard_normal(len(seen))
        with_values = covariance @ self._features.T
        total = self._features @ with_values + noise * np.eye(len(seen))
        effects += with_values @ np.linalg.solve(total, self._values - seen)
        return _World(
            effects=effects.reshape(self._shape),
            penalty=self._penalty(effects, noise, generator),
            covariance=covariance,
            noise=noise,
        )

    def _grid(self, plan: SearchPlan) -> tuple[Floats, Floats]:
        """Return variances of effects and of trainings, all pairs of shares and noises."""
        noises = np.repeat(self._probed.noise * _NOISES, len(_SHARES))
        odds = np.tile(_SHARES / (1 - _SHARES), len(_NOISES))
        return odds * noises / plan.num_segments, noises

    def _likelihoods(self, prior: Floats) -> Floats:
        """Return log marginal likelihoods of the grid, the means of the groups integrated out."""
        values, vectors = np.linalg.eigh(self._features @ prior @ self._features.T)
        rotated = np.square(vectors.T @ self._values)
        spectrum = np.outer(self._variances, np.maximum(values, 0)) + self._noises[:, None]
        likelihoods: Floats = -0.5 * (rotated / spectrum + np.log(spectrum)).sum(axis=1)
        return likelihoods

    def _penalty(self, effects: Floats, noise: float, generator: np.random.Generator) -> float:
        """Draw the difference of the means of other schedules and constants, given the effects."""
        groups = self._probed.groups
        sizes = groups.sum(axis=0)
        means = (self._probed.values - self._probed.features @ effects) @ groups / sizes
        means += np.sqrt(noise / sizes) * generator.standard_normal(len(sizes))
        return float(means[1] - means[0])


def _prior(similarity: Floats, num_segments: int, *, correlation: float, growth: float) -> Floats:
    """Return (S * D, S * D) covariances of effects whose mean variance over segments is 1."""
    times = np.linspace(0.0, 1.0, num_segments)
    sizes = np.exp(growth * times)
    sizes /= np.sqrt(np.square(sizes).mean())
    distances = np.abs(np.subtract.outer(np.arange(num_segments), np.arange(num_segments)))
    return np.kron(correlation**distances * np.outer(sizes, sizes), similarity)


def _search(
    world: _World, plan: SearchPlan, counts: Sequence[int], generator: np.random.Generator
) -> Floats:
    """Return how far the schedule of one search is above the best constant, by its episodes."""
    num_segments, num_choices = plan.num_segments, len(plan.choices)
    effects = world.effects[:, :num_choices]
    taken = generator.integers(num_choices, size=(counts[-1], num_segments))
    values = effects[np.arange(num_segments), taken].sum(axis=1)
    values += np.sqrt(world.noise) * generator.standard_normal(len(values))
    columns = np.arange(world.effects.size).reshape(world.effects.shape)[:, :num_choices].ravel()
    prior = world.covariance[np.ix_(columns, columns)]
    constants = world.effects.sum(axis=0) - world.penalty
    lead = []
    for estimate in _estimates(_one_hot(taken, num_choices), values, counts, prior, world.noise):
        best = estimate.reshape(effects.shape).argmax(axis=1)
        lead.append(effects[np.arange(num_segments), best].sum() - constants.max())
    return np.array(lead)


def _estimates(
    features: Floats, values: Floats, counts: Sequence[int], prior: Floats, noise: float
) -> Iterator[Floats]:
    """Yield posterior means of the effects after each number of episodes."""
    for count in counts:
        seen = features[:count] - features[:count].mean(axis=0)
        spread = prior @ (seen.T @ seen) + noise * np.eye(len(prior))
        yield np.linalg.solve(spread, prior @ (seen.T @ (values[:count] - values[:count].mean())))


def _one_hot(taken: NDArray[np.int64], count: int) -> Floats:
    """Return (N, S * count) indicators of (N, S) decisions."""
    return np.eye(count)[taken].reshape(len(taken), -1)
