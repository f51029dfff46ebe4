"""Verdicts of a final: what to use, and what the sentence says."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from automix.experiments.search.verdict import Finalists, judge

SHIPPED = "mix then off"


def losses(mean: float, *, salt: int = 0) -> NDArray[np.float64]:
    # Paired: most of the noise of a seed is shared.
    shared = np.random.default_rng(0).normal(0, 0.1, 12)
    return mean + shared + np.random.default_rng(salt).normal(0, 0.01, 12)


def verdict_of(
    *, none: float, shipped: float, learned: float | None = None, winner: str = "learned"
) -> tuple[str, str, str]:
    table = {"none": losses(none, salt=1), SHIPPED: losses(shipped, salt=2)}
    if learned is not None:
        table["learned"] = losses(learned, salt=3)
    finalists = Finalists(
        winner=winner, is_learned=winner == "learned", zero_search=SHIPPED, none="none"
    )
    verdict = judge(table, finalists, seed=0)
    return verdict.kind, verdict.selected, verdict.sentence


@pytest.mark.parametrize(
    ("means", "winner", "kind", "selected", "phrase"),
    [
        (
            (1.0, 0.8, 0.7),
            "learned",
            "learned",
            "learned",
            "the learned schedule (learned) is bett",
        ),
        ((1.0, 0.8, 0.8), "learned", "zero-search", SHIPPED, "is as good as anything found"),
        ((1.0, 0.8, 0.9), "learned", "zero-search", SHIPPED, "learned against it +0.09"),
        ((1.0, 0.8, None), SHIPPED, "zero-search", SHIPPED, "against no mixing -0.2"),
        ((1.0, 1.1, None), SHIPPED, "none", "none", "mixing hurts here: mix then off against"),
        ((1.0, 1.1, None), "none", "none", "none", "mixing hurts here"),
        ((1.0, 1.0, None), SHIPPED, "unclear", SHIPPED, "mixing is not shown to help here"),
        ((1.0, 1.0, None), "none", "unclear", "none", "mixing is not shown to help here"),
        ((1.0, 0.8, None), "none", "zero-search", SHIPPED, "is as good as anything found"),
    ],
)
def test_the_verdict_follows_the_intervals(
    means: tuple[float, float, float | None], winner: str, kind: str, selected: str, phrase: str
) -> None:
    none, shipped, learned = means
    got = verdict_of(none=none, shipped=shipped, learned=learned, winner=winner)
    assert got[:2] == (kind, selected)
    assert phrase in got[2]


def test_a_constant_that_wins_is_not_called_learned() -> None:
    table = {"none": losses(1.0), SHIPPED: losses(0.9, salt=1), "cutmix 1": losses(0.7, salt=2)}
    finalists = Finalists(winner="cutmix 1", is_learned=False, zero_search=SHIPPED, none="none")
    verdict = judge(table, finalists, seed=0)
    assert (verdict.kind, verdict.selected) == ("zero-search", "cutmix 1")
    assert verdict.sentence.startswith("cutmix 1 is better than mix then off: -0.2")
    assert verdict.calibrated_nll == pytest.approx(table["cutmix 1"].mean())
    assert verdict.differences.keys() == {"none", SHIPPED}


def test_without_a_schedule_that_ships_the_winner_stands_against_no_mixing() -> None:
    table = {"none": losses(1.0), "cutmix 1": losses(0.7, salt=2)}
    finalists = Finalists(winner="cutmix 1", is_learned=False, zero_search=None, none="none")
    assert judge(table, finalists, seed=0).selected == "cutmix 1"


def test_mixing_that_diverges_is_not_used() -> None:
    table = {"none": losses(1.0), SHIPPED: np.array([math.inf] * 12)}
    finalists = Finalists(winner=SHIPPED, is_learned=False, zero_search=SHIPPED, none="none")
    verdict = judge(table, finalists, seed=0)
    assert (verdict.kind, verdict.selected, verdict.differences) == ("none", "none", {})
