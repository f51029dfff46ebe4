"""Schedules made by hand, and their properties."""

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from automix.operator_info import OPERATOR_FACTS, Operator
from automix.schedule import (
    Decision,
    Schedule,
    Segment,
    constant_decisions,
    constant_schedule,
    even_schedule,
    linear_ramp,
    majority_schedule,
    mix_then_off,
    random_schedule,
)
from automix.schedule_controls import marginal_matched, shuffled_in_time
from tests.test_schedule import schedules

MIXUP = Decision(operator=Operator.MIXUP)
NONE = Decision(operator=Operator.NONE)


def numbered(count: int) -> list[Decision]:
    """Return decisions that all differ."""
    return [Decision(operator=Operator.MIXUP, probability=index / count) for index in range(count)]


def starts(schedule: Schedule) -> list[float]:
    return [segment.start for segment in schedule.segments]


def shares(schedule: Schedule) -> dict[Decision, Fraction]:
    """Return the exact fraction of the training of each decision."""
    total: Counter[Decision] = Counter()
    ends = [*starts(schedule)[1:], 1.0]
    for segment, end in zip(schedule.segments, ends, strict=True):
        total[segment.decision] += Fraction(end) - Fraction(segment.start)  # type: ignore[assignment]
    return dict(total)  # type: ignore[arg-type]


def test_a_constant_schedule_never_changes() -> None:
    schedule = constant_schedule(MIXUP)
    assert schedule.segments == (Segment(start=0, decision=MIXUP),)


@settings(deadline=None)
@given(count=st.integers(1, 400))
def test_even_segments_start_at_multiples_of_one_over_n(count: int) -> None:
    assert starts(even_schedule([MIXUP] * count)) == [index / count for index in range(count)]


@settings(deadline=None)
@given(count=st.integers(1, 40), seed=st.integers(0, 2**63 - 1))
def test_shuffling_equal_segments_keeps_the_grid_to_the_last_bit(count: int, seed: int) -> None:
    schedule = even_schedule(numbered(count))
    shuffled = shuffled_in_time(schedule, seed=seed)
    assert starts(shuffled) == starts(schedule)
    assert sorted(s.decision.probability for s in shuffled.segments) == [
        s.decision.probability for s in schedule.segments
    ]
    assert shuffled_in_time(schedule, seed=seed) == shuffled


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=12), seed=st.integers(0, 2**63 - 1)
)
def test_shuffling_keeps_every_decision_for_as_many_steps(
    lengths: Sequence[int], seed: int
) -> None:
    total = sum(lengths)
    choices = numbered(len(lengths))
    begins = np.cumsum([0, *lengths[:-1]])
    schedule = Schedule(
        segments=tuple(
            Segment(start=int(begin) / total, decision=decision)
            for begin, decision in zip(begins, choices, strict=True)
        )
    )
    steps = Counter(shuffled_in_time(schedule, seed=seed).decisions(total))
    assert steps == dict(zip(choices, lengths, strict=True))


@settings(deadline=None)
@given(schedule=schedules(), seed=st.integers(0, 2**63 - 1))
def test_shuffling_any_schedule_keeps_shares(schedule: Schedule, seed: int) -> None:
    """Starts may be any floats, such as 5e-324; what is left is a schedule of the same shares."""
    shuffled = shuffled_in_time(schedule, seed=seed)
    before, after = shares(schedule), shares(shuffled)
    assert set(after) <= set(before)
    for decision, fraction in before.items():
        assert abs(after.get(decision, 0) - fraction) <= len(schedule.segments) * 2**-52


@settings(deadline=None)
@given(schedule=schedules(), seed=st.integers(0, 2**63 - 1))
def test_matching_marginals_keeps_the_boundaries(schedule: Schedule, seed: int) -> None:
    drawn = marginal_matched(schedule, seed=seed)
    assert starts(drawn) == starts(schedule)
    assert {s.decision for s in drawn.segments} <= {s.decision for s in schedule.segments}
    assert marginal_matched(schedule, seed=seed) == drawn


