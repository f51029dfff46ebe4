"""Mixtures: which decision a batch draws, and which decisions go together."""

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from automix.mixing import StepKey, draw_decision
from automix.mixture import MAX_MIXTURE, Decision, Mixture, equal_mixture
from automix.operator_info import OPERATOR_FACTS, Operator
from automix.random_streams import Stream, derived_seed

CUTMIX = Decision(operator=Operator.CUTMIX, probability=0.5)
MIXUP = Decision(operator=Operator.MIXUP, probability=0.3)
RMIX = Decision(operator=Operator.RMIX, probability=0.1)


@st.composite
def mixtures(draw: st.DrawFn) -> Mixture:
    """Draw a mixture of one to five decisions, with weights that may be zero or rounded."""
    count = draw(st.integers(1, 5))
    choices = st.sampled_from([name for name in Operator if name is not Operator.NONE])
    operators = draw(st.lists(choices, min_size=count, max_size=count, unique=True))
    parts = draw(st.lists(st.floats(0, 1), min_size=count, max_size=count))
    rest = draw(st.sampled_from([0.0, 1e-12, 0.5]))
    total = math.fsum(parts) + rest
    return Mixture(
        decisions=tuple(
            Decision(operator=name, probability=part / total if total else 0.0)
            for name, part in zip(operators, parts, strict=True)
        )
    )


@pytest.mark.parametrize("probability", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("operator", [Operator.NONE, Operator.RMIX])
def test_a_mixture_of_one_draws_as_version_1_did(operator: Operator, probability: float) -> None:
    decision = Decision(operator=operator, probability=probability)
    for step in range(50):
        for rank in (0, 1):
            draw = derived_seed(7, Stream.MIXING_CHOICE, rank=rank, step=step) / 2.0**63
            is_mixed = operator is not Operator.NONE and draw < probability
            drawn = draw_decision(Mixture.of(decision), StepKey(seed=7, step=step, rank=rank))
            assert drawn == (decision if is_mixed else None)


def test_applied_fractions_match_the_weights() -> None:
    mixture = Mixture(decisions=(CUTMIX, MIXUP, RMIX))
    drawn = [draw_decision(mixture, StepKey(seed=3, step=step)) for step in range(10_000)]
    for decision, weight in ((CUTMIX, 0.5), (MIXUP, 0.3), (RMIX, 0.1), (None, 0.1)):
        # Binomial(10,000, w): five standard deviations.
        bound = 5 * math.sqrt(10_000 * weight * (1 - weight))
        assert abs(drawn.count(decision) - 10_000 * weight) < bound


def test_all_ranks_draw_the_same_operator() -> None:
    mixture = Mixture(decisions=(CUTMIX, MIXUP))
    by_rank = [
        [draw_decision(mixture, StepKey(seed=0, step=step, rank=rank)) for step in range(40)]
        for rank in range(4)
    ]
    assert all(drawn == by_rank[0] for drawn in by_rank)
    assert set(by_rank[0]) == {CUTMIX, MIXUP, None}


@given(count=st.integers(2, MAX_MIXTURE))
def test_equal_weights_leave_no_batch_unmixed(count: int) -> None:
    levels = [0.01 + 0.01 * number for number in range(count)]
    mixture = equal_mixture([Decision(operator=Operator.CUTMIX, strength=it) for it in levels])
    last = mixture.draw(math.nextafter(1, 0))
    assert last is not None
    assert last.strength == levels[-1]
    assert mixture.probability == pytest.approx(1)


@settings(deadline=None)
@given(mixture=mixtures(), position=st.floats(0, 1, exclude_max=True))
def test_a_position_falls_to_the_weight_it_lies_in(mixture: Mixture, position: float) -> None:
    drawn, end = None, 0.0
    for decision in mixture.decisions:
        start, end = end, end + decision.probability
        if start + 1e-8 < position < end - 1e-8:
            drawn = decision
            assert mixture.draw(position) == drawn
    if position > end + 1e-8:
        assert mixture.draw(position) is None


def test_a_mixture_of_one_is_its_decision() -> None:
    assert Mixture.of(CUTMIX).decision == CUTMIX
    assert Mixture.of(Mixture.of(CUTMIX)) == Mixture.of(CUTMIX)
    several = Mixture(decisions=(CUTMIX, MIXUP))
    assert Mixture.of(several) is several
    with pytest.raises(ValueError, match=r"^expected a single decision, got the mixture cutmix"):
        _ = several.decision


def test_labels_and_facts() -> None:
    mixture = Mixture(decisions=(CUTMIX, RMIX.model_copy(update={"probability": 0.0}), MIXUP))
    assert mixture.label() == "cutmix 1 p=0.5 + mixup 1 p=0.3"
    assert mixture.probability == 0.8
    assert mixture.operators == (Operator.CUTMIX, Operator.RMIX, Operator.MIXUP)
    assert Mixture.of(Decision(operator=Operator.NONE)).label() == "none"
    assert Mixture.of(Decision(operator=Operator.NONE)).probability == 0
    for operator, facts in OPERATOR_FACTS.items():
        mixture = Mixture.of(Decision(operator=operator))
        assert mixture.keeps_batches == facts.needs_previous


def test_equal_choices_are_one_and_none_is_the_rest() -> None:
    cutmix, none = Decision(operator=Operator.CUTMIX), Decision(operator=Operator.NONE)
    inner = Mixture(decisions=(CUTMIX, MIXUP))
    assert equal_mixture([cutmix, cutmix]) == Mixture.of(cutmix)
    assert equal_mixture([none, none]) == Mixture.of(none)
    assert equal_mixture([cutmix, none, inner, inner]).label() == "cutmix 1 p=0.5 + mixup 1 p=0.15"


@pytest.mark.parametrize(
    ("decisions", "message"),
    [
        ((), "at least 1 item"),
        ((CUTMIX, Decision(operator=Operator.MIXUP, probability=0.51)), "at most 1 together"),
        ((CUTMIX, CUTMIX), "each operator and strength once, got cutmix 1 twice"),
        ((CUTMIX, Decision(operator=Operator.NONE, probability=0.1)), "that mix, got none"),
    ],
)
def test_decisions_that_do_not_go_together(decisions: tuple[Decision, ...], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        Mixture(decisions=decisions)
