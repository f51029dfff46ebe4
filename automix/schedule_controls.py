"""Schedules made of another one, to ask what of it matters: its order, or how much it mixes."""

import itertools
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from automix.mixture import Mixture
from automix.schedule import Schedule, Segment, exact_fraction

# What a schedule that mixes to the end has as its end.
_LAST_EIGHTH = Fraction(7, 8)
_Stretch = tuple[Fraction, Mixture]


def shuffled_in_time(schedule: Schedule, *, seed: int) -> Schedule:
    """Return the same mixing for the same fractions of the training run, in random order."""
    return _in_order(_shuffled(_stretches(schedule), seed=seed))


def shuffled_before_end(schedule: Schedule, *, seed: int) -> Schedule:
    """Return the same mixing in random order, but for the end of the training run, which is kept.

    The end is the last stretch without mixing, or the last eighth of a schedule that mixes until
    the end. Against it, `shuffled_in_time` also moves the end into the middle.

    Examples:
        >>> from automix.schedule import Decision, in_turn
        >>> turns = [Decision(operator=name) for name in ("cutmix", "mixup", "fmix")]
        >>> schedule = shuffled_before_end(in_turn(turns, num_segments=3, off_from=0.75), seed=2)
        >>> [segment.decision.operator.value for segment in schedule.segments]
        ['fmix', 'cutmix', 'mixup', 'none']
    """
    stretches = _stretches(schedule)
    lengths = [length for length, mixture in itertools.takewhile(_is_off, reversed(stretches))]
    end = 1 - sum(lengths, Fraction(0)) if lengths else _LAST_EIGHTH
    before, after = _divided(stretches, end)
    return _in_order([*_shuffled(before, seed=seed), *after])


def marginal_matched(schedule: Schedule, *, seed: int) -> Schedule:
    """Return segments as long as those of ``schedule``, each with a mixture drawn for itself.

    A mixture is drawn with the fraction of the training run for which ``schedule`` holds it. Its
    expected fraction is then the same, while segments are independent: neither the order in time
    nor which mixtures go together is left.
    """
    # Weighed by the time they hold: the marginal distribution over operators stays.
    lengths = np.array([float(length) for length, _ in _stretches(schedule)])
    drawn = np.random.default_rng(seed).choice(
        len(lengths), size=len(lengths), p=lengths / lengths.sum()
    )
    return Schedule(
        segments=tuple(
            Segment(start=segment.start, mixture=schedule.segments[index].mixture)
            for segment, index in zip(schedule.segments, drawn, strict=True)
        )
    )


def _stretches(schedule: Schedule) -> list[_Stretch]:
    """Return the fraction of the training run that each segment takes, and its mixture."""
    starts = [exact_fraction(segment.start) for segment in schedule.segments]
    ends = [*starts[1:], Fraction(1)]
    return [
        (end - start, segment.mixture)
        for start, end, segment in zip(starts, ends, schedule.segments, strict=True)
    ]


def _is_off(stretch: _Stretch) -> bool:
    return stretch[1].probability == 0


def _divided(
    stretches: Sequence[_Stretch], position: Fraction
) -> tuple[list[_Stretch], list[_Stretch]]:
    """Return what lies before ``position`` of the training run, and from there on."""
    before: list[_Stretch] = []
    after: list[_Stretch] = []
    start = Fraction(0)
    for length, mixture in stretches:
        first = min(length, max(position - start, Fraction(0)))
        before += [(first, mixture)] if first else []
        after += [(length - first, mixture)] if first < length else []
        start += length
    return before, after


def _shuffled(stretches: Sequence[_Stretch], *, seed: int) -> list[_Stretch]:
    order = np.random.default_rng(seed).permutation(len(stretches))
    return [stretches[index] for index in order]


def _in_order(stretches: Sequence[_Stretch]) -> Schedule:
    # Added up as fractions, starts of k/n remain multiples of 1/n in whichever order. A segment so
    # short that no float lies between its new start and its end is left out.
    ends = list(itertools.accumulate(length for length, _ in stretches))
    spans = itertools.pairwise(map(float, [Fraction(0), *ends]))
    return Schedule(
        segments=tuple(
            Segment(start=start, mixture=mixture)
            for (_, mixture), (start, end) in zip(stretches, spans, strict=True)
            if start < end
        )
    )
