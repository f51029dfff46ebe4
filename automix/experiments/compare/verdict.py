"""Verdict of a comparison: whether mixing pays, and whether anything beats the baseline."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automix.evaluation.statistics import Interval, paired_difference
from automix.experiments.common.equal_schedules import names_of, row_label
from automix.experiments.common.verdicts import (
    basis_text,
    difference_text,
    pays_of,
    quoted,
    seeds_missing,
    shortage_text,
    verdict_values,
)
from automix.operator_info import Operator

Row = Mapping[str, Any]
"""One schedule of a comparison, on one split."""

# Of a p-value after Holm's correction.
_ALPHA = 0.05
_METRIC = "calibrated_nll"
_PAYS = {
    "yes": "mixing pays",
    "no": "mixing does not pay, it hurts",
    "unclear": "mixing is not shown to pay",
}


def judge_comparison(rows: Sequence[Row], *, split: str) -> dict[str, Any]:
    """Return the verdict of a comparison as plain values, see `verdict_values`.

    The schedule with the lowest mean loss stands against no mixing or, where that was not compared,
    against the baseline. It was chosen on the seeds that judge it, which the sentence says.

    Args:
        rows: those of a result, the baseline first.
        split: whose images were classified.
    """
    none = next((row for row in rows if Operator.NONE in names_of(row)), None)
    reference = none or rows[0]
    rivals = [row for row in rows if row is not reference and row[_METRIC]["mean"] is not None]
    best = min(rivals, key=lambda row: float(row[_METRIC]["mean"]), default=None)
    difference = None if best is None else paired(best, reference, _METRIC)
    num_seeds = len(reference[_METRIC]["values"])
    sentence = _against_reference(
        best, reference, difference, len(rivals), is_none=none is not None
    )
    more_seeds = None
    if best is not None and difference is not None and pays_of(difference) == "unclear":
        first, second = _pairs(best, reference, _METRIC)
        more_seeds = seeds_missing(first - second)
        sentence += f"; {shortage_text(more_seeds)}"
    values = verdict_values(
        against=reference["name"],
        difference=difference,
        num_seeds=num_seeds,
        split=split,
        more_seeds=more_seeds,
    )
    if best is not None and none is not None:
        sentence += _against_constant(best, rows)
    if none is not None and none is not rows[0]:
        sentence += _against_baseline(rows)
    return values | {
        "selected": None if best is None else best["name"],
        "sentence": f"{sentence} {basis_text(num_seeds, split)}",
    }


def paired(row: Row, other: Row, metric: str) -> Interval | None:
    """Return the paired difference of two rows over the seeds that neither diverged on.

    None of fewer than two such seeds, which have no interval.
    """
    values, others = _pairs(row, other, metric)
    # A fixed seed of the bootstrap: the same runs give the same words.
    return paired_difference(values, others, seed=0) if len(values) > 1 else None


def _pairs(row: Row, other: Row, metric: str) -> NDArray[np.float64]:
    """Return (2, num_seeds) values of both rows on the seeds that neither diverged on."""
    # A seed on which either diverged says nothing about the difference.
    pairs = [
        (a, b)
        for a, b in zip(row[metric]["values"], other[metric]["values"], strict=True)
        if a is not None and b is not None
    ]
    return np.array(pairs, dtype=np.float64).reshape(-1, 2).T


def _against_reference(
    best: Row | None, reference: Row, difference: Interval | None, count: int, *, is_none: bool
) -> str:
    if best is None:
        return "nothing was compared"
    subject = quoted(row_label(best))
    if count > 1:
        subject += f", the best of {count} on these seeds,"
    other = "no mixing" if is_none else quoted(row_label(reference))
    number = "" if difference is None else f" {difference_text(difference)}"
    if is_none:
        return f"{_PAYS[pays_of(difference)]}: {subject} against {other}{number}"
    verbs = {"yes": "is better than", "no": "is worse than"}
    verb = verbs.get(pays_of(difference), "is not shown to differ from")
    return f"{subject} {verb} {other}" + (f":{number}" if number else "")


def _against_constant(best: Row, rows: Sequence[Row]) -> str:
    """Return what is gained over the best operator held constant, unless the best row is one."""
    constant = best_constant(rows)
    if constant is None or operator_of(best) is not None:
        return ""
    difference = paired(best, constant, _METRIC)
    number = "" if difference is None else f" {difference_text(difference)}"
    return f"; against the best constant, {quoted(row_label(constant))},{number}"


def _against_baseline(rows: Sequence[Row]) -> str:
    """Return what is better than the baseline after the correction for their number, if tested."""
    baseline, *others = rows
    tested = [row for row in others if row[_METRIC]["p_value_holm"] is not None]
    better = [
        quoted(row_label(row))
        for row in tested
        if row[_METRIC]["p_value_holm"] <= _ALPHA and row[_METRIC]["difference"]["estimate"] < 0
    ]
    name = quoted(row_label(baseline))
    if not tested:
        return ""
    if not better:
        return f"; of {len(tested)} others none is shown to be better than {name}"
    return f"; better than {name}, after Holm's correction: {', '.join(better)}"


def in_prose(name: str) -> str:
    """Return the name of a schedule for a sentence: quoted, unless it says what the schedule is."""
    return name if operator_of({"name": name}) is not None else quoted(name)


def best_constant(rows: Sequence[Row]) -> Row | None:
    """Return the operator held constant, and mixing, of the lowest mean loss."""
    # Without those that diverged: a mean over the seeds that survived would favor them.
    constant = [
        row
        for row in rows
        if operator_of(row) not in (None, Operator.NONE) and row[_METRIC]["mean"] is not None
    ]
    return min(constant, key=lambda row: float(row[_METRIC]["mean"]), default=None)


def operator_of(row: Row) -> Operator | None:
    """Return the operator of a constant entry, of whose names one is `Decision.label()`."""
    # The name of a constant schedule begins with its operator, that of others with another word.
    firsts = [name.split(" ", maxsplit=1)[0] for name in names_of(row)]
    return next((Operator(first) for first in firsts if first in set(Operator)), None)
