"""Pretraining: random schedules in every task, PPO over all of them, tasks that it has not seen."""

import contextlib
import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv

from agents.credit import teachers
from agents.input_scale import ScaledInputs
from agents.learned import LearnedPolicy
from agents.outcomes import OUTCOME_FILES, OutcomeTable, TaskRow
from agents.ppo import (
    Episode,
    EpisodeRecorder,
    ForwardLogs,
    RolloutCheckpoint,
    plan_learning,
    train_ppo,
)
from automix.experiments.common.cost import CostEstimate
from automix.experiments.common.kept_files import keep
from automix.experiments.common.run_folder import ProgressBar, RunFolder
from automix.experiments.common.run_logs import Journal
from automix.experiments.config import PretrainConfig
from automix.experiments.pretrain.rounds import Actor, random_actor, schedule_actor, train_round
from automix.experiments.pretrain.validation import Validation, validate
from automix.experiments.replay.deciders import ENVIRONMENT_NAME, POLICY_NAME
from automix.experiments.search.learning import POLICY_PATHS, LearningLog
from automix.schedule import Decision, Schedule, constant_schedule
from envs.actions import ActionCodec
from envs.family import (
    DrawnTask,
    FamilyPlan,
    Standing,
    TaskGroup,
    Visits,
    data_of,
    draw_task,
    make_family_env,
    ordered_visits,
    shuffled_visits,
)
from envs.observations import TaskFacts
from envs.vector import stop_vec_env

# Tasks of which a segment is timed for `--dry-run`.
_TIMED_TASKS = 4


def pretrain(config: PretrainConfig, output: Path) -> dict[str, Any]:
    """Pretrain in ``output``, resume it there, or return its result if it is finished.

    Raises:
        AutoMixError: the configuration, a source or the folder do not fit.
    """
    plan_learning(config.agent, num_segments=config.environment.num_segments)
    tasks = _drawn_tasks(config)
    torch.set_num_threads(config.compute.threads)
    with RunFolder(output, config) as run:
        if (finished := run.result()) is not None:
            return finished
        return _Pretraining(config, tasks, run).whole()


def _drawn_tasks(config: PretrainConfig) -> list[DrawnTask]:
    """Return all tasks, those of the validation last; whatever is wrong with them is said here."""
    count = config.family.num_tasks + config.validation_tasks
    tasks = [draw_task(config.family, number, seed=config.seed) for number in range(count)]
    for task in tasks:
        images = data_of(config.family, task, seed=config.seed)
        config.environment.check_length(task.task.trainer.total_steps(len(images.train)))
    return tasks


def predict_cost(config: PretrainConfig) -> CostEstimate:
    """Return what `pretrain` will cost, measured on a segment of some tasks; nothing is written."""
    tasks = _drawn_tasks(config)
    torch.set_num_threads(config.compute.threads)
    timed = tasks[:_TIMED_TASKS]
    visits = np.array([[task.number for task in timed]])
    seconds = 0.0
    for group in range(len(timed)):
        environments = TaskGroup(_family_plan(config, visits), group)
        sizes = environments.action_space.nvec  # type: ignore[attr-defined]  # MultiDiscrete
        actions = np.zeros((config.group_size, len(sizes)), dtype=np.int64)
        # The first segment builds the population.
        environments.step(actions)
        started = time.perf_counter()
        environments.step(actions)
        seconds += time.perf_counter() - started
    per_run = seconds * config.environment.num_segments / len(timed) / config.group_size
    plan = plan_learning(config.agent, num_segments=config.environment.num_segments)
    count = config.family.num_tasks * config.random_runs + plan.total_episodes
    count += config.validation_tasks * (config.random_runs + 3 * config.group_size)
    groups = config.agent.num_environments // config.group_size
    return CostEstimate(
        num_runs=count,
        seconds_per_run=per_run,
        seconds=count * per_run / min(config.compute.workers, groups),
        steps_per_run=max(
            task.task.trainer.total_steps(len(task.classes) * task.labels_per_class)
            for task in tasks
        ),
    )


def _family_plan(
    config: PretrainConfig, visits: Visits, standings: tuple[Standing, ...] = ()
) -> FamilyPlan:
    return FamilyPlan(
        family=config.family,
        environment=config.environment,
        visits=visits,
        group_size=config.group_size,
        seed=config.seed,
        standings=standings,
    )


