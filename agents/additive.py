"""What the episodes of a search say about each decision at each time: an additive model.

The value of a schedule is modelled as a sum over its segments. The effect of a decision varies
smoothly over the training, and decisions of the same operator resemble each other: a Gaussian
process with an additive kernel, whose best schedule is found exactly, segment by segment. It
learns from the same episodes as the agent, and from all of them at once.

With what was observed before each decision, most of a training's luck is known before its last
decisions are taken: on 213 random trainings of the digits, the observation before the last of 8
segments explained 0.68 of the variance of the end. The effects of a segment are then estimated
given the state that it found, and estimates of the last segment from two halves of the trainings
correlated 0.90 instead of 0.78.

What is best may depend on that state, too. The effects of a decision then differ between states,
linearly in what was observed, by a share that is chosen like everything else by marginal
likelihood: where trainings do not say otherwise, it is 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from agents.gaussian_process import Episodes, Reaction, fit_segments
from automix.schedule import Decision, Schedule
from automix.schedule_builders import even_schedule
from automix.vocabulary import OPERATOR_FACTS, Operator

Floats = NDArray[np.float64]

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
        correlation: of the effects of neighbouring segments, in (0, 1).
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
