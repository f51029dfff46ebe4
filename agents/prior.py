"""Prior of a new task, before its first training run: effects learned in other tasks.

The additive model of all training runs of a table of outcomes, with the description x of each task
as its state, has effects f_s(d, x) = f_s(d) + x . slope: the first part is shared by all tasks, the
second says how it changes with the description. In a new task of description x, outcomes y of runs
i, standardized there, are explained by p_i = sum_s f_s(d_is, x) and what is this task's own:

    y_i = kappa p_i + own_i + noise,    kappa ~ N(1, tau^2).                         (1)

kappa is the posterior mean, and own an additive model of what is left, y - kappa p.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from agents.additive import FEWEST_EPISODES, AdditiveFit, AdditiveModel
from agents.outcomes import OutcomeTable
from automix.mixture import Mixing, Mixture
from automix.schedule import Schedule
from envs.observations import TaskFacts, describe_task

Floats = NDArray[np.float64]

# tau of (1): effects of a new task are half to one and a half times those of the others, mostly.
_SPREAD = 0.5
# Smallest variance of the noise of standardized outcomes.
_SMALLEST_NOISE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """Effects of choices in the segments of a new task, in deviations of random schedules there."""

    choices: tuple[Mixture, ...]
    starts: tuple[float, ...]
    # (S, D).
    effects: Floats

    @classmethod
    def of(
        cls,
        table: OutcomeTable,
        facts: TaskFacts,
        choices: Sequence[Mixing] = (),
        starts: Sequence[float] = (),
    ) -> Self:
        """Return the prior of a task.

        Args:
            table: of at least 8 training runs.
            facts: the description of the task.
            choices: of its schedules; by default those of the table. What no run of the table has
                mixed gets the effect of what is alike.
            starts: of the segments of its schedules; by default those of the table. An effect is
                divided among segments by time.

        Raises:
            ValueError: the table has fewer than 8 training runs.
        """
        requested = tuple(dict.fromkeys(map(Mixture.of, choices or table.choices)))
        every = tuple(dict.fromkeys((*requested, *table.choices)))
        model = AdditiveModel(every, num_segments=len(table.starts), starts=table.starts)
        described = np.array([describe_task(task.facts) for task in table.tasks])
        # The same before each segment.
        states = np.repeat(described[table.task_of][:, None], len(table.starts), axis=1)
        schedules = [table.schedule(row) for row in range(len(table))]
        model.add(schedules, table.outcomes, states)
        fit = model.fit()
        segments = np.arange(len(table.starts))
        here = np.repeat(describe_task(facts)[None], len(segments), axis=0)
        effects = fit.effects_in(segments, here)[:, : len(requested)]
        starts = tuple(starts or table.starts)
        return cls(
            choices=requested, starts=starts, effects=_overlaps(starts, table.starts) @ effects
        )

    def worth(self, schedule: Schedule) -> float:
        """Return the estimated outcome of a schedule, whose segments are among the choices."""
        places = [self.choices.index(one) for one in schedule.averaged(self.starts)]
        return float(self.effects[np.arange(len(places)), places].sum())

    def best_schedule(self) -> Schedule:
        """Return the schedule of the largest estimated outcome."""
        return self.as_fit().best_schedule()

    def as_fit(self) -> AdditiveFit:
        """Return the effects in the form of a fit."""
        return AdditiveFit(
            choices=self.choices, effects=self.effects, correlation=0.0, starts=self.starts
        )

    def updated(self, schedules: Sequence[Schedule], values: Sequence[float]) -> AdditiveFit:
        """Return effects, in the unit of ``values``, after training runs in the task itself.

        Fewer than 8 training runs change nothing.
        """
        if len(values) < FEWEST_EPISODES:
            return self.as_fit()
        mean, deviation = float(np.mean(values)), float(np.std(values)) + 1e-12
        outcomes = (np.array(values) - mean) / deviation
        expected = np.array([self.worth(schedule) for schedule in schedules])
        expected -= expected.mean()
        noise = max(_SMALLEST_NOISE, float(np.var(outcomes - expected)))
        # Posterior mean of kappa in (1).
        precision = 1 / _SPREAD**2
        kappa = (expected @ outcomes / noise + precision) / (
            expected @ expected / noise + precision
        )
        residual = AdditiveModel(self.choices, num_segments=len(self.starts), starts=self.starts)
        residual.add(schedules, (outcomes - kappa * expected).tolist())
        rest = residual.fit()
        return AdditiveFit(
            choices=self.choices,
            effects=deviation * (kappa * self.effects + rest.effects),
            correlation=rest.correlation,
            starts=self.starts,
        )


def _overlaps(starts: Sequence[float], of_table: Sequence[float]) -> Floats:
    """Return (S, T): the fraction of each segment of the table that lies in each of ``starts``."""
    first, last = np.array(starts), np.append(starts[1:], 1.0)
    begin, end = np.array(of_table), np.append(of_table[1:], 1.0)
    common = np.minimum(last[:, None], end) - np.maximum(first[:, None], begin)
    result: Floats = np.maximum(common, 0.0) / (end - begin)
    return result
