"""Segments of the environment and starts of a schedule file mean the same steps."""

import itertools
from fractions import Fraction

from hypothesis import example, given
from hypothesis import strategies as st

from automix.operator_info import Operator
from automix.schedule import Decision, even_schedule
from automix.training.trainer import segment_steps

STEPS = st.integers(1, 3000)
SEGMENTS = st.integers(1, 200)


def even_starts(count: int) -> list[float]:
    return [index / count for index in range(count)]


@given(STEPS, SEGMENTS)
@example(1, 1000)
@example(3000, 7)
def test_segments_cut_a_training_without_gap_or_overlap(
    total_steps: int, num_segments: int
) -> None:
    bounds = [
        segment_steps(total_steps, even_starts(num_segments), index)
        for index in range(num_segments)
    ]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == total_steps
    assert all(before[1] == after[0] for before, after in itertools.pairwise(bounds))
    lengths = [stop - start for start, stop in bounds]
    assert max(lengths) - min(lengths) <= 1


@given(STEPS, SEGMENTS)
def test_a_step_belongs_to_the_segment_its_progress_lies_in(
    total_steps: int, num_segments: int
) -> None:
    for index in range(num_segments):
        for step in range(*segment_steps(total_steps, even_starts(num_segments), index)):
            progress = Fraction(step, total_steps)
            assert Fraction(index, num_segments) <= progress < Fraction(index + 1, num_segments)


@given(st.integers(1, 400), st.integers(1, 60))
@example(49, 49)
@example(10, 3)
def test_a_schedule_of_even_segments_says_the_same_at_every_step(
    total_steps: int, num_segments: int
) -> None:
    # Decisions that differ for every segment, so that an off-by-one cannot hide.
    decisions = [
        Decision(operator=Operator.MIXUP, probability=index / num_segments)
        for index in range(num_segments)
    ]
    said = even_schedule(decisions).decisions(total_steps)
    for index, decision in enumerate(decisions):
        for step in range(*segment_steps(total_steps, even_starts(num_segments), index)):
            assert said[step] == decision


def test_segments_may_be_finer_at_the_end() -> None:
    starts = [0.0, 0.5, 0.75, 0.875, 0.9375]
    bounds = [segment_steps(240, starts, index) for index in range(5)]
    assert bounds == [(0, 120), (120, 180), (180, 210), (210, 225), (225, 240)]
    decisions = [Decision(operator=Operator.MIXUP, probability=index / 5) for index in range(5)]
    said = even_schedule(decisions).at_starts(starts).decisions(100)
    for index, decision in enumerate(decisions):
        for step in range(*segment_steps(100, starts, index)):
            assert said[step] == decision
