"""Search: a race of what needs no search, learning, selection, and a final that chose nothing."""

import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.learned import LearnedPolicy
from agents.ppo import Episode, train_ppo
from automix.data.splits import SearchData
from automix.experiments.common.cost import (
    CostEstimate,
    estimate_cost,
)
from automix.experiments.common.kept_files import keep_json
from automix.experiments.common.mixed_picture import keep_picture
from automix.experiments.common.population_choice import POPULATION_NAME, settled
from automix.experiments.common.run_folder import (
    RESULT_NAME,
    ProgressBar,
    RunFolder,
    versions,
)
from automix.experiments.common.run_logs import Journal
from automix.experiments.common.training_pool import (
    TrainingJob,
    TrainingOutcome,
    TrainingPool,
    run_jobs,
)
from automix.experiments.config import FEWEST, SearchConfig
from automix.experiments.search.board import show_outcome
from automix.experiments.search.candidates import (
    NONE,
    distinct,
    learned_candidates,
    zero_search_candidates,
)
from automix.experiments.search.estimate import count_runs, say_estimate, smaller_setting
from automix.experiments.search.halving import (
    Candidate,
    Round,
    RunJobs,
    Standing,
    halve,
    loss_of,
    round_job,
)
from automix.experiments.search.learning import (
    POLICY_PATHS,
    RIVALS,
    LearningLog,
    environments,
    num_greedy,
    ppo_callbacks,
    propose,
    race_episodes,
)
from automix.experiments.search.plan import plan_search, with_episodes
from automix.experiments.search.pretrained import (
    first_weights,
    pretrained_candidates,
    started_from,
)
from automix.experiments.search.verdict import Finalists, Losses, Verdict, final_row, judge
from automix.experiments.search.worth import TrainedRun, explanation
from automix.models.pretrained import images_of
from automix.random_streams import Stream, derived_seed
from automix.readers import parsing, read_json
from automix.schedule import Schedule
from automix.training.check import check_model
from automix.training.trainer import load_search_data
from automix.worker_processes import num_cores
from envs.rewards import check_rewards

SCHEDULE_NAME = "schedule.json"
PROPOSAL_NAME = "proposal.json"
"""The schedule that the searcher itself ranks first, before selection."""

BUDGET_NAME = "budget.json"
"""Training runs that the minutes of the configuration were worth when the search began."""

_RACE_NAME = "race.jsonl"
# For `--dry-run`. Enough that the fixed costs of starting processes count as little as in a search.
_TIMED_RUNS = 64
# In `--minutes`, each worker trains so many of the first candidates, whose runs count.
_TIMED_PER_WORKER = 2
# Of workers, after the timing: race and final.
_STARTS = 2
_LOG = logging.getLogger(__name__)


def search(config: SearchConfig, output: Path) -> dict[str, Any]:
    """Run the search in ``output``, resume it, or return its result if it is finished.

    From its first second on, `schedule.json` is the best schedule so far and `result.json` says how
    it compares; a result that is not final says `is_finished: false`.

    Raises:
        AutoMixError: the configuration, the data or the folder do not fit.
    """
    config = started_from(config)
    data = _load(config)
    torch.set_num_threads(config.compute.threads)
    with RunFolder(output, config) as run:
        if (finished := run.result()) is not None:
            return finished
        return _Search(config, data, run).whole()


