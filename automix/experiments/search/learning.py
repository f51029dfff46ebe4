"""Learning stage of a search: searchers learn from the outcomes of whole training runs."""

import contextlib
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from agents.additive import FEWEST_EPISODES
from agents.credit import fit_episodes, teachers
from agents.learned import FACTS_NAME, MAX_WEIGHTS_BYTES, WEIGHTS_NAME, LearnedPolicy, roll_out
from agents.ppo import (
    AgentState,
    Episode,
    EpisodeRecorder,
    ForwardLogs,
    LearningPlan,
    RolloutCheckpoint,
    plan_learning,
)
from agents.searchers import RandomSearch, TreeParzenSearch, train_population
from automix.data.splits import SearchData
from automix.errors import CheckpointError
from automix.experiments.common.run_folder import ProgressBar, RunFolder
from automix.experiments.common.training_pool import (
    TrainingJob,
    TrainingOutcome,
    TrainingPool,
    grouped,
)
from automix.experiments.config import SearchConfig
from automix.experiments.search.halving import Standing, round_job
from automix.files import CheckpointFolder, Fields, check_fields, write_bytes
from automix.random_streams import Stream, derived_seed
from automix.readers import parsing, read_bytes
from automix.schedule import Schedule, majority_schedule
from automix.training.population import group_sizes
from envs.actions import ActionCodec
from envs.mixing_env import MixingEnv
from envs.rewards import Potential
from envs.vector import VecEnvKind, choose_kind, make_vec_env, stop_vec_env

CHECKPOINTS_NAME = "checkpoints"
POLICY_NAME = "policy"
POLICY_PATHS = tuple(f"{POLICY_NAME}/{name}" for name in (FACTS_NAME, WEIGHTS_NAME))
_POLICY_FILES = (FACTS_NAME, WEIGHTS_NAME)
_STATE_FIELDS: Fields = MappingProxyType(
    {
        "configuration": (str,),
        # Text as a tensor, a line per episode: as plain values, thousands of episodes are more
        # operations of pickle than a reader of checkpoints allows.
        "episodes": (Tensor,),
        "seconds": (float,),
        "agent": (dict, type(None)),
        "is_learned": (bool,),
        "metrics": (str,),
        "policy": (dict,),
    }
)
# Greedy episodes differ in their training seeds, because the policy reacts to what it observes.
NUM_GREEDY = 4
# Episodes whose mean potential the progress bar shows.
_NUM_RECENT = 32
# Episodes in a mean that is logged, as in Stable-Baselines3.
_STATS_WINDOW = 100
_LOG = logging.getLogger(__name__)

Proposals = list[tuple[str, Schedule]]
"""Names and schedules, the most promising first; the same schedule may come more than once."""


