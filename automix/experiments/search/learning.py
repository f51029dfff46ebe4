"""The learning stage of a search: episodes, policies, log."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from agents.additive import FEWEST_EPISODES
from agents.credit import fit_episodes, teachers
from agents.learned import LearnedPolicy, roll_out
from agents.ppo import (
    AgentState,
    Episode,
    EpisodeRecorder,
    ForwardLogs,
    LearningPlan,
    RolloutCheckpoint,
    plan_learning,
    policy_of,
    train_ppo,
)
from agents.searchers import RandomSearch, Searcher, TreeParzenSearch, train_population
from automix.data.splits import SearchData
from automix.experiments.common.run_folder import ProgressBar, RunFolder
from automix.experiments.common.training_pool import TrainingJob, TrainingOutcome, TrainingPool
from automix.experiments.config import SearchConfig
from automix.files import CheckpointFolder
from automix.random_streams import Stream, derived_seed
from automix.schedule import Schedule, majority_schedule
from envs.actions import ActionCodec
from envs.mixing_env import MixingEnv
from envs.rewards import Potential
from envs.vector import choose_kind, make_vec_env, stop_vec_env

CHECKPOINTS_NAME = "checkpoints"
_NUM_RECENT = 32


class LearningLog:
    """Finished episodes of a search in a run folder; an interrupted one goes on from here.

    Attributes:
        episodes: finished training runs in the order in which they ended.
        agent: the state of the agent at the last rollout boundary, if it has one.
        is_learned: whether learning is over.
    """

    def __init__(self, run: RunFolder) -> None:
        """Read what is there, and drop what was logged after it."""
        self._run = run
        self._bar: ProgressBar | None = None
        self._checkpoints = CheckpointFolder(run.path / CHECKPOINTS_NAME, keep=2)
        state = self._checkpoints.load_newest()
        # Episodes and updates of the policy count their steps differently: nothing is hidden.
        run.keep_metrics(state["metrics_lines"] if state else 0, next_step=None)
        self.episodes: list[Episode] = [
            Episode.from_dict(values) for values in (state["episodes"] if state else ())
        ]
        self.agent: AgentState | None = state["agent"] if state else None
        self.is_learned: bool = state["is_learned"] if state else False
        self._seconds_before: float = state["seconds"] if state else 0.0
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of learning, over all attempts up to the last save and this one."""
        if self.is_learned:
            return self._seconds_before
        return self._seconds_before + time.perf_counter() - self._started

    def show_on(self, bar: ProgressBar) -> None:
        """Advance ``bar`` with every episode from now on."""
        self._bar = bar

    def add(self, episode: Episode) -> None:
        """Take in an episode."""
        self.episodes.append(episode)
        self.on_episode(episode)

    def on_episode(self, episode: Episode) -> None:
        """Log an episode that has been taken in."""
        self._run.log(
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
        recent = [other.potential for other in self.episodes[-_NUM_RECENT:]]
        if self._bar is not None:
            note = f"mean potential of the last {len(recent)}: {np.mean(recent):.4f}"
            self._bar.advance(note=note)

    def save(self, agent: AgentState | None = None) -> None:
        """Save everything: between two rollouts, or batches of training runs."""
        self.agent = agent
        self._checkpoints.save(
            len(self.episodes),
            {
                "episodes": [episode.to_dict() for episode in self.episodes],
                "seconds": self.seconds,
                "agent": agent,
                "is_learned": self.is_learned,
                "metrics_lines": self._run.metrics_lines,
            },
        )

    def finish(self) -> None:
        """Save that learning is over."""
        self._seconds_before = self.seconds
        self.is_learned = True
        self.save()


_LOG = logging.getLogger(__name__)
POLICY_NAME = "policy"
# Greedy episodes differ in their training seeds, because the policy reacts to what it observes.
NUM_GREEDY = 4

Proposals = list[tuple[str, Schedule]]


def learn(config: SearchConfig, data: SearchData, run: RunFolder) -> tuple[LearningLog, Proposals]:
    """Train until the budget is spent, or go on; return what was seen and what came of it.

    The proposals are names and schedules, the most promising first; the same schedule may come
    more than once.
    """
    log = LearningLog(run)
    if not log.is_learned:
        plan = plan_of(config)
        with ProgressBar("search", plan.total_episodes, done=len(log.episodes)) as bar:
            log.show_on(bar)
            _LEARNERS.get(config.searcher, _ask_and_tell)(config, data, log, run)
        log.finish()
    return log, _proposals(config, data, log.episodes, run)


def plan_of(config: SearchConfig) -> LearningPlan:
    """Return how the training runs of learning are cut into rollouts; the same for every searcher.

    Raises:
        ConfigError: the numbers do not divide.
    """
    return plan_learning(config.agent, num_segments=config.environment.num_segments)


def num_greedy(config: SearchConfig) -> int:
    """Return how many training runs are run with the greedy policy after learning."""
    return NUM_GREEDY if config.searcher == "ppo" else 0


def _learn_ppo(config: SearchConfig, data: SearchData, log: LearningLog, run: RunFolder) -> None:
    num_segments = config.environment.num_segments
    env = _environments(config, data)
    try:
        model = train_ppo(
            env,
            config.agent,
            num_segments=num_segments,
            seed=config.seed,
            state=log.agent,
            callbacks=[
                ForwardLogs(lambda values, step: run.log(step, values)),
                RolloutCheckpoint(log.save),
                EpisodeRecorder(
                    log.episodes,
                    on_episode=log.on_episode,
                    episodes_per_rollout=config.agent.episodes_per_rollout,
                    patience=config.agent.patience,
                ),
                *teachers(
                    config.agent,
                    log.episodes,
                    ActionCodec(config.environment),
                    num_segments=num_segments,
                ),
            ],
        )
    finally:
        stop_vec_env(env)
    policy_of(model).save(run.path / POLICY_NAME)


def _learn_population(
    config: SearchConfig, data: SearchData, log: LearningLog, run: RunFolder
) -> None:
    del run
    plan, size = plan_of(config), config.agent.episodes_per_rollout
    env = _environments(config, data)
    try:
        for number in range(len(log.episodes) // size, plan.num_rollouts):
            infos = train_population(
                env,
                size=size,
                num_segments=config.environment.num_segments,
                seed=config.seed,
                number=number,
            )
            for info in infos:
                gain = info["potential"] - _potential(config, data).at_chance
                log.add(Episode.from_info(info, number=len(log.episodes), total_reward=gain))
            log.save()
    finally:
        stop_vec_env(env)


def _ask_and_tell(config: SearchConfig, data: SearchData, log: LearningLog, run: RunFolder) -> None:
    del run
    plan, size = plan_of(config), config.agent.episodes_per_rollout
    searcher = _searcher(config)
    for first in range(0, len(log.episodes), size):
        _tell(searcher, log.episodes[first : first + size])
    with TrainingPool(config.task, config.compute, with_test=False) as pool:
        while len(log.episodes) < plan.total_episodes:
            jobs = [
                TrainingJob(
                    schedule=schedule,
                    seed=derived_seed(config.seed, Stream.EPISODE, step=len(log.episodes) + index),
                    splits=("reward",),
                )
                for index, schedule in enumerate(searcher.ask(size))
            ]
            for job, outcome in zip(jobs, pool.run(jobs), strict=True):
                log.add(_episode(config, data, job, outcome, number=len(log.episodes)))
            searcher.tell(
                [job.schedule for job in jobs],
                [episode.potential for episode in log.episodes[-size:]],
            )
            log.save()


def _tell(searcher: Searcher, episodes: Sequence[Episode]) -> None:
    """Ask again what was asked, and tell what came of it."""
    schedules = searcher.ask(len(episodes))
    searcher.tell(schedules, [episode.potential for episode in episodes])


def _searcher(config: SearchConfig) -> Searcher:
    make = TreeParzenSearch if config.searcher == "tpe" else RandomSearch
    return make(
        ActionCodec(config.environment).decisions(),
        num_segments=config.environment.num_segments,
        seed=config.seed,
    )


def _episode(
    config: SearchConfig,
    data: SearchData,
    job: TrainingJob,
    outcome: TrainingOutcome,
    *,
    number: int,
) -> Episode:
    scale = _potential(config, data)
    chance = scale.at_chance
    potential = chance if outcome.diverged else scale.of(outcome.metrics["reward"])
    return Episode(
        number=number,
        schedule=job.schedule,
        total_reward=potential - chance,
        potential=potential,
        training_seed=job.seed,
        seconds=outcome.seconds,
    )


def _potential(config: SearchConfig, data: SearchData) -> Potential:
    """Return the potential; gains count from that at chance, about that of a fresh classifier."""
    return Potential(
        config.environment.reward_weights,
        num_classes=data.num_classes,
        num_segments=config.environment.num_segments,
    )


_LEARNERS: Mapping[str, Callable[[SearchConfig, SearchData, LearningLog, RunFolder], None]] = (
    MappingProxyType({"ppo": _learn_ppo, "pbt": _learn_population})
)


def _proposals(
    config: SearchConfig, data: SearchData, episodes: Sequence[Episode], run: RunFolder
) -> Proposals:
    best_first = [
        (f"episode {episode.number}", episode.schedule)
        for episode in sorted(episodes, key=lambda episode: -episode.potential)
    ]
    if config.searcher == "ppo":
        return [*_greedy(config, data, run), *_additive_fit(config, episodes), *best_first]
    if config.searcher == "additive":
        return [*_additive_fit(config, episodes), *best_first]
    return best_first


def _greedy(config: SearchConfig, data: SearchData, run: RunFolder) -> Proposals:
    policy = LearnedPolicy.load(run.path / POLICY_NAME)
    env = MixingEnv(config.task, config.environment, data=data, seed=config.seed)
    seeds = [derived_seed(config.seed, Stream.GREEDY, step=index) for index in range(NUM_GREEDY)]
    episodes = [roll_out(policy, env, training_seed=seed)[0] for seed in seeds]
    count = config.environment.num_segments
    usual = majority_schedule([episode.decisions(count) for episode in episodes])
    return [("greedy", usual), *((f"greedy {i}", episode) for i, episode in enumerate(episodes))]


def _additive_fit(config: SearchConfig, episodes: Sequence[Episode]) -> Proposals:
    if len(episodes) < FEWEST_EPISODES:
        return []
    fit = fit_episodes(
        episodes,
        ActionCodec(config.environment).decisions(),
        num_segments=config.environment.num_segments,
    )
    return [("additive fit", fit.best_schedule())]


def _environments(config: SearchConfig, data: SearchData) -> VecEnv:
    count, kind = config.agent.num_environments, config.agent.workers
    if kind == "auto":
        kind, reason = choose_kind(count)
        _LOG.info("environments: %s (%s)", kind, reason)
    return make_vec_env(
        config.task,
        config.environment,
        num_envs=count,
        kind=kind,
        seed=config.seed,
        data=None if kind == "subprocess" else data,
    )
