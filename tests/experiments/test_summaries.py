"""Summaries of paired runs agree with their parts, and leave out what cannot be said."""

import math

import numpy as np
import pytest

from automix.evaluation.significance import holm, paired_p_value
from automix.evaluation.statistics import paired_difference, probability_of_improvement
from automix.experiments.common.summaries import HEADINGS, Series, align, summarize, summary_cells
from automix.reporting.tables import Direction


def series(*values: float, first: int = 0) -> Series:
    return {first + index: value for index, value in enumerate(values)}


RANDOM = np.random.default_rng(0)
BASE = RANDOM.normal(1.0, 0.1, 12)
BETTER = BASE - 0.2 + RANDOM.normal(0, 0.05, 12)
SAME = BASE + RANDOM.normal(0, 0.05, 12)


def test_a_summary_holds_what_the_statistics_say() -> None:
    base, better, same = summarize(
        [series(*BASE), series(*BETTER), series(*SAME)], better=Direction.LOWER, seed=5
    )
    assert base["difference"] is base["p_value_holm"] is base["probability_of_improvement"] is None
    expected = paired_difference(BETTER, BASE, seed=5)
    assert better["difference"] == {
        "estimate": expected.estimate,
        "low": expected.low,
        "high": expected.high,
        "confidence": 0.95,
    }
    improvement = probability_of_improvement(-BETTER, -BASE, paired=True)
    assert better["probability_of_improvement"]["estimate"] == improvement.estimate == 1.0
    p_values = [paired_p_value(values, BASE, seed=5) for values in (BETTER, SAME)]
    assert [row["p_value"] for row in (better, same)] == p_values
    assert [row["p_value_holm"] for row in (better, same)] == list(holm(p_values))
    assert better["p_value_holm"] == 2 * better["p_value"]
    assert base["mean"] == pytest.approx(BASE.mean())
    assert base["standard_deviation"] == pytest.approx(BASE.std(ddof=1))
    assert base["interval"]["low"] < base["mean"] < base["interval"]["high"]


def test_better_is_the_side_that_was_asked_for() -> None:
    lower, higher = (
        summarize([series(*BASE), series(*BETTER)], better=better, seed=0)[1]
        for better in (Direction.LOWER, Direction.HIGHER)
    )
    assert lower["probability_of_improvement"]["estimate"] == 1
    assert higher["probability_of_improvement"]["estimate"] == 0
    assert lower["difference"] == higher["difference"]


def test_runs_are_paired_by_their_key_and_not_by_their_place() -> None:
    shifted = dict(reversed(list(enumerate(BETTER))))
    aligned, backwards = (
        summarize([series(*BASE), other], better=Direction.LOWER, seed=0)[1]["difference"]
        for other in (series(*BETTER), shifted)
    )
    assert backwards["estimate"] == pytest.approx(aligned["estimate"])
    assert backwards["high"] - backwards["low"] == pytest.approx(
        aligned["high"] - aligned["low"], rel=0.1
    )
    few = summarize([series(*BASE), series(0.1, 0.2, first=11)], better=Direction.LOWER, seed=0)[1]
    assert few["mean"] == pytest.approx(0.15)
    assert few["difference"] is None, "one shared run makes no interval"


def test_a_diverged_run_has_no_mean_and_no_pair() -> None:
    diverged = [*BETTER[:-1], math.nan]
    _, row = summarize([series(*BASE), series(*diverged)], better=Direction.LOWER, seed=0)
    assert row["mean"] is row["interval"] is row["interquartile_mean"] is None
    assert row["values"][-1] is None
    expected = paired_difference(BETTER[:-1], BASE[:-1], seed=0)
    assert row["difference"]["estimate"] == expected.estimate


def test_few_runs() -> None:
    one, none = summarize([series(0.5), {}], better=Direction.LOWER, seed=0)
    assert (one["mean"], one["standard_deviation"], one["interval"]) == (0.5, None, None)
    assert (none["num_runs"], none["mean"], none["values"]) == (0, None, [])
    assert summary_cells(one) == ["0.5000", "0.5000", "", "", ""]
    assert summary_cells(none) == ["no run", "", "", "", ""]
    assert summarize([], better=Direction.LOWER, seed=0) == []


def test_columns_of_text_line_up() -> None:
    rows = summarize([series(*BASE), series(*BETTER)], better=Direction.LOWER, seed=0)
    lines = align(
        [
            ["name", *HEADINGS],
            ["a", *summary_cells(rows[0])],
            *[["longer", *summary_cells(rows[1])]],
        ]
    )
    assert lines[0].index("mean") == lines[2].index(f"{rows[1]['mean']:.4f}")
    assert "[" in lines[2]
    assert "100% [76%, 100%]" in lines[2]
