"""Search: PPO over whole trainings, then selection; the result is one schedule file."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.additive import FEWEST_EPISODES, fit_additive
from agents.callbacks import Episode, EpisodeRecorder, ForwardLogs, RolloutCheckpoint
from agents.learned import LearnedPolicy
from agents.policies import roll_out
from agents.ppo import AgentState, plan_learning, policy_of, train_ppo
from automix.checkpoints import load_checkpoint, save_checkpoint
from automix.data.splits import SearchData
from automix.experiments.config import SearchConfig
from automix.experiments.cost import CostEstimate, estimate_cost
from automix.experiments.outcomes import OutcomeFile
from automix.experiments.pool import TrainingJob, TrainingOutcome, TrainingPool
from automix.experiments.progress import ProgressBar
from automix.experiments.runs import RunFolder, versions
from automix.experiments.selection import Candidate, Standing, planned_trainings, select
from automix.random_streams import Stream, derived_seed
from automix.schedule import Schedule, decisions_hash
from automix.schedule_builders import constant_decisions, constant_schedule
from automix.training.build import check_model, load_search_data
from envs.actions import ActionCodec
from envs.mixing_env import MixingEnv
from envs.vector import make_vec_env, stop_vec_env

SCHEDULE_NAME = "schedule.json"
POLICY_NAME = "policy"
_CHECKPOINT_NAME = "checkpoint.bin"
_OUTCOMES_NAME = "selection.jsonl"
# Greedy episodes differ in their training seeds, because the policy reacts to what it observes.
_GREEDY_EPISODES = 4


@dataclasses.dataclass(slots=True)
class _Progress:
    """What the search has so far; mutable, and saved at every rollout boundary."""

    episodes: list[Episode]
    seconds: float
    agent: AgentState | None
    is_learned: bool


def search(config: SearchConfig, output: Path) -> dict[str, Any]:
    """Run the search in ``output``, or continue it, or return its result if it is finished.

    Raises:
        AutoMixError: the configuration, the data or the folder do not fit.
    """
    data = _load(config)
    torch.set_num_threads(config.compute.threads)
    with RunFolder(output, config) as run:
        if run.is_finished:
            return run.read_result()
        progress, policy = _learn(config, data, run)
        candidates = _candidates(config, data, progress.episodes, policy)
        started = time.perf_counter()
        standings = _select(config, candidates, run)
        selection_seconds = time.perf_counter() - started
        winner = standings[0].candidate
        schedule = winner.schedule.model_copy(
            update={"provenance": _provenance(config, data, winner)}
        )
        schedule.save(output / SCHEDULE_NAME)
        result = _result(progress, standings, selection_seconds=selection_seconds)
        run.finish(result)
        return result


def count_trainings(config: SearchConfig) -> dict[str, int]:
    """Return how many trainings each stage of the search takes."""
    plan = plan_learning(config.agent, num_segments=config.environment.num_segments)
    constants = len(constant_decisions(config.environment.operators))
    candidates = config.selection.learned_candidates + constants
    return {
        "learning": plan.total_episodes,
        "greedy episodes": _GREEDY_EPISODES,
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
    plan_learning(config.agent, num_segments=config.environment.num_segments)
    data = load_search_data(config.task.data)
    config.environment.check_length(config.task.trainer.total_steps(len(data.train)))
    check_model(config.task, data)
    return data


def _learn(
    config: SearchConfig, data: SearchData, run: RunFolder
) -> tuple[_Progress, LearnedPolicy]:
    progress = _restore(run)
    if progress.is_learned:
        return progress, LearnedPolicy.load(run.path / POLICY_NAME)
    plan = plan_learning(config.agent, num_segments=config.environment.num_segments)
    clock = _Clock(progress.seconds)
    in_process = config.agent.workers == "in_process"
    env = make_vec_env(
        config.task,
        config.environment,
        num_envs=config.agent.num_environments,
        kind=config.agent.workers,
        seed=config.seed,
        data=data if in_process else None,
    )

    def save(agent: AgentState | None, *, is_learned: bool) -> None:
        progress.agent, progress.seconds = agent, clock.seconds
        progress.is_learned = is_learned
        _save(run, progress)

    try:
        with ProgressBar("search", plan.total_episodes, done=len(progress.episodes)) as bar:
            model = train_ppo(
                env,
                config.agent,
                num_segments=config.environment.num_segments,
                seed=config.seed,
                state=progress.agent,
                callbacks=[
                    ForwardLogs(lambda values, step: run.log(step, values)),
                    RolloutCheckpoint(lambda agent: save(agent, is_learned=False)),
                    EpisodeRecorder(
                        progress.episodes,
                        on_episode=lambda episode: _on_episode(episode, progress, run, bar),
                        episodes_per_rollout=config.agent.episodes_per_rollout,
                        patience=config.agent.patience,
                    ),
                ],
            )
    finally:
        stop_vec_env(env)
    policy = policy_of(model)
    policy.save(run.path / POLICY_NAME)
    save(None, is_learned=True)
    return progress, policy


class _Clock:
    """Seconds spent, over all attempts."""

    def __init__(self, before: float) -> None:
        self._before, self._started = before, time.perf_counter()

    @property
    def seconds(self) -> float:
        return self._before + time.perf_counter() - self._started


def _on_episode(episode: Episode, progress: _Progress, run: RunFolder, bar: ProgressBar) -> None:
    run.log(
        episode.number,
        {
            "episode/total_reward": episode.total_reward,
            "episode/potential": episode.potential,
            "episode/seconds": episode.seconds,
            "episode/schedule": " | ".join(
                segment.decision.label() for segment in episode.schedule.segments
            ),
        },
    )
    recent = [other.potential for other in progress.episodes[-32:]]
    bar.advance(note=f"mean potential of the last {len(recent)}: {np.mean(recent):.4f}")


def _save(run: RunFolder, progress: _Progress) -> None:
    save_checkpoint(
        run.path / _CHECKPOINT_NAME,
        {
            "episodes": [episode.to_dict() for episode in progress.episodes],
            "seconds": progress.seconds,
            "agent": progress.agent,
            "is_learned": progress.is_learned,
            "metrics_size": run.metrics_size,
        },
    )


def _restore(run: RunFolder) -> _Progress:
    state = load_checkpoint(run.path / _CHECKPOINT_NAME)
    run.cut_metrics(state["metrics_size"] if state else 0)
    if state is None:
        return _Progress(episodes=[], seconds=0.0, agent=None, is_learned=False)
    return _Progress(
        episodes=[Episode.from_dict(values) for values in state["episodes"]],
        seconds=state["seconds"],
        agent=state["agent"],
        is_learned=state["is_learned"],
    )


def _candidates(
    config: SearchConfig, data: SearchData, episodes: Sequence[Episode], policy: LearnedPolicy
) -> list[Candidate]:
    """Return learned schedules and all constants; none twice.

    Learned are the best schedule of an additive fit to all episodes, episodes of the greedy
    policy, and the best episodes of the search, in this order, as many as are asked for.
    """
    env = MixingEnv(config.task, config.environment, data=data, seed=config.seed)
    found: dict[str, Candidate] = {}

    def add(name: str, schedule: Schedule, *, is_constant: bool) -> None:
        # By what is done in each segment: a learned schedule may turn out to be a constant.
        key = decisions_hash(schedule.decisions(config.environment.num_segments))
        found.setdefault(key, Candidate(name=name, schedule=schedule, is_constant=is_constant))

    for decision in constant_decisions(config.environment.operators):
        add(decision.label(), constant_schedule(decision), is_constant=True)
    num_constants = len(found)
    if len(episodes) >= FEWEST_EPISODES:
        fit = fit_additive(
            [episode.schedule for episode in episodes],
            [episode.potential for episode in episodes],
            ActionCodec(config.environment).decisions(),
            num_segments=config.environment.num_segments,
        )
        add("additive fit", fit.best_schedule(), is_constant=False)
    for index in range(_GREEDY_EPISODES):
        seed = derived_seed(config.seed, Stream.GREEDY, step=index)
        add(f"greedy {index}", roll_out(policy, env, training_seed=seed)[0], is_constant=False)
    for episode in sorted(episodes, key=lambda episode: -episode.potential):
        if len(found) - num_constants >= config.selection.learned_candidates:
            break
        add(f"episode {episode.number}", episode.schedule, is_constant=False)
    return list(found.values())


def _select(
    config: SearchConfig, candidates: Sequence[Candidate], run: RunFolder
) -> list[Standing]:
    outcomes = OutcomeFile(run.path / _OUTCOMES_NAME)
    total = planned_trainings(config.selection, num_candidates=len(candidates))
    with (
        TrainingPool(config.task, config.compute, with_test=False) as pool,
        ProgressBar("selection", total) as bar,
    ):

        def run_jobs(jobs: Sequence[TrainingJob]) -> list[TrainingOutcome]:
            return outcomes.run(jobs, pool.run, on_done=bar.advance)

        return select(candidates, config.selection, seed=config.seed, run=run_jobs)


def _provenance(config: SearchConfig, data: SearchData, winner: Candidate) -> dict[str, str]:
    return {
        "origin": f"selected by automix search: {winner.name}",
        "config": config.content_hash(),
        "data": data.fingerprint,
        "seed": str(config.seed),
        **versions(),
    }


def _result(
    progress: _Progress, standings: Sequence[Standing], *, selection_seconds: float
) -> dict[str, Any]:
    trainings = len(progress.episodes) + _GREEDY_EPISODES
    trainings += sum(len(standing.losses) for standing in standings)
    return {
        "kind": "search",
        "selected": standings[0].candidate.name,
        "episodes": [
            {
                "number": episode.number,
                "total_reward": episode.total_reward,
                "potential": episode.potential,
            }
            for episode in progress.episodes
        ],
        "standings": [_standing_dict(standing) for standing in standings],
        "cost": {
            "trainings": trainings,
            "search_seconds": progress.seconds,
            "selection_seconds": selection_seconds,
            "seconds_per_training": float(np.mean([e.seconds for e in progress.episodes])),
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
