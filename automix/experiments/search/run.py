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
from automix.experiments.search.learning import LearningLog, learn, num_greedy, plan_of
from automix.experiments.search.selection import Candidate, Standing, planned_trainings, select
from automix.schedule import Schedule, constant_decisions, constant_schedule, decisions_hash
from automix.training.trainer import check_model, load_search_data

SCHEDULE_NAME = "schedule.json"
# What the searcher itself holds to be best, before anything is selected.
PROPOSAL_NAME = "proposal.json"
_JOURNAL_NAME = "selection.jsonl"


def search(config: SearchConfig, output: Path) -> dict[str, Any]:
    """Run the search in ``output``, or continue it, or return its result if it is finished.

    Raises:
        AutoMixError: the configuration, the data or the folder do not fit.
    """
    data = _load(config)
    torch.set_num_threads(config.compute.threads)
    with RunFolder(output, config) as run:
        if (finished := run.result()) is not None:
            return finished
        log, proposals = learn(config, data, run)
        candidates = _candidates(config, proposals)
        journal = Journal(run.path / _JOURNAL_NAME)
        standings = _select(config, candidates, journal)
        winner = standings[0].candidate
        for name, schedule, origin in (
            (PROPOSAL_NAME, proposals[0][1], f"{proposals[0][0]}, before selection"),
            (SCHEDULE_NAME, winner.schedule, f"selected by automix search: {winner.name}"),
        ):
            provenance = _provenance(config, data, origin)
            schedule.model_copy(update={"provenance": provenance}).save(output / name)
        result = _result(config, log, standings, selection_seconds=journal.seconds)
        return run.finish(result)


def count_trainings(config: SearchConfig) -> dict[str, int]:
    """Return how many training runs each stage of the search takes."""
    constants = len(constant_decisions(config.environment.operators))
    candidates = config.selection.learned_candidates + constants
    return {
        "learning": plan_of(config).total_episodes,
        "greedy episodes": num_greedy(config),
        "selection": planned_trainings(config.selection, num_candidates=candidates),
    }


def predict_cost(config: SearchConfig) -> CostEstimate:
    """Return what `search` will cost, measured on a few steps; nothing is written."""
    return estimate_cost(
        config.task,
        _load(config),
        operators=config.environment.operators,
        num_trainings=sum(count_trainings(config).values()),
        evaluations_per_training=2 * (config.environment.num_segments + 1),
        compute=config.compute,
    )


def _load(config: SearchConfig) -> SearchData:
    """Return the data, after refusing numbers that do not fit each other or the data."""
    plan_of(config)
    data = load_search_data(config.task.data)
    config.environment.check_length(config.task.trainer.total_steps(len(data.train)))
    check_model(config.task, data)
    return data


def _candidates(config: SearchConfig, proposals: Sequence[tuple[str, Schedule]]) -> list[Candidate]:
    """Return all constants, and the first proposals, as many as are asked for; none twice."""
    found: dict[str, Candidate] = {}

    def add(candidate: Candidate) -> None:
        # By what is done in each segment: a learned schedule may turn out to be a constant.
        decisions = candidate.schedule.decisions(config.environment.num_segments)
        found.setdefault(decisions_hash(decisions), candidate)

    for decision in constant_decisions(config.environment.operators):
        schedule = constant_schedule(decision)
        add(Candidate(name=decision.label(), schedule=schedule, is_constant=True))
    num_constants = len(found)
    for number, (name, schedule) in enumerate(proposals):
        if len(found) - num_constants >= config.selection.learned_candidates:
            break
        add(Candidate(name=name, schedule=schedule, is_constant=False, is_proposal=number == 0))
    return list(found.values())


def _select(
    config: SearchConfig, candidates: Sequence[Candidate], journal: Journal
) -> list[Standing]:
    total = planned_trainings(config.selection, num_candidates=len(candidates))
    with (
        TrainingPool(config.task, config.compute, with_test=False) as pool,
        ProgressBar("selection", total) as bar,
    ):

        def run(jobs: Sequence[TrainingJob]) -> list[TrainingOutcome]:
            return run_jobs(jobs, pool.run, journal, bar)

        return select(candidates, config.selection, seed=config.seed, run=run)


def _provenance(config: SearchConfig, data: SearchData, origin: str) -> dict[str, str]:
    return {
        "origin": origin,
        "config": config.content_hash(),
        "data": data.fingerprint,
        "seed": str(config.seed),
        **versions(),
    }


def _result(
    config: SearchConfig,
    log: LearningLog,
    standings: Sequence[Standing],
    *,
    selection_seconds: float,
) -> dict[str, Any]:
    trainings = {
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
            "trainings": sum(trainings.values()),
            "trainings_by_stage": trainings,
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
        "mean_calibrated_nll": standing.mean if finite else None,
        "difference_to_selected": dataclasses.asdict(interval) if interval else None,
        "decisions": [segment.decision.label() for segment in standing.candidate.schedule.segments],
    }
