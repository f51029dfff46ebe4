"""Search: learning from whole training runs, then selection; the result is one schedule file."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from automix.data.splits import SearchData
from automix.experiments.common.cost import CostEstimate, estimate_cost
from automix.experiments.common.journal import Journal
from automix.experiments.common.run_folder import ProgressBar, RunFolder, versions
from automix.experiments.common.training_pool import (
    TrainingJob,
    TrainingOutcome,
    TrainingPool,
    run_jobs,
)
from automix.experiments.config import SearchConfig
from automix.experiments.search.learning import (
    LEARNERS,
    LearningLog,
    Proposals,
    num_greedy,
    plan_of,
    propose,
)
from automix.experiments.search.selection import Candidate, Standing, planned_runs, select
from automix.schedule import constant_decisions, constant_schedule, decisions_hash
from automix.training.trainer import check_model, load_search_data

SCHEDULE_NAME = "schedule.json"
PROPOSAL_NAME = "proposal.json"
"""The schedule that the searcher itself ranks first, before selection."""

JOURNAL_NAME = "selection.jsonl"


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
        # 1. Learning: whole training runs, whose outcomes the searcher learns from.
        log = LearningLog(run)
        if not log.is_learned:
            with log.shown(total=plan_of(config).total_episodes):
                LEARNERS[config.searcher](config, data, log, run)
            log.finish()
        # 2. Selection, on a split and on seeds that learning has not seen.
        proposals = propose(config, data, log.episodes, run)
        journal = Journal(run.path / JOURNAL_NAME)
        standings = _select(config, _candidates(config, proposals), journal)
        # 3. Files: the proposal as well, to tell what selection adds.
        winner = standings[0].candidate
        for name, schedule, origin in (
            (PROPOSAL_NAME, proposals[0][1], f"{proposals[0][0]}, before selection"),
            (SCHEDULE_NAME, winner.schedule, f"selected by automix search: {winner.name}"),
        ):
            provenance = {
                "origin": origin,
                "config": config.content_hash(),
                "data": data.fingerprint,
                "seed": str(config.seed),
                **versions(),
            }
            schedule.model_copy(update={"provenance": provenance}).save(output / name)
        return run.finish(_result(config, log, standings, selection_seconds=journal.seconds))


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
        decisions = candidate.schedule.decisions(config.environment.num_segments)
        candidates.setdefault(decisions_hash(decisions), candidate)

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
            return run_jobs(jobs, pool.run, journal, bar)

        return select(candidates, config.selection, seed=config.seed, run=run)


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
        "decisions": [segment.decision.label() for segment in standing.candidate.schedule.segments],
    }
