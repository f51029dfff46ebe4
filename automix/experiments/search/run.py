"""Search: learning from whole training runs, then selection; the result is one schedule file."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.learned import LearnedPolicy
from agents.ppo import train_ppo
from automix.data.splits import SearchData
from automix.evaluation.statistics import Interval, paired_difference
from automix.experiments.common.cost import CostEstimate, estimate_cost
from automix.experiments.common.population_choice import POPULATION_NAME, settled
from automix.experiments.common.run_folder import Journal, ProgressBar, RunFolder, versions
from automix.experiments.common.training_pool import (
    TrainingJob,
    TrainingOutcome,
    TrainingPool,
    run_jobs,
)
from automix.experiments.config import SearchConfig, SelectionConfig
from automix.experiments.search.learning import (
    POLICY_NAME,
    RIVALS,
    LearningLog,
    Proposals,
    environments,
    num_greedy,
    plan_of,
    ppo_callbacks,
    propose,
)
from automix.random_streams import Stream, derived_seed
from automix.schedule import Schedule, constant_decisions, constant_schedule, decisions_hash
from automix.training.trainer import check_model, load_search_data
from automix.worker_processes import num_cores

SCHEDULE_NAME = "schedule.json"
PROPOSAL_NAME = "proposal.json"
"""The schedule that the searcher itself ranks first, before selection."""

JOURNAL_NAME = "selection.jsonl"
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


def search(config: SearchConfig, output: Path) -> dict[str, Any]:
    """Run the search in ``output``, resume it, or return its result if it is finished.

    Raises:
        AutoMixError: the configuration, the data or the folder do not fit.
    """
    data = _load(config)
    torch.set_num_threads(config.compute.threads)
    with RunFolder(output, config) as run:
        if (finished := run.result()) is not None:
            return finished
        # 0. How many runs a process trains at once.
        compute = settled(
            run.path / POPULATION_NAME,
            config.task,
            config.compute,
            data,
            num_runs=config.agent.num_environments,
            num_processes=num_cores(),
        )
        config = config.model_copy(update={"compute": compute})
        # 1. Learning: whole training runs, whose outcomes the searcher learns from.
        log = LearningLog(run)
        if not log.is_learned:
            with log.shown(total=plan_of(config).total_episodes):
                if config.searcher == "ppo":
                    with environments(config, data) as env:
                        model = train_ppo(
                            env,
                            config.agent,
                            num_segments=config.environment.num_segments,
                            seed=config.seed,
                            state=log.agent,
                            callbacks=ppo_callbacks(config, log, run),
                        )
                    # Before the log says that learning is over: a crash in between repeats the
                    # last rollout.
                    LearnedPolicy(model.policy).save(output / POLICY_NAME)
                else:
                    RIVALS[config.searcher](config, data, log)
            log.finish()
        # 2. Selection, on a split and on seeds that learning has not seen.
        proposals = propose(config, data, log.episodes, run)
        journal = Journal(output / JOURNAL_NAME)
        standings = _select(config, _candidates(config, proposals), journal)
        # 3. Files: the proposal as well, to tell what selection adds.
        winner = standings[0].candidate
        origin = f"{proposals[0][0]}, before selection"
        _save(proposals[0][1], output / PROPOSAL_NAME, origin, config, data)
        origin = f"selected by automix search: {winner.name}"
        _save(winner.schedule, output / SCHEDULE_NAME, origin, config, data)
        return run.finish(_result(config, log, standings, selection_seconds=journal.seconds))


def _save(
    schedule: Schedule, file: Path, origin: str, config: SearchConfig, data: SearchData
) -> None:
    provenance = {
        "origin": origin,
        "config": config.content_hash(),
        "data": data.fingerprint,
        "seed": str(config.seed),
        **versions(),
    }
    schedule.model_copy(update={"provenance": provenance}).save(file)


def count_runs(config: SearchConfig) -> dict[str, int]:
    """Return the number of training runs of each stage of the search."""
    # An upper bound: a learned schedule that equals a constant is merged with it.
    constants = len(constant_decisions(config.environment.operators))
    candidates = config.selection.learned_candidates + constants
    return {
        "learning": plan_of(config).total_episodes,
        "greedy episodes": num_greedy(config),
        "selection": planned_runs(config.selection, num_candidates=candidates),
    }


def predict_cost(config: SearchConfig) -> CostEstimate:
    """Return what `search` will cost, measured on a few steps; nothing is written."""
    return estimate_cost(
        config.task,
        _load(config),
        operators=config.environment.operators,
        num_runs=sum(count_runs(config).values()),
        # Before every segment and at the end, on the reward split and on the probe batch.
        evaluations_per_run=2 * (config.environment.num_segments + 1),
        compute=config.compute,
    )


def _load(config: SearchConfig) -> SearchData:
    """Return the data, after refusing numbers that do not fit each other or the data."""
    # From cheap to dear, and all before anything is written.
    plan_of(config)
    data = load_search_data(config.task.data)
    config.environment.check_length(config.task.trainer.total_steps(len(data.train)))
    check_model(config.task, data)
    return data


def _candidates(config: SearchConfig, proposals: Proposals) -> list[Candidate]:
    """Return all constants and the first distinct proposals, up to the configured number."""
    # Keyed by the decision of each segment: a learned schedule may turn out to be a constant.
    candidates: dict[str, Candidate] = {}

    def add(candidate: Candidate) -> None:
        mixtures = candidate.schedule.mixtures(config.environment.num_segments)
        candidates.setdefault(decisions_hash(mixtures), candidate)

    # Constants first: where a proposal equals one, the name of the constant stays.
    for decision in constant_decisions(config.environment.operators):
        schedule = constant_schedule(decision)
        add(Candidate(name=decision.label(), schedule=schedule, is_constant=True))
    num_constants = len(candidates)
    for number, (name, schedule) in enumerate(proposals):
        if len(candidates) - num_constants >= config.selection.learned_candidates:
            break
        add(Candidate(name=name, schedule=schedule, is_constant=False, is_proposal=number == 0))
    return list(candidates.values())


def _select(
    config: SearchConfig, candidates: Sequence[Candidate], journal: Journal
) -> list[Standing]:
    total = planned_runs(config.selection, num_candidates=len(candidates))
    # One pool for all rounds: its workers load the data once.
    with (
        TrainingPool(config.task, config.compute, with_test=False) as pool,
        ProgressBar("selection", total) as bar,
    ):

        def run(jobs: Sequence[TrainingJob]) -> list[TrainingOutcome]:
            return run_jobs(jobs, pool.run, journal, bar, population=config.compute.population)

        return select(candidates, config.selection, seed=config.seed, run=run)


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


def _result(
    config: SearchConfig,
    log: LearningLog,
    standings: Sequence[Standing],
    *,
    selection_seconds: float,
) -> dict[str, Any]:
    # Counted, not planned: patience ends learning early, and equal candidates are merged.
    runs = {
        "learning": len(log.episodes),
        "greedy episodes": num_greedy(config),
        "selection": sum(len(standing.losses) for standing in standings),
    }
    return {
        "kind": "search",
        "selected": standings[0].candidate.name,
        "episodes": [
            {
                "number": episode.number,
                "total_reward": episode.total_reward,
                "potential": episode.potential,
            }
            for episode in log.episodes
        ],
        "standings": [_standing_dict(standing) for standing in standings],
        "cost": {
            "trainings": sum(runs.values()),
            "trainings_by_stage": runs,
            "search_seconds": log.seconds,
            "selection_seconds": selection_seconds,
            "seconds_per_training": float(np.mean([episode.seconds for episode in log.episodes])),
        },
    }


def _standing_dict(standing: Standing) -> dict[str, Any]:
    interval = standing.to_winner
    finite = np.isfinite(standing.losses).all()
    return {
        "name": standing.candidate.name,
        "is_constant": standing.candidate.is_constant,
        "rounds": standing.rounds,
        "num_seeds": len(standing.losses),
        # JSON has no infinity: None where a run diverged.
        "mean_calibrated_nll": standing.mean if finite else None,
        "difference_to_selected": dataclasses.asdict(interval) if interval else None,
        "decisions": [segment.mixture.label() for segment in standing.candidate.schedule.segments],
    }
