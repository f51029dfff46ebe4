"""Words and values of verdicts, the same for every experiment: pays or not, and how sure that is.

A verdict is by the paired difference of a loss, calibrated NLL, between a schedule and what it is
compared with: below zero, the schedule is better.
"""

import json
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from automix.evaluation.statistics import MOST_RUNS, Interval, runs_to_decide
from automix.experiments.common.summaries import interval_text, plain

Pays = Literal["yes", "no", "unclear"]


def pays_of(difference: Interval | None) -> Pays:
    """Return whether a loss is lower: an interval that holds 0, or none, leaves that open."""
    if difference is None or difference.low <= 0 <= difference.high:
        return "unclear"
    return "yes" if difference.high < 0 else "no"


def verdict_values(
    *,
    against: str | None,
    difference: Interval | None,
    num_seeds: int,
    split: str,
    pays: Pays | None = None,
    more_seeds: int | None = None,
) -> dict[str, Any]:
    """Return what a program reads of a verdict: pays or not, against what, by how much, how sure.

    Args:
        against: name of what the schedule is compared with; None where there is nothing.
        difference: of the losses, schedule minus ``against``, in nats.
        num_seeds: training runs of each of the two.
        split: whose images were classified.
        pays: where something other than the interval decides.
        more_seeds: that would decide, see `seeds_missing`.
    """
    return {
        "pays": pays or pays_of(difference),
        "against": against,
        "metric": "calibrated_nll",
        "difference": plain(difference) if difference else None,
        "num_seeds": num_seeds,
        "more_seeds": more_seeds,
        "split": split,
    }


def seeds_missing(differences: ArrayLike) -> int | None:
    """Return how many more paired seeds would decide, about; None: too many to count on.

    ``differences`` (num_seeds,), of at least 2 seeds, are those whose interval holds 0.
    """
    needed, num_seeds = runs_to_decide(differences), len(np.asarray(differences))
    return None if needed is None else max(1, needed - num_seeds)


def shortage_text(more_seeds: int | None) -> str:
    """Return what a verdict says whose interval holds 0: how many runs would decide."""
    if more_seeds is None:
        return (
            f"not enough runs to say, nor would {MOST_RUNS} seeds be: if there is a difference, "
            "it is small beside the noise of seeds"
        )
    seeds = "1 more seed" if more_seeds == 1 else f"{more_seeds} more seeds"
    return (
        f"not enough runs to say: about {seeds} ({2 * more_seeds} training runs) would show a "
        "difference like this one 4 times in 5"
    )


def basis_text(num_seeds: int, split: str) -> str:
    """Return what the intervals of a verdict rest on, for the end of its sentence."""
    if num_seeds < 2:
        return f"(calibrated NLL, lower is better; one seed, so no interval; {split} images)"
    return (
        f"(calibrated NLL, lower is better; 95% intervals, {num_seeds} paired seeds, {split} "
        "images)"
    )


def difference_text(interval: Interval) -> str:
    """Return a difference with its interval, in nats."""
    return f"{interval_text(plain(interval), '+.4f')} nats"


def quoted(name: str) -> str:
    """Return the name of a schedule file for a sentence: it may be that of any folder."""
    return json.dumps(name, ensure_ascii=False)


def verdict_text(result: Mapping[str, Any]) -> str:
    """Return the sentence of a result's verdict as a sentence of its own."""
    sentence: str = result["verdict"]["sentence"]
    return f"{sentence[:1].upper()}{sentence[1:]}."
