"""Successive halving: candidates are trained with shared seeds, and the worse half leaves."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from automix.evaluation.statistics import Interval, paired_difference
from automix.experiments.common.training_pool import SplitName, TrainingJob, TrainingOutcome
from automix.random_streams import Stream, derived_seed
from automix.schedule import Schedule

RunJobs = Callable[[Sequence[TrainingJob]], Sequence[TrainingOutcome]]
Origin = Literal["none", "zero-search", "constant", "learned"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A schedule that may be selected.

    Attributes:
        name: unique; where it comes from.
        schedule: how batches are mixed.
        origin: no mixing, a schedule that ships, an operator held constant, or what was learned.
        is_proposal: whether it is the one that the searcher itself ranks first.
        also: other names of the same schedule.
    """

    name: str
    schedule: Schedule
    origin: Origin
    is_proposal: bool = False
    also: tuple[str, ...] = ()

    @property
    def is_constant(self) -> bool:
        """Whether it does the same throughout; no mixing does."""
        return self.origin in ("none", "constant")


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A round of halving: how many of the candidates take part, and the numbers of their seeds."""

    num_candidates: int
    seeds: range

    @property
    def num_runs(self) -> int:
        """Training runs of the round."""
        return self.num_candidates * len(self.seeds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Result of a candidate."""

    candidate: Candidate
    # Calibrated NLL on the split of the stage, one per seed, in nats; lower is better.
    losses: tuple[float, ...]
    rounds: int  # number of rounds it took part in
    # Paired difference of its losses to the leader's over the seeds they share, with interval; None
    # for the leader, for a single seed and where a training run diverged.
    to_leader: Interval | None
    interval: Interval | None  # of its mean loss; None as above

    @property
    def mean(self) -> float:
        """Mean loss over its seeds."""
        return float(np.mean(self.losses))

    def to_plain(self) -> dict[str, Any]:
        """Return the standing as it stands in a result."""
        finite = np.isfinite(self.losses).all()
        return {
            "name": self.candidate.name,
            "also": list(self.candidate.also),
            "origin": self.candidate.origin,
            "is_constant": self.candidate.is_constant,
            "rounds": self.rounds,
            "num_seeds": len(self.losses),
            # JSON has no infinity: None where a run diverged.
            "mean_calibrated_nll": self.mean if finite else None,
            "interval": dataclasses.asdict(self.interval) if self.interval else None,
            "difference_to_first": dataclasses.asdict(self.to_leader) if self.to_leader else None,
            "segments": [segment.mixture.label() for segment in self.candidate.schedule.segments],
        }


def halve(
    candidates: Sequence[Candidate],
    rounds: Sequence[Round],
    *,
    split: SplitName,
    stream: Stream,
    seed: int,
    run: RunJobs,
    on_round: Callable[[list[Standing]], None] = lambda _: None,
) -> list[Standing]:
    """Compare candidates in rounds, of which each has fewer; return the standings, the best first.

    Seeds are shared, so all candidates of a round are compared on the same seeds. Finalists come
    first, by their mean loss; those eliminated earlier follow. The searcher's own proposal is never
    eliminated before the last round, because it rests on all training runs of the search where a
    round has few. Of the constants, the best one and half as many as in proportion to the field
    are kept, so that two unlucky seeds do not lose the best.

    Args:
        candidates: distinct schedules.
        rounds: how many candidates each round has, and the numbers of its seeds.
        split: where the losses are measured.
        stream: of the training seeds.
        seed: of the training seeds and the bootstrap.
        run: trains the jobs and returns outcomes in their order.
        on_round: gets the standings after each round.
    """
    losses: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
    taken_part = dict.fromkeys(losses, 0)
    remaining, eliminated = list(candidates), list[Candidate]()
    standings: list[Standing] = []
    for one in rounds:
        # Ranked by all seeds so far; the last eliminated stand before those of earlier rounds.
        remaining, worse = _keep(_ranked(remaining, losses), one.num_candidates)
        eliminated = [*worse, *eliminated]
        # Candidate by candidate, but with the seeds of the round: comparisons are paired.
        jobs = [
            round_job(candidate, index, split, stream, seed=seed)
            for candidate in remaining
            for index in one.seeds
        ]
        outcomes = iter(run(jobs))
        for candidate in remaining:
            losses[candidate.name] += [loss_of(next(outcomes), split) for _ in one.seeds]
            taken_part[candidate.name] += 1
        # Without those that had no training run at all: the budget is smaller than the field.
        order = [one for one in (*_ranked(remaining, losses), *eliminated) if losses[one.name]]
        standings = _standings(order, losses, taken_part, seed=seed)
        on_round(standings)
    return standings


