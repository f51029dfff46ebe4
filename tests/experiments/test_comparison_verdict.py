"""Verdicts of comparisons: what is judged against what, and both names of equal schedules."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from automix.experiments.common.summaries import summarize
from automix.experiments.compare.verdict import judge_comparison
from automix.reporting.tables import Direction


def rows_of(
    means: dict[str, float], *, also: dict[str, Sequence[str]], num_seeds: int = 12
) -> list[dict[str, Any]]:
    series = [
        dict(enumerate(mean + np.random.default_rng(place).normal(0, 0.01, num_seeds)))
        for place, mean in enumerate(means.values())
    ]
    summaries = summarize(series, better=Direction.LOWER, seed=0)
    return [
        {"name": name, "also": also.get(name, ()), "calibrated_nll": summary}
        for name, summary in zip(means, summaries, strict=True)
    ]


@pytest.mark.parametrize(
    ("means", "pays", "against", "phrases"),
    [
        (
            {"none": 1.0, "search": 0.8, "mixup 1": 0.9},
            "yes",
            "none",
            ('mixing pays: "search", the best of 2', 'the best constant, "mixup 1", -0.0'),
        ),
        ({"none": 1.0, "search": 1.0}, "unclear", "none", ("not shown to pay", "not enough runs")),
        ({"none": 1.0, "search": 1.2}, "no", "none", ("mixing does not pay, it hurts",)),
        (
            {"search": 0.8, "mixup 1": 0.9, "none": 1.0},
            "yes",
            "none",
            ('of 2 others none is shown to be better than "search"',),
        ),
        (
            {"mixup 1": 1.0, "search": 0.8},
            "yes",
            "mixup 1",
            ('"search" is better than "mixup 1": -0.1',),
        ),
        ({"mixup 1": 1.0}, "unclear", "mixup 1", ("nothing was compared",)),
    ],
)
def test_the_verdict_says_what_is_judged_against_what(
    means: dict[str, float], pays: str, against: str, phrases: tuple[str, ...]
) -> None:
    verdict = judge_comparison(rows_of(means, also={}), split="test")
    assert (verdict["pays"], verdict["against"], verdict["num_seeds"]) == (pays, against, 12)
    for phrase in (*phrases, "12 paired seeds, test images"):
        assert phrase in verdict["sentence"]


def test_equal_schedules_are_not_compared_with_each_other() -> None:
    rows = rows_of({"none": 1.0, "search": 0.8}, also={"search": ("cutmix 1",)})
    verdict = judge_comparison(rows, split="test")
    assert '"search = cutmix 1", ' not in verdict["sentence"]
    assert 'mixing pays: "search = cutmix 1" against no mixing' in verdict["sentence"]
    assert "best constant" not in verdict["sentence"], "it is that"
    assert verdict["selected"] == "search"


def test_one_seed_is_no_proof_and_has_no_interval() -> None:
    verdict = judge_comparison(rows_of({"none": 1.0, "a": 0.2}, also={}, num_seeds=1), split="test")
    assert (verdict["pays"], verdict["difference"]) == ("unclear", None)
    assert "one seed, so no interval" in verdict["sentence"]
