"""Candidates of a search: what needs no search, and what was learned."""

from collections.abc import Sequence

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
    return _distinct(candidates)


def learned_candidates(
    config: SearchConfig, proposals: Proposals, others: Sequence[Candidate]
) -> list[Candidate]:
    """Return the first distinct proposals, up to the configured number, that ``others`` lack."""
    learned = [
        Candidate(name=name, schedule=schedule, origin="learned", is_proposal=number == 0)
        for number, (name, schedule) in enumerate(proposals)
    ]
    # The others first: where a proposal equals one, the name of that stays.
    added = _distinct([*others, *learned])[len(others) :]
    return added[: config.selection.learned_candidates]


def _distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    first: dict[str, Candidate] = {}
    for candidate in candidates:
        # Starts aside: a learned schedule of equal segments may be a constant.
        first.setdefault(candidate.schedule.without_repeats().decision_hash(), candidate)
    return list(first.values())


def _distance_from_the_middle(decision: Decision) -> int:
    levels = OPERATOR_FACTS[decision.operator].strength.levels
    return abs(levels.index(decision.strength) - len(levels) // 2)
