"""Schedules of mixtures: their file, and what builders make of them."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automix.mixture import Decision, Mixture
from automix.operator_info import OPERATOR_FACTS, Operator
from automix.schedule import (
    Schedule,
    Segment,
    constant_schedule,
    decisions_hash,
    even_schedule,
    exact_fraction,
    in_turn,
    mix_then_off,
    mixture_then_off,
    strong_to_weak,
)
from automix.schedule_controls import marginal_matched, shuffled_before_end, shuffled_in_time
from tests.test_mixture import CUTMIX, MIXUP, mixtures

GOLDEN = Path(__file__).parent / "golden"
BOTH = Mixture(decisions=(CUTMIX, MIXUP))
NONE = Decision(operator=Operator.NONE)
FRACTIONS = st.sampled_from([0.25, 0.5, 0.75, 0.875, 1 / 3, 0.9])


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    """Draw a schedule of mixtures that starts segments at multiples of a twentieth."""
    starts = draw(st.sets(st.integers(1, 19), max_size=6))
    choices = mixtures() | st.just(Mixture.of(NONE))
    return Schedule(
        segments=tuple(
            Segment(start=start / 20, mixture=draw(choices)) for start in (0, *sorted(starts))
        )
    )


def lengths(schedule: Schedule) -> Counter[Mixture]:
    """Return the twentieths of the training run that each mixture holds for."""
    return Counter(schedule.mixtures(20))


@settings(deadline=None)
@given(schedule=schedules())
def test_a_schedule_of_mixtures_survives_its_file(schedule: Schedule) -> None:
    text = schedule.to_json()
    again = Schedule.from_json(text, source="here")
    assert again == schedule
    assert again.to_json() == text
    assert again.decision_hash() == schedule.decision_hash()
    is_single = all(len(it.mixture.decisions) == 1 for it in schedule.segments)
    assert json.loads(text)["version"] == schedule.version == (1 if is_single else 2)


def test_the_file_of_version_2_stays_readable() -> None:
    """Never change this file: users have such files."""
    path = GOLDEN / "schedule-v2.json"
    schedule = Schedule.load(path)
    cutmix = Decision(operator=Operator.CUTMIX, strength=2, probability=0.5)
    grafting = Decision(operator=Operator.SALIENCY_GRAFTING, strength=0.2, probability=0.25)
    assert schedule == Schedule(
        segments=(
            Segment(start=0, mixture=Mixture(decisions=(cutmix, grafting))),
            Segment(start=1 / 3, decision=Decision(operator=Operator.MIXUP, strength=0.2)),
            Segment(start=0.875, decision=NONE),
        ),
        provenance={"origin": "written by hand", "seed": "0"},
    )
    assert schedule.to_json() == path.read_text()
    assert schedule.decision_hash() == "a6529f33bc2a55c1"


def test_a_file_of_version_2_with_single_decisions_is_that_of_version_1() -> None:
    first = Schedule.load(GOLDEN / "schedule-v1.json")
    values = first.to_plain()
    for segment in values["segments"]:
        segment["mixture"] = [segment.pop("decision")]
    second = Schedule.from_json(json.dumps(values | {"version": 2}), source="here")
    assert second == first
    assert second.decision_hash() == first.decision_hash()
    assert second.to_json() == first.to_json()


def test_hashes_differ_where_mixtures_do() -> None:
    reversed_order = Mixture(decisions=(MIXUP, CUTMIX))
    hashes = [constant_schedule(it).decision_hash() for it in (BOTH, reversed_order, CUTMIX)]
    assert len(set(hashes)) == 3
    assert decisions_hash([BOTH, CUTMIX]) != decisions_hash([CUTMIX, BOTH])
    assert decisions_hash([CUTMIX]) == decisions_hash([Mixture.of(CUTMIX)])


def test_a_mixture_has_no_decision() -> None:
    schedule = even_schedule([CUTMIX, BOTH])
    assert schedule.at(0) == CUTMIX
    assert schedule.mixtures(2) == [Mixture.of(CUTMIX), BOTH]
    assert schedule.operators == (Operator.CUTMIX, Operator.MIXUP)
    for ask in (lambda: schedule.at(0.5), lambda: schedule.decisions(2)):
        with pytest.raises(ValueError, match=r"got the mixture cutmix 1 p=0.5 \+ mixup 1 p=0.3"):
            ask()


@settings(deadline=None)
@given(schedule=schedules(), seed=st.integers(0, 2**63 - 1))
def test_shuffles_keep_lengths(schedule: Schedule, seed: int) -> None:
    assert lengths(shuffled_in_time(schedule, seed=seed)) == lengths(schedule)
    before_end = shuffled_before_end(schedule, seed=seed)
    assert before_end == shuffled_before_end(schedule, seed=seed)
    # A segment may be cut at 7/8, which is not a multiple of a twentieth.
    assert Counter(before_end.mixtures(40)) == Counter(schedule.mixtures(40))
    drawn = marginal_matched(schedule, seed=seed)
    assert set(drawn.mixtures(20)) <= set(schedule.mixtures(20))


@settings(deadline=None)
@given(schedule=schedules(), seed=st.integers(0, 2**63 - 1))
def test_a_shuffle_before_the_end_keeps_the_end(schedule: Schedule, seed: int) -> None:
    steps = schedule.mixtures(40)
    end = 40
    while end > 0 and steps[end - 1].probability == 0:
        end -= 1
    end = end if end < 40 else 35
    assert shuffled_before_end(schedule, seed=seed).mixtures(40)[end:] == steps[end:]


def test_what_comes_before_the_end_is_shuffled() -> None:
    choices = [Decision(operator=Operator.CUTMIX, probability=number / 7) for number in range(1, 8)]
    for schedule in (in_turn(choices, num_segments=7), even_schedule([*choices, choices[0]])):
        orders = {
            tuple(it.label() for it in shuffled_before_end(schedule, seed=seed).mixtures(8)[:7])
            for seed in range(20)
        }
        assert len(orders) > 15


@settings(deadline=None)
@given(
    choices=st.lists(mixtures(), min_size=1, max_size=4), count=st.integers(1, 12), off=FRACTIONS
)
def test_in_turn_gives_each_its_turn(choices: Sequence[Mixture], count: int, off: float) -> None:
    schedule = in_turn(choices, num_segments=count, off_from=off)
    said = [segment.mixture for segment in schedule.segments]
    assert said == [*(choices[index % len(choices)] for index in range(count)), Mixture.of(NONE)]
    length = exact_fraction(off) / count
    assert [segment.start for segment in schedule.segments[:-1]] == [
        float(index * length) for index in range(count)
    ]
    assert schedule.segments[-1].start == off


def test_seven_segments_before_seven_eighths_are_eighths() -> None:
    schedule = in_turn([CUTMIX, MIXUP], num_segments=7, off_from=0.875)
    assert [segment.start for segment in schedule.segments] == [index / 8 for index in range(8)]


@settings(deadline=None)
@given(choices=st.lists(mixtures(), min_size=1, max_size=4), off=FRACTIONS)
def test_a_mixture_then_off_has_equal_parts(choices: Sequence[Mixture], off: float) -> None:
    schedule = mixture_then_off(choices, off_from=off)
    assert [segment.start for segment in schedule.segments] == [0, off]
    mixture, last = (segment.mixture for segment in schedule.segments)
    assert last == Mixture.of(NONE)
    for operator in mixture.operators:
        weights = [
            Fraction(decision.probability)
            for choice in choices
            for decision in choice.decisions
            if decision.operator is operator
        ]
        got = sum(it.probability for it in mixture.decisions if it.operator is operator)
        assert got == pytest.approx(float(sum(weights) / len(choices)))
    assert mix_then_off(mixture, off_from=off) == schedule


@pytest.mark.parametrize("operator", [name for name in Operator if name is not Operator.NONE])
def test_strength_falls_from_the_strongest_level(operator: Operator) -> None:
    schedule = strong_to_weak(operator, off_from=0.75)
    strengths = [segment.decision.strength for segment in schedule.segments[:-1]]
    assert strengths == sorted(OPERATOR_FACTS[operator].strength.levels, reverse=True)
    assert schedule.segments[-1] == Segment(start=0.75, decision=NONE)


@pytest.mark.parametrize("off", [0.0, 1.0, -0.5])
def test_the_end_is_inside_the_training(off: float) -> None:
    builders: tuple[Callable[[], Schedule], ...] = (
        lambda: in_turn([CUTMIX], num_segments=2, off_from=off),
        lambda: mixture_then_off([CUTMIX], off_from=off),
        lambda: strong_to_weak(Operator.CUTMIX, off_from=off),
    )
    for build in builders:
        with pytest.raises(ValueError, match=r"increase|greater than|less than"):
            build()