class _Pretraining:
    """The stages of pretraining in their folder; each of them resumes from what it has kept."""

    def __init__(self, config: PretrainConfig, tasks: Sequence[DrawnTask], run: RunFolder) -> None:
        self.config, self.tasks, self.run = config, tasks, run
        self.num_groups = config.agent.num_environments // config.group_size
        self.learned_tasks = range(config.family.num_tasks)

    def whole(self) -> dict[str, Any]:
        """Run all stages; what is finished is not repeated."""
        random_runs = self._random_runs(self.learned_tasks, "random")
        standings = _standings(random_runs)
        race = [
            replace(episode, potential=standings[number].of(episode.potential))
            for number, episodes in random_runs.items()
            for episode in episodes
        ]
        log = self._learn(race, tuple(standings.values()))
        self._keep_environment()
        self._outcomes(random_runs, standings, log.episodes).save(self.run.path)
        validation = self._validate()
        return self.run.finish(
            {
                "kind": "pretraining",
                "tasks": [_described(task) for task in self.tasks],
                "validation": validation.to_plain(),
                "cost": {
                    "trainings": len(race) + len(log.episodes) + validation.num_runs,
                    "trainings_of_the_policy": len(race) + len(log.episodes),
                    "seconds_of_learning": log.seconds,
                },
            },
            outputs=(*POLICY_PATHS, *OUTCOME_FILES),
        )

    def _random_runs(self, numbers: Sequence[int], name: str) -> dict[int, list[Episode]]:
        """Return training runs with random schedules by task; potentials are as measured."""
        visits = ordered_visits(
            numbers,
            repeats=self.config.random_runs // self.config.group_size,
            groups=self.num_groups,
        )
        runs: dict[int, list[Episode]] = {number: [] for number in numbers}
        for position, episodes in enumerate(self._rounds(visits, name)):
            for index, episode in enumerate(episodes):
                number = int(visits[position, index // self.config.group_size])
                if len(runs[number]) < self.config.random_runs:
                    runs[number].append(episode)
        return runs

    def _rounds(
        self, visits: Visits, name: str, actor: Actor | None = None
    ) -> Iterator[list[Episode]]:
        """Yield the training runs of each position, random ones without an actor."""
        config = self.config
        journal = Journal(self.run.path / f"{name}.jsonl")
        num_envs = config.agent.num_environments
        with (
            ProgressBar(name, len(visits) * num_envs) as bar,
            contextlib.ExitStack() as stack,
        ):
            env: VecEnv | None = None
            for position in range(len(visits)):
                kept = journal.get(str(position))
                if kept is None:
                    # Only where something is left to train: workers load the data.
                    env = env or stack.enter_context(self._environments(visits))
                    episodes = train_round(
                        env,
                        position,
                        actor
                        or random_actor(
                            config.environment,
                            num_envs=num_envs,
                            seed=config.seed,
                            position=position,
                        ),
                        num_segments=config.environment.num_segments,
                    )
                    journal.add(str(position), {"runs": [one.to_dict() for one in episodes]})
                    bar.advance(num_envs)
                else:
                    episodes = [Episode.from_dict(values) for values in kept["runs"]]
                    bar.skip(num_envs)
                yield episodes

    @contextlib.contextmanager
    def _environments(
        self, visits: Visits, standings: tuple[Standing, ...] = ()
    ) -> Iterator[VecEnv]:
        env = make_family_env(_family_plan(self.config, visits, standings), self.config.compute)
        try:
            yield env
        finally:
            stop_vec_env(env)

    @functools.cached_property
    def _visits(self) -> Visits:
        """Return which tasks PPO learns from in which rollout."""
        plan = plan_learning(self.config.agent, num_segments=self.config.environment.num_segments)
        return shuffled_visits(
            self.config.family.num_tasks,
            positions=plan.num_rollouts,
            groups=self.num_groups,
            seed=self.config.seed,
        )

    def _learn(self, race: Sequence[Episode], standings: tuple[Standing, ...]) -> LearningLog:
        config, run = self.config, self.run
        log = LearningLog(run)
        if log.is_learned:
            log.restore_policy()
            return log
        agent, num_segments = config.agent, config.environment.num_segments
        callbacks = [
            ForwardLogs(lambda values, step: run.log(step, values | log.progress(step))),
            RolloutCheckpoint(log.save),
            EpisodeRecorder(
                log.episodes,
                on_episode=lambda episode: self._log_episode(log, episode),
                episodes_per_rollout=agent.episodes_per_rollout,
                patience=agent.patience,
            ),
            ScaledInputs(race),
            *teachers(agent, log.episodes, config.environment, race=race),
        ]
        total = plan_learning(agent, num_segments=num_segments).total_episodes
        with log.shown(total=total), self._environments(self._visits, standings) as env:
            model = train_ppo(
                env,
                agent,
                num_segments=num_segments,
                seed=config.seed,
                state=log.agent,
                callbacks=callbacks,
            )
        log.finish(LearnedPolicy(model.policy))
        return log

    def _log_episode(self, log: LearningLog, episode: Episode) -> None:
        log.on_episode(episode)
        source = self.tasks[self._task_of(episode)].source
        self.run.log(episode.number, {f"source/{source}": episode.potential})

    def _task_of(self, episode: Episode) -> int:
        """Return the number of the task that an episode of PPO was trained in."""
        # All runs of a rollout end together, in the order of the environments.
        position, index = divmod(episode.number, self.config.agent.num_environments)
        return int(self._visits[position, index // self.config.group_size])

    def _keep_environment(self) -> None:
        environment = self.config.environment.to_yaml().encode()
        keep(self.run.path, f"{POLICY_NAME}/{ENVIRONMENT_NAME}", environment, again=True)

    def _outcomes(
        self,
        random_runs: dict[int, list[Episode]],
        standings: dict[int, Standing],
        learned: Sequence[Episode],
    ) -> OutcomeTable:
        """Return the outcomes of all training runs that the policy learned from."""
        config = self.config
        table = OutcomeTable(ActionCodec(config.environment).choices(), config.environment.starts)
        for number in self.learned_tasks:
            drawn = self.tasks[number]
            images = data_of(config.family, drawn, seed=config.seed)
            standing = standings[number]
            table.add_task(
                TaskRow.of(
                    drawn.source,
                    TaskFacts.of(drawn.task, images),
                    mean=standing.mean,
                    deviation=standing.deviation,
                )
            )
            for episode in random_runs[number]:
                table.add(number, episode.schedule, standing.of(episode.potential))
        for episode in learned:
            table.add(self._task_of(episode), episode.schedule, episode.potential)
        return table

    def _validate(self) -> Validation:
        """Let the policy decide in tasks that nothing was learned from, beside simple rivals."""
        config = self.config
        first = config.family.num_tasks
        numbers = range(first, first + config.validation_tasks)
        if not numbers:
            return validate({}, {}, seed=config.seed)
        standings = _standings(self._random_runs(numbers, "validation-random"))
        visits = ordered_visits(numbers, repeats=1, groups=self.num_groups)
        policy = LearnedPolicy.load(self.run.path / POLICY_NAME)
        num_envs = config.agent.num_environments
        none = constant_schedule(Decision(operator="none"))
        actors: dict[str, Actor] = {
            "policy": lambda observations, _: policy.act(observations),
            "none": schedule_actor(config.environment, none, num_envs=num_envs),
        }
        with contextlib.suppress(ValueError):
            # The actions of a family may lack its operators.
            actors["recommended"] = schedule_actor(
                config.environment, Schedule.recommended(), num_envs=num_envs
            )
        runs = {
            name: [
                [episode.potential for episode in episodes]
                for episodes in self._rounds(visits, f"validation-{name}", actor)
            ]
            for name, actor in actors.items()
        }
        # (tasks, runs) potentials; the last row of the visits may repeat a task.
        by_task = {
            name: np.reshape(np.concatenate(rows), (-1, config.group_size))[: len(numbers)]
            for name, rows in runs.items()
        }
        return validate(by_task, standings, seed=config.seed)


def _standings(runs: dict[int, list[Episode]]) -> dict[int, Standing]:
    """Return mean and deviation of the potentials of random schedules by task."""
    potentials = {number: [one.potential for one in episodes] for number, episodes in runs.items()}
    return {
        number: Standing(
            mean=float(np.mean(values)), deviation=float(np.std(values, ddof=1)) + 1e-8
        )
        for number, values in potentials.items()
    }


def _described(drawn: DrawnTask) -> dict[str, Any]:
    model, trainer = drawn.task.model, drawn.task.trainer
    return {
        "number": drawn.number,
        "source": drawn.source,
        "classes": list(drawn.classes),
        "labels_per_class": drawn.labels_per_class,
        "image_size": drawn.task.data.image_size,
        "model": model.name if model.width is None else f"{model.name}:{model.width}",
        "epochs": trainer.epochs,
        "batch_size": trainer.batch_size,
        "learning_rate": trainer.learning_rate,
        "crop_padding": drawn.task.data.augment.crop_padding,
    }