class LearningLog:
    """Finished episodes of a search in a run folder; an interrupted one resumes from here.

    Attributes:
        episodes: finished training runs in the order in which they ended.
        agent: the state of the agent at the last rollout boundary, if it has one.
        is_learned: whether learning is over.
    """

    def __init__(self, run: RunFolder) -> None:
        """Read the newest checkpoint, and drop what was logged after it."""
        self._run = run
        self._bar: ProgressBar | None = None
        self._checkpoints = CheckpointFolder(
            run.path / CHECKPOINTS_NAME, keep=2, fields=_STATE_FIELDS
        )
        state = self._checkpoints.load_newest(check=self._check)
        # Episodes and updates of the policy count their steps differently: hide none of them.
        run.restore_metrics(state["metrics"] if state else "", next_step=None)
        with parsing(str(self._checkpoints.path), "the episodes of a search"):
            self.episodes: list[Episode] = [
                Episode.from_dict(json.loads(line))
                for line in (_lines_in(state["episodes"]) if state else ())
            ]
        self.agent: AgentState | None = state["agent"] if state else None
        self.is_learned: bool = state["is_learned"] if state else False
        # As tensors: bytes are saved as a call, which readers of checkpoints refuse.
        self._policy: dict[str, Tensor] = state["policy"] if state else {}
        # Time since the last checkpoint of an interrupted attempt is lost with its episodes.
        self._seconds_before: float = state["seconds"] if state else 0.0
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of learning, over all attempts up to the last save and this one."""
        if self.is_learned:
            return self._seconds_before
        return self._seconds_before + time.perf_counter() - self._started

    @contextlib.contextmanager
    def shown(self, *, total: int) -> Iterator[None]:
        """Show a progress bar that every episode of the body advances."""
        with ProgressBar("search", total, done=len(self.episodes)) as self._bar:
            yield

    def add(self, episode: Episode) -> None:
        """Append an episode and log it."""
        self.episodes.append(episode)
        self.on_episode(episode)

    def on_episode(self, episode: Episode) -> None:
        """Log an episode that has been appended."""
        self._run.log(
            episode.number,
            {
                "episode/total_reward": episode.total_reward,
                "episode/potential": episode.potential,
                "episode/seconds": episode.seconds,
                "episode/schedule": " | ".join(
                    segment.mixture.label() for segment in episode.schedule.segments
                ),
            },
        )
        recent = [other.potential for other in self.episodes[-_NUM_RECENT:]]
        if self._bar is not None:
            note = f"mean potential of the last {len(recent)}: {np.mean(recent):.4f}"
            self._bar.advance(note=note)

    def agent_to_resume(self) -> AgentState | None:
        """Return the state of the agent that had these episodes; None before the first.

        Raises:
            CheckpointError: there are episodes, and no agent.
        """
        if self.episodes and self.agent is None:
            raise CheckpointError(
                f"{self._checkpoints.path}: expected the agent of {len(self.episodes)} episodes, "
                "got none"
            )
        return self.agent

    def progress(self, num_decisions: int) -> dict[str, float]:
        """Return what Stable-Baselines3 logs of every rollout, under its names."""
        recent = self.episodes[-_STATS_WINDOW:]
        # An episode may begin at a snapshot, or end early.
        lengths = [len(one.observations) or len(one.schedule.segments) for one in recent]
        return {
            "rollout/ep_rew_mean": float(np.mean([one.total_reward for one in recent])),
            "rollout/ep_len_mean": float(np.mean(lengths)),
            "time/fps": num_decisions / self.seconds,
            "time/time_elapsed": self.seconds,
            "time/total_timesteps": num_decisions,
        }

    def save(self, agent: AgentState | None = None) -> None:
        """Save everything: between two rollouts, or batches of training runs."""
        # Named by the number of episodes, which only grows.
        self.agent = agent
        self._checkpoints.save(
            len(self.episodes),
            {
                "configuration": self._run.config_hash,
                "episodes": _bytes_of(
                    "\n".join(json.dumps(episode.to_dict()) for episode in self.episodes).encode()
                ),
                "seconds": self.seconds,
                "agent": agent,
                "is_learned": self.is_learned,
                "metrics": self._run.metrics_text(),
                "policy": self._policy,
            },
        )

    def _check(self, state: Mapping[str, Any]) -> None:
        """Refuse the state of another search, or of another program."""
        if state["configuration"] != self._run.config_hash:
            raise CheckpointError(
                f"{self._checkpoints.path}: expected checkpoints of this configuration, got others"
            )
        # Both grow by an episode at a time, and its log is a line of the other.
        num_logged = state["metrics"].count('"episode/total_reward"')
        with parsing(str(self._checkpoints.path), "the episodes of a search"):
            num_episodes = len(_lines_in(state["episodes"]))
        if num_logged != num_episodes:
            raise CheckpointError(
                f"{self._checkpoints.path}: expected the {num_logged} episodes of its log, "
                f"got {num_episodes}"
            )
        # They name files that are written.
        fields = dict.fromkeys(_POLICY_FILES if state["policy"] else (), (Tensor,))
        check_fields(state["policy"], fields, source=f"{self._checkpoints.path}: policy")

    def finish(self, policy: LearnedPolicy | None = None) -> None:
        """Save that learning is over, and the policy that it has come to, if there is one."""
        if policy is not None:
            folder = self._run.path / POLICY_NAME
            policy.save(folder)
            self._policy = {name: _bytes_in(folder / name) for name in _POLICY_FILES}
        self._seconds_before = self.seconds
        self.is_learned = True
        self.save()

    def restore_policy(self) -> None:
        """Write the files of the policy again where they are damaged or gone."""
        for name in _POLICY_FILES if self._policy else ():
            path, content = self._run.path / POLICY_NAME / name, self._policy[name]
            if not path.exists() or not torch.equal(_bytes_in(path), content):
                _LOG.warning(
                    "%s: expected the policy that was learned, got a damaged or missing file; "
                    "written again",
                    path,
                )
                write_bytes(path, content.numpy().tobytes())


def _bytes_in(path: Path) -> Tensor:
    return _bytes_of(read_bytes(path, limit=MAX_WEIGHTS_BYTES))


def _bytes_of(content: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8).copy())


def _lines_in(content: Tensor) -> list[str]:
    return content.numpy().tobytes().decode().splitlines()


def plan_of(config: SearchConfig) -> LearningPlan:
    """Return how the training runs of learning are cut into rollouts; the same for every searcher.

    Raises:
        ConfigError: the numbers do not divide.
    """
    return plan_learning(config.agent, num_segments=config.environment.num_segments)


def num_greedy(config: SearchConfig) -> int:
    """Return the number of training runs with the greedy policy after learning."""
    return NUM_GREEDY if config.searcher == "ppo" else 0


def ppo_callbacks(
    config: SearchConfig, log: LearningLog, run: RunFolder, race: Sequence[Episode]
) -> list[BaseCallback]:
    """Return what happens at every rollout of PPO: logs, a checkpoint, episodes, teachers."""
    # In this order: a checkpoint holds the numbers that were logged before it, and the teachers,
    # which change the policy, come after the episodes that they learn from.
    return [
        ForwardLogs(lambda values, step: run.log(step, values | log.progress(step))),
        RolloutCheckpoint(log.save),
        EpisodeRecorder(
            log.episodes,
            on_episode=log.on_episode,
            episodes_per_rollout=config.agent.episodes_per_rollout,
            patience=config.agent.patience,
        ),
        *teachers(config.agent, log.episodes, config.environment, race=race),
    ]


def _learn_population(config: SearchConfig, data: SearchData, log: LearningLog) -> None:
    """Train population after population (PBT, arXiv:1711.09846), saving after each."""
    plan, size = plan_of(config), config.agent.episodes_per_rollout
    chance = _potential(config, data).at_chance
    with environments(config, data) as env:
        # A population is the unit that is resumed: one that was interrupted is trained anew.
        for number in range(len(log.episodes) // size, plan.num_rollouts):
            infos = train_population(
                env,
                size=size,
                num_segments=config.environment.num_segments,
                seed=config.seed,
                number=number,
            )
            for info in infos:
                gain = info["potential"] - chance
                log.add(Episode.from_info(info, number=len(log.episodes), total_reward=gain))
            log.save()


def _ask_and_tell(config: SearchConfig, data: SearchData, log: LearningLog) -> None:
    """Train the schedules that a searcher asks for, and tell it how they did."""
    plan, size = plan_of(config), config.agent.episodes_per_rollout
    potential = _potential(config, data)
    make = TreeParzenSearch if config.searcher == "tpe" else RandomSearch
    searcher = make(
        ActionCodec(config.environment).choices(),
        num_segments=config.environment.num_segments,
        seed=config.seed,
    )
    # A searcher has no state on disk: asked and told again, it is where it was.
    for first in range(0, len(log.episodes), size):
        earlier = log.episodes[first : first + size]
        searcher.tell(searcher.ask(len(earlier)), [episode.potential for episode in earlier])
    with TrainingPool(config.task, config.compute, with_test=False) as pool:
        while len(log.episodes) < plan.total_episodes:
            jobs = [
                TrainingJob(
                    schedule=schedule.at_starts(config.environment.starts),
                    # By position in the search, so that searchers are compared on equal seeds.
                    seed=derived_seed(config.seed, Stream.EPISODE, step=len(log.episodes) + index),
                    splits=("reward",),
                )
                for index, schedule in enumerate(searcher.ask(size))
            ]
            groups = grouped(jobs, config.compute.population)
            outcomes = itertools.chain.from_iterable(pool.run(groups))
            for job, outcome in zip(jobs, outcomes, strict=True):
                log.add(_episode(potential, job, outcome, number=len(log.episodes)))
            searcher.tell(
                [job.schedule for job in jobs],
                [episode.potential for episode in log.episodes[-size:]],
            )
            log.save()


RIVALS: Mapping[str, Callable[[SearchConfig, SearchData, LearningLog], None]] = MappingProxyType(
    {
        "pbt": _learn_population,
        # The additive fit is of random schedules; it is made when learning is over.
        **dict.fromkeys(("random_search", "additive", "tpe"), _ask_and_tell),
    }
)
"""The searchers beside PPO: learn until the budget is spent, resuming from the log."""


def _episode(
    potential: Potential, job: TrainingJob, outcome: TrainingOutcome, *, number: int
) -> Episode:
    # A diverged run is worth as much as guessing: infinite losses would break fits and means.
    reached = potential.at_chance if outcome.diverged else potential.of(outcome.metrics["reward"])
    return Episode(
        number=number,
        schedule=job.schedule,
        total_reward=reached - potential.at_chance,
        potential=reached,
        training_seed=job.seed,
        seconds=outcome.seconds,
    )


def _potential(config: SearchConfig, data: SearchData) -> Potential:
    """Return the potential; gains count from that at chance, about that of a fresh classifier."""
    return Potential(
        config.environment.reward_weights,
        num_classes=data.num_alternatives,
        num_segments=config.environment.num_segments,
    )


def race_episodes(
    config: SearchConfig,
    data: SearchData,
    standings: Sequence[Standing],
    outcome_of: Callable[[TrainingJob], TrainingOutcome],
) -> list[Episode]:
    """Return the training runs of the race as episodes in which nothing was observed.

    There are none where the reward is not that of how a run ends: the race does not know it.
    """
    if config.environment.segment_reward:
        return []
    jobs = [
        round_job(standing.candidate, index, "reward", Stream.RACE, seed=config.seed)
        for standing in standings
        for index in range(len(standing.losses))
    ]
    potential = _potential(config, data)
    return [
        _episode(potential, job, outcome_of(job), number=number) for number, job in enumerate(jobs)
    ]


def propose(
    config: SearchConfig,
    data: SearchData,
    episodes: Sequence[Episode],
    run: RunFolder,
    race: Sequence[Episode],
) -> Proposals:
    """Return the schedules that learning has come to, those of the searcher's model first."""
    best_first = [
        (f"episode {episode.number}", episode.schedule)
        # Each potential is that of one noisy run, so the best are optimistic (the winner's curse):
        # selection retrains them with fresh seeds.
        for episode in sorted(episodes, key=lambda episode: -episode.potential)
    ]
    if config.searcher == "ppo":
        return [*_greedy(config, data, run), *_additive_fit(config, episodes, race), *best_first]
    if config.searcher == "additive":
        return [*_additive_fit(config, episodes, race), *best_first]
    return best_first


