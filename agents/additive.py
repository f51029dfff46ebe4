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

Rasmussen and Williams, Gaussian Processes for Machine Learning, chapters 2 and 5. C is (E, E), but
the model is linear in the effects: `agents.additive_columns` writes (2) as products of columns,
whose number does not depend on E, and `agents.additive_regression` solves it there.
Shape suffixes in comments: E episodes, S segments, D decisions, F features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from agents.additive_columns import StateScale, decision_covariance, low_rank_root
from agents.additive_hyperparameters import Episodes, fit_segments, fit_without_states
from automix.schedule import Mixing, Mixture, Schedule, even_schedule

Floats = NDArray[np.float64]

FEWEST_EPISODES = 8

# With states and this many episodes, only the first ones choose the hyperparameters: as many as are
# left of their number when only its four leading binary digits are kept, 8 of 9 or more. A choice
# factors a matrix of up to 1,300 columns for each segment and candidate, which takes most of a
# second whatever is new; 16 more episodes for fixed hyperparameters take 0.05 s.
_FIRST_CHOOSE = 256
_NUM_LEADING = 4
# Further episodes are added this many at a time, counted from those that chose: the bits are the
# same however they come in.
_BLOCK = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class AdditiveFit:
    """A fitted model of D decisions in S segments."""

    choices: tuple[Mixture, ...]
    # (S, D), contributions to the value of a schedule, in the unit of the value.
    effects: Floats
    # rho.
    correlation: float
    # Of the segments.
    starts: tuple[float, ...]
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
        best = even_schedule([self.choices[index] for index in self.effects.argmax(axis=1)])
        return best.at_starts(self.starts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaction:
    """Change of the effects of a segment with the state before it: (F, D) slopes of features."""

    scale: StateScale
    slopes: Floats


def fit_additive(
    schedules: Sequence[Schedule],
    values: Sequence[float],
    choices: Sequence[Mixing],
    *,
    num_segments: int,
    states: Floats | None = None,
) -> AdditiveFit:
    """Fit the model to finished episodes, whose schedules choose among ``choices``.

    A higher value is better. ``states``, (E, S, F), are what was observed before each decision; NaN
    where that is not known. See `AdditiveModel` for what the order of the episodes means.

    Raises:
        ValueError: there are fewer than 8 episodes, or not one value per schedule.
    """
    model = AdditiveModel(choices, num_segments=num_segments)
    model.add(schedules, values, states)
    return model.fit()


class AdditiveModel:
    """The model of episodes that come rollout by rollout.

    `fit` depends on the episodes and their order alone, to the last bit: not on how they were cut
    into rollouts, on earlier fits, or on the number of threads.

    Without states or with fewer than 256 episodes, all of them choose rho, a, b, c and the scale of
    the features. Otherwise the first ones do, at least 8 in 9 (all of 256, 288, ..., 512, 576, ...,
    4,096), and the posterior means are those of all episodes for these hyperparameters.

    Examples:
        >>> from automix.schedule import Decision
        >>> none, mixup = Decision(operator="none"), Decision(operator="mixup")
        >>> model = AdditiveModel([none, mixup], num_segments=2)
        >>> for early, late, value in [(none, mixup, 0.0), (mixup, none, 1.0)] * 4:
        ...     model.add([even_schedule([early, late])], [value])
        >>> model.fit().best_schedule() == even_schedule([mixup, none])
        True
    """

    def __init__(
        self,
        choices: Sequence[Mixing],
        *,
        num_segments: int,
        starts: Sequence[float] | None = None,
    ) -> None:
        """Start without episodes, whose segments will be among ``choices``, distinct ones.

        The segments are of equal length, unless ``starts`` say otherwise.
        """
        self._choices = tuple(map(Mixture.of, choices))
        self._index = {choice: number for number, choice in enumerate(self._choices)}
        even = (segment / num_segments for segment in range(num_segments))
        self._starts = tuple(even if starts is None else starts)
        with _one_thread():
            self._root = low_rank_root(decision_covariance(choices))
        # One per episode: S indices; (S, F) states, None where nothing is known.
        self._decisions: list[list[int]] = []
        self._states: list[Floats | None] = []
        self._values: list[float] = []
        self._segments: _Segments | None = None

    def __len__(self) -> int:
        """Return the number of episodes."""
        return len(self._values)

    def add(
        self, schedules: Sequence[Schedule], values: Sequence[float], states: Floats | None = None
    ) -> None:
        """Take in further episodes, given as to `fit_additive`.

        Raises:
            ValueError: there is not one value per schedule.
        """
        if len(schedules) != len(values):
            raise ValueError(
                f"expected one value per schedule, got {len(values)} for {len(schedules)} schedules"
            )
        # A run that diverged has fewer segments: its last decision holds to the end.
        self._decisions += [
            [self._index[mixture] for mixture in schedule.averaged(self._starts)]
            for schedule in schedules
        ]
        self._values += map(float, values)
        self._states += [None] * len(values) if states is None else list(states.copy())

    def fit(self) -> AdditiveFit:
        """Return the fit to all episodes so far.

        Raises:
            ValueError: there are fewer than 8.
        """
        if len(self) < FEWEST_EPISODES:
            raise ValueError(
                f"expected at least {FEWEST_EPISODES} schedules with a value each, got {len(self)}"
            )
        with _one_thread():
            width = next((state.shape[1] for state in self._states if state is not None), None)
            if width is None:
                episodes = self._episodes(0, len(self))
                centered = episodes.centered(float(np.mean(self._values)))
                correlation, effects = fit_without_states(centered)
                return AdditiveFit(
                    choices=self._choices,
                    effects=effects,
                    correlation=correlation,
                    starts=self._starts,
                )
            return self._fit_segments(width)

    def _fit_segments(self, width: int) -> AdditiveFit:
        """Return the fit to all episodes, with states of so many features."""
        count = _num_choosing(len(self))
        if self._segments is None or self._segments.num_choosing != count:
            self._segments = _Segments(self._episodes(0, count, width))
        while (first := self._segments.num_episodes) + _BLOCK <= len(self):
            self._segments.add(self._episodes(first, first + _BLOCK, width))
        rest = self._episodes(self._segments.num_episodes, len(self), width)
        effects, reactions = self._segments.effects(rest, float(np.mean(self._values)))
        return AdditiveFit(
            choices=self._choices,
            effects=np.stack(effects),
            correlation=self._segments.correlation,
            starts=self._starts,
            reactions=tuple(reactions),
        )

    def _episodes(self, first: int, stop: int, width: int | None = None) -> Episodes:
        states = None
        if width is not None:
            states = np.full((stop - first, len(self._starts), width), np.nan)
            for row, observed in zip(states, self._states[first:stop], strict=True):
                if observed is not None:
                    row[:] = observed
        decisions = np.array(self._decisions[first:stop], dtype=np.int64)
        return Episodes(
            decisions=decisions.reshape(-1, len(self._starts)),
            values=np.array(self._values[first:stop]),
            states=states,
            root=self._root,
        )


def _one_thread() -> threadpool_limits:
    # The matrices are small, for which threads take twenty times as long as none; and sums that are
    # split among threads have other bits.
    return threadpool_limits(limits=1, user_api="blas")


def _num_choosing(count: int) -> int:
    """Return how many of so many episodes with states choose the hyperparameters."""
    if count < _FIRST_CHOOSE:
        return count
    dropped = count.bit_length() - _NUM_LEADING
    return count >> dropped << dropped


class _Segments:
    """Models of the segments: hyperparameters of the first episodes, and what was added since."""

    def __init__(self, episodes: Episodes) -> None:
        self.num_choosing = self.num_episodes = len(episodes.values)
        self._center = float(np.mean(episodes.values))
        self.correlation, self._models = fit_segments(episodes.centered(self._center))

    def add(self, episodes: Episodes) -> None:
        episodes = episodes.centered(self._center)
        for model in self._models:
            model.posterior.add(model.columns(episodes), episodes.values)
        self.num_episodes += len(episodes.values)

    def effects(self, rest: Episodes, mean: float) -> tuple[list[Floats], list[Reaction]]:
        """Return effects and reactions after a few more episodes; ``mean`` is that of all values.

        The rest is forgotten again.
        """
        rest = rest.centered(self._center)
        effects, reactions = [], []
        for model in self._models:
            posterior = model.posterior
            if len(rest.values):
                posterior = posterior.copy()
                posterior.add(model.columns(rest), rest.values)
            coefficients = posterior.coefficients(center=mean - self._center)
            average, slopes = model.first_effects(coefficients)
            effects.append(average)
            reactions.append(Reaction(scale=model.states.scale, slopes=slopes))
        return effects, reactions
