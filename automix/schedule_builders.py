"""Schedules made by hand: constant, random, linear ramp, mix then off, shuffled in time."""

from collections.abc import Sequence

import numpy as np

from automix.schedule import Decision, Schedule, Segment
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
    """Return the same decisions for the same shares of the training, in random order."""
    starts = [segment.start for segment in schedule.segments]
    lengths = np.diff([*starts, 1.0])
    order = np.random.default_rng(seed).permutation(len(starts))
    shuffled, start = [], 0.0
    for index in order:
        shuffled.append(Segment(start=start, decision=schedule.segments[index].decision))
        start += float(lengths[index])
    return Schedule(segments=tuple(shuffled))


def constant_decisions(operators: Sequence[Operator]) -> tuple[Decision, ...]:
    """Return every operator at each of its strengths, mixing every batch."""
    return tuple(
        Decision(operator=operator, strength=strength)
        for operator in operators
        for strength in OPERATOR_FACTS[operator].strength.levels
    )
