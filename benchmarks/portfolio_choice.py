"""Choice of a portfolio by regret: pure functions over mean losses.

Shape suffixes: S schedules, T tasks.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """The portfolio that all tasks but one choose, and its regrets on that one."""

    rows: list[int]  # schedules, in the order of choice
    first: float  # of the schedule that is chosen first: what is recommended without a race
    best: float  # of the best of them: what a race among them is after


def regrets(losses_ST: Floats) -> Floats:
    """Return (S, T) losses minus the smallest of each task; a loss may be infinite."""
    result: Floats = losses_ST - losses_ST.min(axis=0)
    return result


def relative(regrets_ST: Floats) -> Floats:
    """Return (S, T) regrets over the median regret of each task: 1 is a schedule taken blindly.

    In nats one task would choose: on a network that underfits, what is wrong costs 0.4, on digits
    that nearly all are recognized 0.03. Tasks whose median is 0 stay as they are.
    """
    median_T = np.median(regrets_ST, axis=0)
    result: Floats = regrets_ST / np.where(median_T > 0, median_T, 1.0)
    return result


def choose(regrets_ST: Floats, *, size: int) -> list[int]:
    """Return at most ``size`` rows, each the one that lowers the mean regret most.

    The regret of several schedules on a task is the smallest of theirs: a race among them finds it.
    Greedy as for portfolios of algorithms (Hydra, Xu et al. 2010,
    https://ojs.aaai.org/index.php/AAAI/article/view/7565). What lowers it no further is left out;
    of equal rows the first is taken.

    Example:
        >>> choose(np.array([[0.0, 0.4], [0.1, 0.1], [0.5, 0.0]]), size=10)
        [1, 0, 2]
    """
    chosen: list[int] = []
    best_T = np.full(regrets_ST.shape[1], np.inf)
    while len(chosen) < size:
        means_S = np.minimum(regrets_ST, best_T).mean(axis=1)
        row = int(means_S.argmin())
        if chosen and means_S[row] >= best_T.mean():
            break
        chosen.append(row)
        best_T = np.minimum(best_T, regrets_ST[row])
    return chosen


def leave_one_out(regrets_ST: Floats, *, size: int) -> list[LeftOut]:
    """Return for each task what `choose` takes without it, and how that does on it."""
    results = []
    for task in range(regrets_ST.shape[1]):
        rows = choose(np.delete(regrets_ST, task, axis=1), size=size)
        unseen = regrets_ST[rows, task]
        results.append(LeftOut(rows=rows, first=float(unseen[0]), best=float(unseen.min())))
    return results
