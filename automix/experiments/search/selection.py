"""Selection of the schedule that is written: candidates retrained with fresh seeds."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from automix.evaluation.statistics import Interval, paired_difference
from automix.experiments.common.training_pool import TrainingJob, TrainingOutcome
from automix.experiments.config import SelectionConfig
from automix.random_streams import Stream, derived_seed
from automix.schedule import Schedule

RunJobs = Callable[[Sequence[TrainingJob]], Sequence[TrainingOutcome]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A schedule that may be selected."""

    name: str  # unique; its origin
    schedule: Schedule
    is_constant: bool  # whether it holds one operator throughout
    is_proposal: bool = False  # whether it is the one that the searcher itself ranks first


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Result of a candidate."""

    candidate: Candidate
    # Calibrated NLL on the selection split, one per seed, in nats; lower is better.
    losses: tuple[float, ...]
    rounds: int  # number of rounds it took part in
    # Paired difference of its losses to the winner's over the seeds they share, with interval; None
    # for the winner, for a single seed and where a training run diverged.
    to_winner: Interval | None

    @property
    def mean(self) -> float:
        """Mean loss over its seeds."""
        return float(np.mean(self.losses))


def planned_runs(config: SelectionConfig, *, num_candidates: int) -> int:
    """Return the number of training runs of a selection among ``num_candidates``."""
    return sum(count * len(seeds) for count, seeds in _rounds(config, num_candidates))


def select(
    candidates: Sequence[Candidate], config: SelectionConfig, *, seed: int, run: RunJobs
) -> list[Standing]:
    """Compare candidates by successive halving; return the standings, the winner first.

    Losses are those on the selection split, which neither training nor reward saw. Seeds are
    shared, so all candidates of a round are compared on the same seeds. Finalists come first,
    by their mean loss; those eliminated earlier follow. Two are never eliminated before the last
    round: the best constant operator, so that the winner is at least as good on the final's seeds
    as the best fixed operator of the rounds before, and the searcher's own proposal, which rests
    on all of its training runs where a first round has few.

    Args:
        candidates: distinct schedules.
        config: rounds and seeds.
        seed: of the training seeds and the bootstrap.
        run: trains the jobs and returns outcomes in their order.
    """
    losses: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
    rounds = dict.fromkeys(losses, 0)
    remaining: list[Candidate] = list(candidates)
    eliminated: list[Candidate] = []
    for count, seeds in _rounds(config, len(candidates)):
        # Ranked by all seeds so far; the last eliminated stand before those of earlier rounds.
        remaining, worse = _keep(_ranked(remaining, losses), count)
        eliminated = [*worse, *eliminated]
        # Candidate by candidate, but with the seeds of the round: comparisons are paired.
        jobs = [
            TrainingJob(
                schedule=candidate.schedule,
                seed=derived_seed(seed, Stream.SELECTION, step=index),
                splits=("selection",),
            )
            for candidate in remaining
            for index in seeds
        ]
        outcomes = iter(run(jobs))
        for candidate in remaining:
            losses[candidate.name] += [_loss(next(outcomes)) for _ in seeds]
            rounds[candidate.name] += 1
    order = [*_ranked(remaining, losses), *eliminated]
    return _standings(order, losses, rounds, seed=seed)


def _rounds(config: SelectionConfig, num_candidates: int) -> list[tuple[int, range]]:
    """Return for each round the number of candidates and the numbers of their seeds.

    Half of the candidates with twice the seeds: every round but the last costs about the same.
    """
    plan, count, first, number = [], num_candidates, 0, config.first_seeds
    for _ in range(config.rounds):
        plan.append((count, range(first, first + number)))
        first, number = first + number, number * 2
        # The best one, the best constant, the proposal.
        count = max(-(-count // 2), min(3, num_candidates))
    return plan


def _ranked(candidates: Sequence[Candidate], losses: Mapping[str, list[float]]) -> list[Candidate]:
    # Before the first round there is nothing to rank by.
    if not losses[candidates[0].name]:
        return list(candidates)
    return sorted(candidates, key=lambda candidate: float(np.mean(losses[candidate.name])))


def _keep(ranked: list[Candidate], count: int) -> tuple[list[Candidate], list[Candidate]]:
    """Return the best ``count``, the best constant and the proposal among them, and the others."""
    # The first of the ranked ones, so the best by all seeds so far.
    constant = next((candidate for candidate in ranked if candidate.is_constant), None)
    protected = [one for one in ranked if one is constant or one.is_proposal]
    others = [one for one in ranked if one not in protected]
    worse = others[max(0, count - len(protected)) :]
    return [one for one in ranked if one not in worse], worse


def _loss(outcome: TrainingOutcome) -> float:
    # A diverged run loses against every finite loss, and its mean stays comparable: infinity.
    loss = outcome.metrics["selection"].calibrated_nll
    return loss if math.isfinite(loss) and not outcome.diverged else math.inf


def _standings(
    order: Sequence[Candidate],
    losses: Mapping[str, list[float]],
    rounds: Mapping[str, int],
    *,
    seed: int,
) -> list[Standing]:
    winner = np.array(losses[order[0].name])
    standings = []
    for position, candidate in enumerate(order):
        values = np.array(losses[candidate.name])
        # Seeds come in the same order for all, so the first ones are shared with the winner.
        shared = winner[: len(values)]
        interval = None
        if position and len(values) > 1 and np.isfinite([values, shared]).all():
            interval = paired_difference(values, shared, seed=seed)
        standings.append(
            Standing(
                candidate=candidate,
                losses=tuple(float(value) for value in values),
                rounds=rounds[candidate.name],
                to_winner=interval,
            )
        )
    return standings
