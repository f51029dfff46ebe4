"""Schedules that train alike are one: their hash, and the name of a row that stands for several."""

from collections.abc import Mapping
from typing import Any

from automix.mixture import Decision, Mixture
from automix.operator_info import Operator
from automix.schedule import Schedule

_NONE = Mixture.of(Decision(operator=Operator.NONE))


def training_hash(schedule: Schedule) -> str:
    """Return a hash that schedules share if they mix every batch with the same probabilities.

    Unlike `Schedule.decision_hash`, starts at which nothing changes do not count, nor do decisions
    that mix nothing.

    Examples:
        >>> from automix.schedule import constant_schedule
        >>> never = Decision(operator="cutmix", probability=0.0)
        >>> none = Decision(operator="none")
        >>> training_hash(constant_schedule(never)) == training_hash(constant_schedule(none))
        True
    """
    # Of several decisions in a mixture each mixes; a single one may be switched off.
    segments = tuple(
        segment if segment.mixture.mixes else segment.model_copy(update={"mixture": _NONE})
        for segment in schedule.segments
    )
    mixing = schedule.model_copy(update={"segments": segments})
    return mixing.without_repeats().decision_hash()


def row_label(row: Mapping[str, Any]) -> str:
    """Return the name of a row of a result, with the other names of its schedule.

    Examples:
        >>> row_label({"name": "greedy", "also": ["cutmix 1"]})
        'greedy = cutmix 1'
    """
    return " = ".join(names_of(row))


def names_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return all names of the schedule of a row; results of earlier versions have one."""
    return (row["name"], *row.get("also", ()))
