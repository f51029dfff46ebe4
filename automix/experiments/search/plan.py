"""Plan of a search: how many training runs each of its stages gets of the budget."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agents.ppo import plan_learning
from automix.experiments.config import SearchConfig
from automix.experiments.search.halving import Round, doubling_rounds

# With fewer training runs a policy learns nothing that a race does not find: an additive fit needs
# 64 episodes, and halving among its proposals and a final as many again.
FEWEST_TO_LEARN = 200
# Fractions of the runs: the race, learning, selection among what was learned, the final.
_RACE_ALONE = (0.6, 0.0, 0.0, 0.4)
_WITH_LEARNING = (0.25, 0.4, 0.2, 0.15)
# The searcher `race` with as many: its final is that of the others.
_LONG_RACE = (0.85, 0.0, 0.0, 0.15)
# Halving ends here: more rounds would compare the last few again, which the final does better.
_LAST_OF_RACE = 3
# The winner, the best schedule that ships, the best constant, no mixing.
FINALISTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlan:
    """Stages of a search.

    Attributes:
        race: rounds of the schedules that need no search.
        episodes: training runs that the searcher learns from; 0: the race is all there is.
        selection: rounds of what was learned and of the best of the race; none without learning.
        final: training runs of the final, divided among the finalists.
    """

    race: tuple[Round, ...]
    episodes: int
    selection: tuple[Round, ...]
    final: int

    @property
    def runs(self) -> dict[str, int]:
        """Largest number of training runs of each stage, but for greedy episodes."""
        return {
            "race": sum(one.num_runs for one in self.race),
            "learning": self.episodes,
            "selection": sum(one.num_runs for one in self.selection),
            "final": self.final,
        }

    def to_plain(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return {
            "race": _plain(self.race),
            "episodes": self.episodes,
            "selection": _plain(self.selection),
            "final": self.final,
        }


def plan_search(config: SearchConfig, *, num_candidates: int, runs: int | None) -> SearchPlan:
    """Return the stages of a search among ``num_candidates`` schedules that need no search.

    Args:
        config: of the search.
        num_candidates: schedules of the race, at least 1.
        runs: training runs of all stages together, at least `FEWEST`; None: what ``config`` says
            of each stage.

    Raises:
        ConfigError: the numbers do not divide.
    """
    if runs is None:
        return _configured(config, num_candidates)
    is_long = runs >= FEWEST_TO_LEARN
    learns = is_long and config.searcher != "race"
    race, learning, selection, final = (
        int(runs * part)
        for part in (_WITH_LEARNING if learns else _LONG_RACE if is_long else _RACE_ALONE)
    )
    final = max(final, 2 * FINALISTS)
    if not learns:
        return SearchPlan(
            race=race_rounds(runs - final, num_candidates=num_candidates, last=_LAST_OF_RACE),
            episodes=0,
            selection=(),
            final=final,
        )
    per_rollout = config.agent.episodes_per_rollout
    episodes = max(1, learning // per_rollout) * per_rollout
    learned = config.selection.learned_candidates
    kept = max(_LAST_OF_RACE, min(num_candidates, learned) // 2)
    return SearchPlan(
        race=race_rounds(race, num_candidates=num_candidates, last=kept),
        episodes=_whole_rollouts(config, episodes),
        selection=race_rounds(selection, num_candidates=kept + learned, last=_LAST_OF_RACE),
        final=final,
    )


def _configured(config: SearchConfig, num_candidates: int) -> SearchPlan:
    selection = config.selection
    if config.searcher == "race":
        rounds = doubling_rounds(
            num_candidates, first_seeds=selection.first_seeds, num_rounds=selection.rounds
        )
        final = FINALISTS * selection.final_seeds
        return SearchPlan(race=tuple(rounds), episodes=0, selection=(), final=final)
    kept = max(min(_LAST_OF_RACE, num_candidates), -(-num_candidates // 2))
    return SearchPlan(
        race=(Round(num_candidates=num_candidates, seeds=range(selection.first_seeds)),),
        episodes=_whole_rollouts(config, config.agent.episodes),
        selection=tuple(
            doubling_rounds(
                kept + selection.learned_candidates,
                first_seeds=selection.first_seeds,
                num_rounds=selection.rounds,
            )
        ),
        final=FINALISTS * selection.final_seeds,
    )


def _whole_rollouts(config: SearchConfig, episodes: int) -> int:
    agent = config.agent.model_copy(update={"episodes": episodes})
    return plan_learning(agent, num_segments=config.environment.num_segments).total_episodes


def race_rounds(budget: int, *, num_candidates: int, last: int) -> tuple[Round, ...]:
    """Return rounds of halving, down to ``last`` candidates, within ``budget`` training runs.

    Every round gets an equal part of the runs, as in sequential halving (Karnin et al. 2013), but
    at least one for each candidate. With fewer runs than candidates the last of these have none.

    Examples:
        >>> [(one.num_candidates, len(one.seeds)) for one in race_rounds(
        ...     48, num_candidates=16, last=4)]
        [(16, 1), (8, 2), (4, 4)]
    """
    count = min(num_candidates, max(1, budget // 2))
    last = min(last, count)
    left = max(0, math.ceil(math.log2(count / last)))
    rounds: list[Round] = []
    first = 0
    while True:
        number = max(1, budget // (left + 1) // count)
        if rounds and number * count > budget:
            break
        rounds.append(Round(num_candidates=count, seeds=range(first, first + number)))
        budget, first = budget - number * count, first + number
        if left == 0:
            break
        count, left = max(last, -(-count // 2)), left - 1
    return tuple(rounds)


def _plain(rounds: Sequence[Round]) -> list[dict[str, int]]:
    return [{"num_candidates": one.num_candidates, "num_seeds": len(one.seeds)} for one in rounds]


def with_episodes(config: SearchConfig, plan: SearchPlan) -> SearchConfig:
    """Return ``config`` whose searcher learns from the episodes of the plan."""
    agent = config.agent.model_copy(update={"episodes": max(1, plan.episodes)})
    return config.model_copy(update={"agent": agent})
