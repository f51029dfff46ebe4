"""Verdicts of a final: what to use, and what the sentence says."""

import math

import numpy as np
import pytest
import scipy.stats
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
        ((1.0, 1.1, None), SHIPPED, "none", "none", "it hurts: mix then off against"),
        ((1.0, 1.1, None), "none", "none", "none", "mixing does not pay here"),
        ((1.0, 1.0, None), SHIPPED, "unclear", SHIPPED, "mixing is not shown to pay here"),
        ((1.0, 1.0, None), "none", "unclear", "none", "mixing is not shown to pay here"),
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
    assert verdict.sentence.startswith("mixing pays here: cutmix 1 against no mixing -0.29")
    assert "; it is better than mix then off: -0.2" in verdict.sentence
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


@pytest.mark.parametrize(
    ("shipped", "pays"), [(0.8, "yes"), (1.0, "unclear"), (1.2, "no"), (math.inf, "no")]
)
def test_the_values_of_a_verdict_say_whether_it_pays_against_what_and_how_sure(
    shipped: float, pays: str
) -> None:
    table = {"none": losses(1.0, salt=1), SHIPPED: losses(shipped, salt=2)}
    finalists = Finalists(winner=SHIPPED, is_learned=False, zero_search=SHIPPED, none="none")
    values = judge(table, finalists, seed=0).to_plain()
    expected = {"pays": pays, "against": "none", "num_seeds": 12, "split": "selection"}
    assert values.items() >= expected.items()
    if math.isfinite(shipped):
        assert f"against no mixing {values['difference']['estimate']:+.4f}" in values["sentence"]
        assert "12 paired seeds, selection images" in values["sentence"]
    else:
        assert values["difference"] is None


def test_a_schedule_of_two_names_has_both_in_the_sentence() -> None:
    table = {"none": losses(1.0, salt=1), "cutmix 1": losses(0.8, salt=2)}
    finalists = Finalists(
        winner="cutmix 1",
        is_learned=False,
        zero_search=None,
        none="none",
        also={"cutmix 1": ("greedy",)},
    )
    assert "cutmix 1 = greedy against no mixing" in judge(table, finalists, seed=0).sentence


@pytest.mark.parametrize("effect", [0.02, 0.05])
def test_an_interval_that_holds_0_says_how_many_more_seeds_would_decide(effect: float) -> None:
    noise = np.random.default_rng(3).normal(size=(2, 6))
    differences = effect + 0.1 * (noise[0] - noise[0].mean()) / noise[0].std(ddof=1)
    table = {"none": 1 + noise[1], SHIPPED: 1 + noise[1] - differences}
    finalists = Finalists(winner=SHIPPED, is_learned=False, zero_search=SHIPPED, none="none")
    values = judge(table, finalists, seed=0).to_plain()
    more = values["more_seeds"]
    assert values["pays"] == "unclear"
    assert f"not enough runs to say: about {more} more seeds" in values["sentence"]
    assert f"({2 * more} training runs)" in values["sentence"]
    # With so many seeds in all, of this mean and deviation, 4 of 5 experiments decide.
    drawn = np.random.default_rng(4).normal(effect, 0.1, size=(2000, 6 + more))
    decided = scipy.stats.ttest_1samp(drawn, 0, axis=1).pvalue < 0.05
    assert np.mean(decided) == pytest.approx(0.8, abs=0.05)


def test_no_number_of_seeds_decides_between_equal_losses() -> None:
    table = {"none": losses(1.0), SHIPPED: losses(1.0)}
    finalists = Finalists(winner=SHIPPED, is_learned=False, zero_search=SHIPPED, none="none")
    values = judge(table, finalists, seed=0).to_plain()
    assert (values["pays"], values["more_seeds"]) == ("unclear", None)
    assert "nor would 10000 seeds be" in values["sentence"]


def test_a_verdict_that_decides_asks_for_no_more_seeds() -> None:
    table = {"none": losses(1.0, salt=1), SHIPPED: losses(0.8, salt=2)}
    finalists = Finalists(winner=SHIPPED, is_learned=False, zero_search=SHIPPED, none="none")
    values = judge(table, finalists, seed=0).to_plain()
    assert (values["more_seeds"], "not enough runs" in values["sentence"]) == (None, False)
