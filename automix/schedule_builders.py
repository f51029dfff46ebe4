"""Schedules made by hand: constant, random, linear ramp, mix then off, shuffled in time, drawn."""

import itertools
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from automix.schedule import MAX_SEGMENTS, Decision, Schedule, Segment
from automix.vocabulary import OPERATOR_FACTS, Operator


def even_schedule(decisions: Sequence[Decision]) -> Schedule:
    """Return a schedule in which each decision holds for an equal share of the training."""
    count = len(decisions)
    return Schedule(
        segments=tuple(
            Segment(start=index / count, decision=decision)
            for index, decision in enumerate(decisions)
        )
    )


def constant_schedule(decision: Decision) -> Schedule:
    """Return a schedule that never changes."""
    return even_schedule([decision])


def random_schedule(choices: Sequence[Decision], *, num_segments: int, seed: int) -> Schedule:
    """Return a schedule of decisions drawn uniformly from ``choices``."""
    indices = np.random.default_rng(seed).integers(len(choices), size=num_segments)
    return even_schedule([choices[index] for index in indices])


def majority_schedule(rows: Sequence[Sequence[Decision]]) -> Schedule:
    """Return what most of ``rows`` do in each segment; of equally many, what an earlier row does.

    Args:
        rows: decisions of equal segments, as many in each row.
    """
    return even_schedule([max(column, key=column.count) for column in zip(*rows, strict=True)])


def linear_ramp(operator: Operator, *, num_segments: int, rising: bool = False) -> Schedule:
    """Return one operator whose share of batches goes linearly from 1 to 0, or from 0 to 1."""
    shares = np.linspace(1.0, 0.0, num_segments) if num_segments > 1 else np.ones(1)
    ordered = shares[::-1] if rising else shares
    return even_schedule(
        [Decision(operator=operator, probability=float(share)) for share in ordered]
    )


def mix_then_off(decision: Decision, *, off_from: float = 0.75) -> Schedule:
    """Return a schedule that mixes until ``off_from``, a share of the training in (0, 1)."""
    off = Decision(operator=Operator.NONE)
    return Schedule(
        segments=(
            Segment(start=0.0, decision=decision),
            Segment(start=off_from, decision=off),
        )
    )


def shuffled_in_time(schedule: Schedule, *, seed: int) -> Schedule:
    """Return the same decisions for the same shares of the training, in random order.

    Starts stay exact: those of k/n remain multiples of 1/n in whichever order they are added up.
    A segment so short that no float lies between its new start and its end is left out.
    """
    lengths = _lengths(schedule)
    order = np.random.default_rng(seed).permutation(len(lengths))
    ends = list(itertools.accumulate(lengths[index] for index in order))
    spans = itertools.pairwise(map(float, [Fraction(0), *ends]))
    return Schedule(
        segments=tuple(
            Segment(start=start, decision=schedule.segments[index].decision)
            for index, (start, end) in zip(order, spans, strict=True)
            if start < end
        )
    )


def marginal_matched(schedule: Schedule, *, seed: int) -> Schedule:
    """Return segments as long as those of ``schedule``, each with a decision of its own draw.

    A decision is drawn with the share of the training for which ``schedule`` holds it. Its
    expected share is then the same, while segments are independent: neither the order in time nor
    which decisions go together is left.
    """
    lengths = np.array([float(length) for length in _lengths(schedule)])
    drawn = np.random.default_rng(seed).choice(
        len(lengths), size=len(lengths), p=lengths / lengths.sum()
    )
    return Schedule(
        segments=tuple(
            Segment(start=segment.start, decision=schedule.segments[index].decision)
            for segment, index in zip(schedule.segments, drawn, strict=True)
        )
    )


def _lengths(schedule: Schedule) -> list[Fraction]:
    """Return the share of the training that each segment takes."""
    starts = [_exact(segment.start) for segment in schedule.segments]
    return [end - start for start, end in itertools.pairwise([*starts, Fraction(1)])]


def _exact(share: float) -> Fraction:
    """Return the simple fraction that ``share`` was rounded from, or its own exact value."""
    simple = Fraction(share).limit_denominator(MAX_SEGMENTS)
    return simple if float(simple) == share else Fraction(share)


def constant_decisions(operators: Sequence[Operator]) -> tuple[Decision, ...]:
    """Return every operator at each of its strengths, mixing every batch."""
    return tuple(
        Decision(operator=operator, strength=strength)
        for operator in operators
        for strength in OPERATOR_FACTS[operator].strength.levels
    )