class _Search:
    """The stages of a search in its folder; each of them resumes from its journal or checkpoint."""

    def __init__(self, config: SearchConfig, data: SearchData, run: RunFolder) -> None:
        self.started = time.perf_counter()
        self.config, self.data, self.run = config, data, run
        self.race: list[Standing] = []
        self.race_episodes: list[Episode] = []
        self.log: LearningLog | None = None
        self.selection: list[Standing] = []
        self.seconds: dict[str, float] = {}
        self.candidates = zero_search_candidates(config)
        self._recommend_first()
        # After the recommendation, which is there within seconds.
        self._add_pretrained()
        if not (run.path / _RACE_NAME).exists():
            say_estimate(config, data)
        compute = settled(
            run.path / POPULATION_NAME,
            config.task,
            config.compute,
            data,
            num_runs=config.agent.num_environments,
            num_processes=num_cores(),
        )
        self.config = config.model_copy(update={"compute": compute})
        self.plan = plan_search(
            self.config, num_candidates=len(self.candidates), runs=self._settled_runs()
        )
        self.config = with_episodes(self.config, self.plan)

    def whole(self) -> dict[str, Any]:
        """Run all stages; return the result."""
        self.race = self._halved("race", self.candidates, self.plan.race, Stream.RACE)
        leaders = self.race
        if self.plan.episodes:
            self.race_episodes = self._race_episodes()
            self._learn()
            self.selection = self._halved(
                "selection", self._learned_and_best(), self.plan.selection, Stream.SELECTION
            )
            leaders = self.selection
        return self._finish(leaders)

    def _recommend_first(self) -> None:
        """Write the first schedule that ships, unless an earlier attempt knows better."""
        if (self.run.path / RESULT_NAME).exists():
            return
        first = next((one for one in self.candidates if one.origin == "zero-search"), None)
        best = first or self.candidates[0]
        self._publish(best)
        _LOG.info(
            "recommended without a search: %s, in %s", best.name, self.run.path / SCHEDULE_NAME
        )

    def _add_pretrained(self) -> None:
        """Let what was learned in other tasks take part in the race, before most of what ships."""
        # With few training runs the race has only the first candidates: no mixing and the schedule
        # that is recommended are always among them.
        always = 1 + any(one.origin == "zero-search" for one in self.candidates[1:2])
        first, others = self.candidates[:always], self.candidates[always:]
        learned = pretrained_candidates(self.config, self.data, self.run.path)
        self.candidates = distinct([*first, *learned, *others])

    def _settled_runs(self) -> int | None:
        """Return the training runs of the budget; those of its minutes are kept in the folder."""
        config, path = self.config, self.run.path / BUDGET_NAME
        if config.minutes is None:
            return config.runs
        if not path.exists():
            # A whole number of training runs, so that a resumed search does what it would have
            # done.
            runs = self._runs_in(60 * config.minutes)
            keep_json(path.parent, path.name, {"minutes": config.minutes, "runs": runs})
            _LOG.info("budget: %g minutes, about %d training runs", config.minutes, runs)
        with parsing(str(path), "the number of training runs in the budget"):
            return int(read_json(path)["runs"])

    def _runs_in(self, seconds: float) -> int:
        """Return how many training runs there is time for, by the first ones of the race.

        A few steps in this process say too little, because workers slow each other down: on two
        threads of one core 1.9 s per run were predicted, and 2.2 and 3.9 s were taken.
        """
        compute = self.config.compute
        count = compute.workers * max(_TIMED_PER_WORKER, compute.population or 1)
        jobs = [self._race_job(one, 0) for one in self.candidates[:count]]
        _LOG.info("timing: the first %d training runs of the race", len(jobs))
        began = time.perf_counter()
        with self._pool("race", len(jobs), shown_as="timing") as run_them:
            outcomes = run_them(jobs)
        # Of the journal too, in which an interrupted timing left some.
        per_run = sum(one.seconds for one in outcomes) / len(jobs) / compute.workers
        now = time.perf_counter()
        # Each stage starts its workers anew.
        starts = _STARTS * max(0.0, now - began - len(jobs) * per_run)
        left = seconds - (now - self.started) - starts
        return max(FEWEST, len(jobs) + int(left / per_run))

    def _halved(
        self, title: str, candidates: Sequence[Candidate], rounds: Sequence[Round], stream: Stream
    ) -> list[Standing]:
        with self._pool(title, sum(one.num_runs for one in rounds)) as run_them:
            return halve(
                candidates,
                rounds,
                split="reward",
                stream=stream,
                seed=self.config.seed,
                run=run_them,
                on_round=lambda standings: self._publish(standings[0].candidate, standings),
            )

    def _race_job(self, candidate: Candidate, number: int) -> TrainingJob:
        return round_job(candidate, number, "reward", Stream.RACE, seed=self.config.seed)

    def _race_episodes(self) -> list[Episode]:
        results = Journal(self.run.path / _RACE_NAME).results
        return race_episodes(
            self.config,
            self.data,
            self.race,
            lambda job: TrainingOutcome.from_plain(results[job.key]),
        )

    def _learn(self) -> None:
        """Train the searcher on whole training runs, or resume it."""
        config, run = self.config, self.run
        self.log = log = LearningLog(run)
        if log.is_learned:
            log.restore_policy()
            return
        policy: LearnedPolicy | None = None
        with log.shown(total=self.plan.episodes):
            if config.searcher == "ppo":
                with environments(config, self.data) as env:
                    model = train_ppo(
                        env,
                        config.agent,
                        num_segments=config.environment.num_segments,
                        seed=config.seed,
                        state=log.agent_to_resume(),
                        start=first_weights(config),
                        callbacks=ppo_callbacks(config, log, run, self.race_episodes),
                    )
                policy = LearnedPolicy(model.policy)
            else:
                RIVALS[config.searcher](config, self.data, log)
        log.finish(policy)

    def _learned_and_best(self) -> list[Candidate]:
        """Return what was learned, and the best of the race."""
        assert self.log is not None
        proposals = propose(self.config, self.data, self.log.episodes, self.run, self.race_episodes)
        origin = f"{proposals[0][0]}, before selection"
        self._save(proposals[0][1], PROPOSAL_NAME, origin)
        num_learned = self.config.selection.learned_candidates
        num_kept = max(1, self.plan.selection[0].num_candidates - num_learned)
        kept = [standing.candidate for standing in self.race[:num_kept]]
        # Those of the final are among them.
        for candidate in self._finalists(self.race):
            if candidate.name not in [one.name for one in kept]:
                kept.append(candidate)
        return learned_candidates(self.config, proposals, kept)

    def _finalists(self, standings: Sequence[Standing]) -> list[Candidate]:
        """Return the leader, the best that ships, the best constant, and no mixing; distinct."""
        ranked = [standing.candidate for standing in (*standings, *self.race)]
        chosen = [ranked[0]]
        for origin in ("zero-search", "constant", "none"):
            best = next((one for one in ranked if one.origin == origin), None)
            # By name: in the race a candidate has not all of its other names yet.
            if best is not None and best.name not in [one.name for one in chosen]:
                chosen.append(best)
        return chosen

    def _finish(self, standings: Sequence[Standing]) -> dict[str, Any]:
        """Compare the finalists on images and seeds that chose nothing; write what to use."""
        finalists = self._finalists(standings)
        seeds = [
            derived_seed(self.config.seed, Stream.FINAL, step=index)
            for index in range(self.plan.final // len(finalists))
        ]
        jobs = [
            TrainingJob(schedule=one.schedule, seed=seed, splits=("selection",))
            # Seed by seed: what an interrupted final has is paired.
            for seed in seeds
            for one in finalists
        ]
        with self._pool("final", len(jobs)) as run_them:
            outcomes = run_them(jobs)
        losses = {
            one.name: np.array(
                [loss_of(outcome, "selection") for outcome in outcomes[place :: len(finalists)]]
            )
            for place, one in enumerate(finalists)
        }
        by_name = {one.name: one for one in finalists}
        verdict = judge(
            losses,
            Finalists(
                winner=finalists[0].name,
                is_learned=finalists[0].origin == "learned",
                zero_search=next(
                    (one.name for one in finalists if one.origin == "zero-search"), None
                ),
                none=NONE,
                also={one.name: one.also for one in finalists},
            ),
            seed=self.config.seed,
        )
        selected = by_name[verdict.selected].schedule
        self._save(selected, SCHEDULE_NAME, f"selected by automix search: {verdict.selected}")
        show_outcome(self.run, verdict.selected, selected, losses)
        return self.run.finish(
            self._result(standings, finalists, losses, verdict),
            outputs=(SCHEDULE_NAME, PROPOSAL_NAME, *POLICY_PATHS),
        )

    @contextlib.contextmanager
    def _pool(self, title: str, num_runs: int, *, shown_as: str = "") -> Iterator[RunJobs]:
        """Yield a function that trains jobs, whose outcomes a journal of this name keeps."""
        config, journal = self.config, Journal(self.run.path / f"{title}.jsonl")
        # One pool for all rounds: its workers load the data once.
        with (
            TrainingPool(config.task, config.compute, with_test=False) as pool,
            ProgressBar(shown_as or title, num_runs) as bar,
        ):
            yield lambda jobs: run_jobs(
                jobs, pool.run, journal, bar, population=config.compute.population
            )
        self.seconds[title] = journal.seconds

    def _publish(self, best: Candidate, standings: Sequence[Standing] = ()) -> None:
        """Write the best schedule so far, and what is known of it."""
        self._save(best.schedule, SCHEDULE_NAME, f"best so far of automix search: {best.name}")
        self.run.publish(
            {
                "kind": "search",
                "is_finished": False,
                "selected": best.name,
                "picture": self._picture(best.schedule),
                "standings": [standing.to_plain() for standing in standings],
            }
        )

    def _picture(self, schedule: Schedule) -> dict[str, Any] | None:
        """Show what a schedule does to the images of this search; return what the result says."""
        config = self.config
        return keep_picture(
            self.run.path,
            schedule,
            self.data,
            seed=config.seed,
            source=config.task.saliency.source,
        )

    def _save(self, schedule: Schedule, name: str, origin: str) -> None:
        provenance = {
            "origin": origin,
            "config": self.run.config_hash,
            "data": self.data.fingerprint,
            "seed": str(self.config.seed),
            **versions(),
        }
        schedule.model_copy(update={"provenance": provenance}).save(self.run.path / name)

    def _result(
        self,
        standings: Sequence[Standing],
        finalists: Sequence[Candidate],
        losses: Losses,
        verdict: Verdict,
    ) -> dict[str, Any]:
        episodes = self.log.episodes if self.log else []
        selected = next(one.schedule for one in finalists if one.name == verdict.selected)
        # Counted, not planned: patience ends learning early, and equal candidates are merged.
        runs = {
            "race": sum(len(standing.losses) for standing in self.race),
            "learning": len(episodes),
            "greedy episodes": num_greedy(self.config) if self.log else 0,
            "selection": sum(len(standing.losses) for standing in self.selection),
            "final": sum(map(len, losses.values())),
        }
        spent = self.seconds | {"learning": self.log.seconds if self.log else 0.0}
        seconds = {stage: spent[stage] for stage in self.plan.runs if stage in spent}
        return {
            "kind": "search",
            "is_finished": True,
            "selected": verdict.selected,
            "verdict": verdict.to_plain(),
            "picture": self._picture(selected),
            "final": [
                {
                    "name": one.name,
                    "also": list(one.also),
                    "origin": one.origin,
                    "schedule": one.schedule.to_plain(),
                    **final_row(losses[one.name], seed=self.config.seed),
                }
                for one in finalists
            ],
            "standings": [standing.to_plain() for standing in standings],
            "race": [standing.to_plain() for standing in self.race],
            "why": explanation(selected, list(self._trained_runs())),
            "episodes": [
                {
                    "number": episode.number,
                    "total_reward": episode.total_reward,
                    "potential": episode.potential,
                }
                for episode in episodes
            ],
            "cost": {
                "trainings": sum(runs.values()),
                "trainings_by_stage": runs,
                "seconds": sum(seconds.values()),
                "seconds_by_stage": seconds,
                "seconds_per_training": sum(seconds.values()) / sum(runs.values()),
            },
        }

    def _trained_runs(self) -> Iterator[TrainedRun]:
        """Yield the training runs of all stages with a loss on the reward split."""
        for stage, standings in {"race": self.race, "selection": self.selection}.items():
            for standing in standings:
                # Seeds count from 0 in every candidate, however many rounds it took part in.
                for number, loss in enumerate(standing.losses):
                    yield TrainedRun(standing.candidate.schedule, loss, pair=(stage, number))
        # The potential of learning is a loss with the other sign only by default.
        if self.log and self.config.environment.potential == "calibrated_nll":
            for episode in self.log.episodes:
                yield TrainedRun(episode.schedule, -episode.potential, pair=episode.number)


def predict_cost(config: SearchConfig) -> CostEstimate:
    """Return what `search` will cost, measured on a few steps; nothing is written."""
    config = started_from(config)
    data = _load(config)
    estimate = functools.partial(
        estimate_cost,
        config.task,
        data,
        operators=config.environment.operators,
        # Before every segment and at the end, on the reward split and on the probe batch.
        evaluations_per_run=2 * (config.environment.num_segments + 1),
        compute=config.compute,
    )
    if config.minutes is None:
        timed = estimate(num_runs=sum(count_runs(config).values()))
        runs, seconds = timed.num_runs, timed.seconds
    else:
        timed = estimate(num_runs=_TIMED_RUNS)
        runs = max(FEWEST, int(60 * config.minutes * _TIMED_RUNS / timed.seconds))
        seconds = runs * timed.seconds / _TIMED_RUNS
    advice = smaller_setting(config, timed.seconds_per_run)
    return dataclasses.replace(timed, num_runs=runs, seconds=seconds, advice=advice)


def _load(config: SearchConfig) -> SearchData:
    """Return the data, after refusing numbers that do not fit each other or the data."""
    # From cheap to dear, and all before anything is written.
    candidates = zero_search_candidates(config)
    plan_search(config, num_candidates=len(candidates), runs=config.runs)
    data = load_search_data(images_of(config.task))
    environment = config.environment
    environment.check_length(config.task.trainer.total_steps(len(data.train)))
    check_rewards(environment.reward_weights, has_label_rows=data.has_label_rows)
    of_candidates = {name for candidate in candidates for name in candidate.schedule.operators}
    check_model(config.task, data, operators=of_candidates | {*environment.operators})
    return data