def round_job(
    candidate: Candidate, number: int, split: SplitName, stream: Stream, *, seed: int
) -> TrainingJob:
    """Return a training run of a candidate in `halve`, with the seed of this number."""
    return TrainingJob(
        schedule=candidate.schedule,
        seed=derived_seed(seed, stream, step=number),
        splits=(split,),
    )


def doubling_rounds(num_candidates: int, *, first_seeds: int, num_rounds: int) -> list[Round]:
    """Return rounds of half of the candidates with twice the seeds.

    Every round but the last costs about the same.
    """
    rounds, count, first, number = [], num_candidates, 0, first_seeds
    for _ in range(num_rounds):
        rounds.append(Round(num_candidates=count, seeds=range(first, first + number)))
        first, number = first + number, number * 2
        # The best one, the best constant, the proposal.
        count = max(-(-count // 2), min(3, num_candidates))
    return rounds


def loss_of(outcome: TrainingOutcome, split: SplitName) -> float:
    """Return the calibrated NLL on ``split``, in nats; infinity for a run that diverged."""
    # It loses against every finite loss, and its mean stays comparable.
    loss = outcome.metrics[split].calibrated_nll
    return loss if math.isfinite(loss) and not outcome.diverged else math.inf


def _ranked(candidates: Sequence[Candidate], losses: Mapping[str, list[float]]) -> list[Candidate]:
    # Before the first round there is nothing to rank by.
    if not losses[candidates[0].name]:
        return list(candidates)
    return sorted(candidates, key=lambda candidate: float(np.mean(losses[candidate.name])))


def _keep(ranked: list[Candidate], count: int) -> tuple[list[Candidate], list[Candidate]]:
    """Return ``count`` candidates, the protected and then the best ones, and the others."""
    constants = [candidate for candidate in ranked if candidate.is_constant]
    kept_constants = constants[: max(1, count * len(constants) // (2 * len(ranked)))]
    protected = [one for one in ranked if one in kept_constants or one.is_proposal]
    others = [one for one in ranked if one not in protected]
    worse = others[max(0, count - len(protected)) :]
    return [one for one in ranked if one not in worse], worse


def _standings(
    order: Sequence[Candidate],
    losses: Mapping[str, list[float]],
    taken_part: Mapping[str, int],
    *,
    seed: int,
) -> list[Standing]:
    leader = np.array(losses[order[0].name])
    standings = []
    for position, candidate in enumerate(order):
        values = np.array(losses[candidate.name])
        # Seeds come in the same order for all, so the first ones are shared with the leader.
        shared = leader[: len(values)]
        interval = to_leader = None
        if len(values) > 1 and np.isfinite(values).all():
            interval = paired_difference(values, np.zeros_like(values), seed=seed)
        if position and len(values) > 1 and np.isfinite([values, shared]).all():
            to_leader = paired_difference(values, shared, seed=seed)
        standings.append(
            Standing(
                candidate=candidate,
                losses=tuple(float(value) for value in values),
                rounds=taken_part[candidate.name],
                to_leader=to_leader,
                interval=interval,
            )
        )
    return standings