def test_matching_marginals_keeps_shares_and_drops_what_goes_together() -> None:
    # MIXUP for a quarter of the training in one of three segments, so each has it at 1/4.
    schedule = Schedule(
        segments=(
            Segment(start=0, decision=NONE),
            Segment(start=0.5, decision=MIXUP),
            Segment(start=0.75, decision=NONE),
        )
    )
    drawn = [marginal_matched(schedule, seed=seed) for seed in range(1600)]
    is_mixup = np.array([[s.decision == MIXUP for s in segment.segments] for segment in drawn])
    # Binomial(1600, 1/4): 400 +- 87 is five standard deviations; 1600/16 both: 100 +- 49.
    assert all(313 < count < 487 for count in is_mixup.sum(axis=0))
    for first, second in ((0, 1), (1, 2), (0, 2)):
        assert 51 < (is_mixup[:, first] & is_mixup[:, second]).sum() < 149


def test_shuffling_puts_every_decision_everywhere() -> None:
    schedule = even_schedule(numbered(4))
    firsts = Counter(
        shuffled_in_time(schedule, seed=seed).segments[0].decision for seed in range(400)
    )
    # Binomial(400, 1/4): 100 +- 43 is five standard deviations.
    assert all(57 < firsts[decision] < 143 for decision in numbered(4))


@settings(deadline=None)
@given(count=st.integers(1, 50), seed=st.integers(0, 2**63 - 1))
def test_a_random_schedule_is_drawn_from_the_choices(count: int, seed: int) -> None:
    choices = numbered(3)
    schedule = random_schedule(choices, num_segments=count, seed=seed)
    assert starts(schedule) == [index / count for index in range(count)]
    assert {segment.decision for segment in schedule.segments} <= set(choices)
    assert random_schedule(choices, num_segments=count, seed=seed) == schedule


def test_a_random_schedule_draws_uniformly() -> None:
    schedule = random_schedule(numbered(4), num_segments=4000, seed=0)
    counts = Counter(segment.decision for segment in schedule.segments)
    # Binomial(4000, 1/4): 1000 +- 137 is five standard deviations.
    assert all(863 < counts[decision] < 1137 for decision in numbered(4))


@pytest.mark.parametrize("rising", [False, True])
@pytest.mark.parametrize("count", [2, 3, 8, 1000])
def test_a_ramp_is_linear_from_end_to_end(count: int, rising: bool) -> None:
    schedule = linear_ramp(Operator.CUTMIX, num_segments=count, rising=rising)
    chances = [segment.decision.probability for segment in schedule.segments]
    assert (chances[0], chances[-1]) == ((0, 1) if rising else (1, 0))
    steps = np.diff(chances)
    np.testing.assert_allclose(steps, (1 if rising else -1) / (count - 1), rtol=1e-9)
    assert {segment.decision.operator for segment in schedule.segments} == {Operator.CUTMIX}
    falling = linear_ramp(Operator.CUTMIX, num_segments=count, rising=not rising)
    assert chances == [segment.decision.probability for segment in reversed(falling.segments)]


def test_a_ramp_of_one_segment_mixes_every_batch() -> None:
    assert linear_ramp(Operator.CUTMIX, num_segments=1) == constant_schedule(
        Decision(operator=Operator.CUTMIX)
    )


def test_mix_then_off() -> None:
    schedule = mix_then_off(MIXUP)
    assert [(s.start, s.decision) for s in schedule.segments] == [(0, MIXUP), (0.75, NONE)]
    assert mix_then_off(MIXUP, off_from=0.5).segments[1].start == 0.5
    for fraction in (0, 1, -0.1, 1.5):
        with pytest.raises(ValueError, match=r"increase|greater than|less than"):
            mix_then_off(MIXUP, off_from=fraction)


def test_the_constants_are_every_operator_at_every_level() -> None:
    result = constant_decisions(tuple(Operator))
    assert len(set(result)) == len(result)
    assert {(d.operator, d.strength) for d in result} == {
        (operator, level)
        for operator, facts in OPERATOR_FACTS.items()
        for level in facts.strength.levels
    }
    assert all(decision.probability == 1 for decision in result)


def test_global_generators_are_left_alone() -> None:
    def states() -> tuple[str, str]:
        return repr(np.random.get_state()), repr(torch.get_rng_state().tolist())  # noqa: NPY002

    before = states()
    random_schedule(numbered(3), num_segments=9, seed=1)
    shuffled_in_time(even_schedule(numbered(9)), seed=1)
    assert states() == before


def test_a_majority_does_in_each_segment_what_most_do() -> None:
    none, mixup, cutmix = (Decision(operator=name) for name in ("none", "mixup", "cutmix"))
    rows = [[none, mixup, mixup], [none, cutmix, cutmix], [cutmix, cutmix, none]]
    assert majority_schedule(rows).decisions(3) == [none, cutmix, mixup]