def _greedy(config: SearchConfig, data: SearchData, run: RunFolder) -> Proposals:
    """Return the majority of the policy's greedy episodes, then each of them."""
    # The policy reacts to what it observes, so its schedules differ from run to run. A schedule
    # file holds one: the majority decision of each segment.
    policy = LearnedPolicy.load(run.path / POLICY_NAME)
    env = MixingEnv(config.task, config.environment, data=data, seed=config.seed)
    seeds = [derived_seed(config.seed, Stream.GREEDY, step=index) for index in range(NUM_GREEDY)]
    episodes = [roll_out(policy, env, training_seed=seed)[0] for seed in seeds]
    starts = config.environment.starts
    majority = majority_schedule([episode.averaged(starts) for episode in episodes])
    return [
        ("greedy", majority.at_starts(starts)),
        *((f"greedy {i}", one) for i, one in enumerate(episodes)),
    ]


def _additive_fit(
    config: SearchConfig, episodes: Sequence[Episode], race: Sequence[Episode]
) -> Proposals:
    # Fewer do not determine the effects of the fit.
    if len(episodes) < FEWEST_EPISODES:
        return []
    fit = fit_episodes(
        episodes,
        ActionCodec(config.environment).choices(),
        num_segments=config.environment.num_segments,
        starts=config.environment.starts,
        race=race,
    )
    return [("additive fit", fit.best_schedule())]


@contextlib.contextmanager
def environments(config: SearchConfig, data: SearchData) -> Iterator[VecEnv]:
    """Yield the environments of a search; their processes end with the body."""
    count = config.agent.num_environments
    kind: VecEnvKind = config.agent.workers
    population = config.compute.population or 1
    if kind == "auto":
        # A configuration that names an executor means the environments as well.
        executor = config.compute.executor
        kind, reason = choose_kind(len(group_sizes(count, population)))
        if executor != "auto":
            kind = "subprocess" if executor == "processes" else executor
            reason = f"compute.executor {executor}"
        _LOG.info("environments: %d, %s (%s)", count, kind, reason)
    env = make_vec_env(
        config.task,
        config.environment,
        num_envs=count,
        kind=kind,
        seed=config.seed,
        population=population,
        # Worker processes load the data themselves.
        data=data if kind == "in_process" else None,
        compute=config.compute,
    )
    try:
        yield env
    finally:
        stop_vec_env(env)
