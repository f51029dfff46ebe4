"""How many episodes a search will need: from a few trainings, before any search."""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

# The additive model of `agents.additive` on the digits: effects of neighbouring segments.
_CORRELATION = 0.3
_MOST_EPISODES = 4096
# A difference of two means over n paired seeds is seen when it is twice its standard error.
_STANDARD_ERRORS = 2.0


def episodes_needed(
    constants: ArrayLike,
    random: ArrayLike,
    *,
    num_choices: int,
    num_segments: int,
    num_seeds: int,
    episodes_per_rollout: int,
) -> int | None:
    """Return after how many episodes a search has a schedule that is seen to beat all constants.

    The value of a schedule is taken as a sum of independent effects, one for each decision in each
    segment, whose variance follows from that between constants that mix. Estimates from E random
    episodes correlate with the effects by ``sqrt(v / (v + D s2 / E))``, where v is the variance of
    an effect, s2 that of a training and D the number of decisions; taking the best estimate in each
    segment gains that correlation times the expected maximum of D effects. Needed is a gain that
    lifts the mean of random schedules above the best constant by two standard errors.

    Args:
        constants: (C, K) losses of C constant schedules that mix, K seeds each; lower is better.
        random: (R,) losses of random schedules, a training each.
        num_choices: D, decisions there are.
        num_segments: segments of an episode.
        num_seeds: seeds that the final comparison will have.
        episodes_per_rollout: the answer is a multiple of it.

    Returns:
        None where the constants do not differ by more than chance, or 4,096 are not enough.
    """
    table, others = np.asarray(constants, dtype=float), np.asarray(random, dtype=float)
    noise = float(table.var(axis=1, ddof=1).mean())
    between = float(table.mean(axis=1).var(ddof=1)) - noise / table.shape[1]
    if between <= 0:
        return None
    distances = np.abs(np.subtract.outer(np.arange(num_segments), np.arange(num_segments)))
    effect = between / float((_CORRELATION**distances).sum())
    margin = _STANDARD_ERRORS * math.sqrt(2 * noise / num_seeds)
    wanted = float(others.mean() - table.mean(axis=1).min()) + margin
    best = num_segments * math.sqrt(effect) * expected_maximum(num_choices)
    for episodes in range(episodes_per_rollout, _MOST_EPISODES + 1, episodes_per_rollout):
        correlation = math.sqrt(effect / (effect + num_choices * noise / episodes))
        if correlation * best >= wanted:
            return episodes
    return None


def expected_maximum(count: int) -> float:
    """Return the mean of the largest of ``count`` standard normal draws."""
    grid = np.linspace(-8.0, 8.0, 4001)
    density = count * stats.norm.pdf(grid) * stats.norm.cdf(grid) ** (count - 1)
    return float(np.trapezoid(grid * density, grid))
