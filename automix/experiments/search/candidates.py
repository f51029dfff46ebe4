"""Candidates of a search: what needs no search, and what was learned."""

import dataclasses
from collections.abc import Sequence

from automix.experiments.common.equal_schedules import training_hash
from automix.experiments.config import SearchConfig
from automix.experiments.search.halving import Candidate
from automix.experiments.search.learning import Proposals
from automix.operator_info import OPERATOR_FACTS, Operator
from automix.schedule import Decision, Schedule, constant_decisions, constant_schedule

NONE = "none"


def zero_search_candidates(config: SearchConfig) -> list[Candidate]:
    """Return no mixing, the schedules that ship, and the constants, from likely to unlikely."""
    none = constant_schedule(Decision(operator=Operator.NONE))
    candidates = [Candidate(name=NONE, schedule=none, origin="none")]
    candidates += [
        Candidate(name=name, schedule=schedule, origin="zero-search")
        for name, schedule in (Schedule.portfolio() if config.portfolio else {}).items()
    ]
    # With few training runs the last candidates are left out: extreme strengths, not operators.
    decisions = constant_decisions(config.environment.operators)
    candidates += [
        Candidate(name=one.label(), schedule=constant_schedule(one), origin="constant")
        for one in sorted(decisions, key=_distance_from_the_middle)
        if one.operator is not Operator.NONE
    ]
    return distinct(candidates)


def learned_candidates(
    config: SearchConfig, proposals: Proposals, others: Sequence[Candidate]
) -> list[Candidate]:
    """Return ``others``, and the first distinct proposals that they lack, as many as configured.

    Of the others, those that were proposed as well have the names of the proposals, too.
    """
    learned = [
        Candidate(name=name, schedule=schedule, origin="learned", is_proposal=number == 0)
        for number, (name, schedule) in enumerate(proposals)
    ]
    # The others first: where a proposal equals one, the name of that comes first.
    candidates = distinct([*others, *learned])
    return candidates[: len(others) + config.selection.learned_candidates]


def distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return one candidate per schedule, the first; names of the others are in its ``also``."""
    same: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        # A learned schedule of equal segments may be a constant.
        same.setdefault(training_hash(candidate.schedule), []).append(candidate)
    return [
        dataclasses.replace(
            first, also=(*first.also, *(one.name for one in others if one.name != first.name))
        )
        for first, *others in same.values()
    ]


def _distance_from_the_middle(decision: Decision) -> int:
    levels = OPERATOR_FACTS[decision.operator].strength.levels
    return abs(levels.index(decision.strength) - len(levels) // 2)
