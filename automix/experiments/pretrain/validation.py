"""Gain of a policy in tasks that it has not seen."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automix.evaluation.statistics import Interval, paired_difference
from envs.family import Standing

Potentials = NDArray[np.float64]
"""(tasks, runs) potentials at the end of training."""

POLICY = "policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Gains of a policy over rivals, in tasks that it has not seen.

    Attributes:
        num_runs: training runs, those with random schedules not counted.
        gains: over each rival, in deviations of random schedules; the unit of the interval is the
            task.
        means: of the potentials of each rival, by task.
    """

    num_runs: int
    gains: Mapping[str, Interval]
    means: Mapping[str, list[float]]

    def to_plain(self) -> dict[str, Any]:
        """Return it as it stands in a result."""
        return {
            "num_runs": self.num_runs,
            "gains": {name: dataclasses.asdict(one) for name, one in self.gains.items()},
            "means": dict(self.means),
        }


def validate(
    potentials: Mapping[str, Potentials], standings: Mapping[int, Standing], *, seed: int
) -> Validation:
    """Compare the policy with its rivals over tasks.

    Args:
        potentials: of each rival, the policy among them, with the tasks of ``standings`` in order.
        standings: what random schedules reach in each task.
        seed: of the bootstrap.
    """
    means = {name: values.mean(axis=1) for name, values in potentials.items()}
    if standings:
        means["random"] = np.array([one.mean for one in standings.values()])
    deviations = np.array([one.deviation for one in standings.values()])
    return Validation(
        num_runs=sum(values.size for values in potentials.values()),
        gains={
            name: paired_difference(means[POLICY] / deviations, rival / deviations, seed=seed)
            for name, rival in means.items()
            if name != POLICY and len(deviations) > 1
        },
        means={name: [float(value) for value in rows] for name, rows in means.items()},
    )


def summarize(result: Mapping[str, Any]) -> str:
    """Return a line per rival: how much more the policy gains."""
    lines = [
        f"policy against {name}: {gain['estimate']:+.2f} [{gain['low']:+.2f}, {gain['high']:+.2f}] "
        "deviations of random schedules"
        for name, gain in result["validation"]["gains"].items()
    ]
    cost = result["cost"]
    return "\n".join(
        [
            f"{cost['trainings_of_the_policy']:,} training runs to learn from",
            *(lines or ["no task to try the policy on"]),
        ]
    )
