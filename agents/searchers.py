"""Searchers other than PPO: random search, population-based training, TPE."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from automix.errors import ConfigError
from automix.random_streams import Stream, derived_seed
from automix.schedule import Mixing, Schedule, even_schedule, random_schedule
from envs.actions import Action
from envs.mixing_env import EnvState, fresh_run


class Searcher(Protocol):
    """Proposes schedules and is told their outcomes.

    Which schedules come next depends on the number of calls alone, or on what was told: a search
    that resumes asks and tells again what it has on record.
    """

    def ask(self, count: int) -> list[Schedule]:
        """Return ``count`` schedules to train with next."""
        ...

    def tell(self, schedules: Sequence[Schedule], values: Sequence[float]) -> None:
        """Take in the values of the schedules that `ask` returned last; higher is better."""
        ...


class RandomSearch:
    """Random schedules, whatever their values."""

    def __init__(self, choices: Sequence[Mixing], *, num_segments: int, seed: int) -> None:
        """Draw each segment's decision uniformly from ``choices``."""
        self._choices = tuple(choices)
        self._num_segments = num_segments
        self._seed = seed
        self._count = 0

    def ask(self, count: int) -> list[Schedule]:
        """Return ``count`` random schedules."""
        first, self._count = self._count, self._count + count
        return [
            random_schedule(
                self._choices,
                num_segments=self._num_segments,
                seed=derived_seed(self._seed, Stream.POLICY, step=index),
            )
            for index in range(first, self._count)
        ]

    def tell(self, schedules: Sequence[Schedule], values: Sequence[float]) -> None:
        """Ignore it."""


class TreeParzenSearch:
    """Optuna's tree-structured Parzen estimator, one categorical variable per segment."""

    def __init__(self, choices: Sequence[Mixing], *, num_segments: int, seed: int) -> None:
        """Start a study in memory.

        Raises:
            ConfigError: Optuna is not installed.
        """
        try:
            import optuna  # noqa: PLC0415 - an extra
        except ImportError:
            raise ConfigError(
                "searcher: expected an installed Optuna for tpe, got none; "
                "pip install 'automix[optuna]'"
            ) from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._choices = tuple(choices)
        self._num_segments = num_segments
        # multivariate: segments depend on each other. constant_liar: trials of one batch differ,
        # because pending ones count as bad.
        sampler = optuna.samplers.TPESampler(
            seed=derived_seed(seed, Stream.POLICY) % 2**32, multivariate=True, constant_liar=True
        )
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._indices = list(range(len(self._choices)))
        self._numbers: list[int] = []

    def ask(self, count: int) -> list[Schedule]:
        """Return the schedules of ``count`` new trials."""
        trials = [self._study.ask() for _ in range(count)]
        schedules = [
            even_schedule(
                [
                    self._choices[trial.suggest_categorical(f"segment {segment}", self._indices)]
                    for segment in range(self._num_segments)
                ]
            )
            for trial in trials
        ]
        self._numbers = [trial.number for trial in trials]
        return schedules

    def tell(self, schedules: Sequence[Schedule], values: Sequence[float]) -> None:
        """Finish the trials asked for last."""
        del schedules
        for number, value in zip(self._numbers, values, strict=True):
            self._study.tell(number, value)


# Population-based training (https://arxiv.org/abs/1711.09846) as in Population Based Augmentation
# (https://arxiv.org/abs/1905.05393): the worse quarter copies the better one, weights included, and
# explores from there. The lineage of the best member is a schedule.
_QUARTER = 4
# A copied hyperparameter is drawn anew with this probability and moved by one step otherwise.
_RESAMPLED = 0.25


@dataclass(slots=True)
class _Member:
    """A training run in progress: the state of its environment before the next segment."""

    state: EnvState
    # Repeated until the member copies another.
    action: Action
    # After the last segment; -inf if it diverged.
    potential: float = -math.inf


def train_population(
    env: VecEnv, *, size: int, num_segments: int, seed: int, number: int
) -> list[dict[str, Any]]:
    """Train one population to its end; return the final ``info`` of each member, in order.

    ``size`` is a multiple of the number of environments; ``seed`` and the ``number`` of the
    population name all draws.
    """
    generator = np.random.default_rng(derived_seed(seed, Stream.POLICY, step=number))
    sizes = env.action_space.nvec  # type: ignore[attr-defined]  # MultiDiscrete
    members = []
    for index in range(size):
        training_seed = derived_seed(seed, Stream.EPISODE, rank=index, step=number)
        state = EnvState(
            **fresh_run(training_seed),
            seed=training_seed,
            episode=0,
            start_segment=0,
            explores=False,
            is_over=False,
            is_start=True,
            kept=[],
        )
        members.append(_Member(state=state, action=generator.integers(sizes)))
    infos: list[dict[str, Any]] = []
    for segment in range(num_segments):
        # Members are compared at the same step of training, never before the first one.
        if segment:
            _exploit_and_explore(members, sizes, generator)
        infos = _train_segment(env, members)
        for member, info in zip(members, infos, strict=True):
            member.potential = -math.inf if info["diverged"] else info["potential"]
        # Nobody is left to copy.
        if all(member.potential == -math.inf for member in members):
            break
    return infos


def _train_segment(env: VecEnv, members: Sequence[_Member]) -> list[dict[str, Any]]:
    infos: list[dict[str, Any]] = []
    # In waves: the state of a member is put into an environment, and taken out after the segment.
    for first in range(0, len(members), env.num_envs):
        wave = members[first : first + env.num_envs]
        for index, member in enumerate(wave):
            env.env_method("set_state", member.state, indices=index)
        _, _, _, ended = env.step(np.stack([member.action for member in wave]))
        states = env.env_method("get_state")
        for member, state in zip(wave, states, strict=True):
            member.state = state
        infos += ended
    return infos


def _exploit_and_explore(
    members: Sequence[_Member], sizes: Action, generator: np.random.Generator
) -> None:
    order = sorted(range(len(members)), key=lambda index: -members[index].potential)
    count = max(1, len(members) // _QUARTER)
    strong = [index for index in order[:count] if members[index].potential > -math.inf]
    weak = {*order[-count:], *(i for i in order if members[i].potential == -math.inf)}
    for index in sorted(weak - set(strong)):
        source = members[strong[int(generator.integers(len(strong)))]]
        members[index].state = source.state
        members[index].action = _explore(source.action, sizes, generator)


def _explore(action: Action, sizes: Action, generator: np.random.Generator) -> Action:
    """Return ``action`` with one part drawn anew or moved by one step."""
    changed = action.copy()
    part = int(generator.integers(len(sizes)))
    if generator.random() < _RESAMPLED:
        changed[part] = generator.integers(sizes[part])
    else:
        step = 1 if generator.random() < 0.5 else -1
        changed[part] = np.clip(changed[part] + step, 0, sizes[part] - 1)
    return changed
