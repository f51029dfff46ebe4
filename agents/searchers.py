"""Searchers that propose whole schedules and learn only from how trainings end.

They are what an agent must beat with the same number of trainings. All ask and tell: the same
answers to the same questions give the same proposals, whenever they are asked, so that a search
is continued by telling a fresh searcher what is known.
"""

from collections.abc import Sequence
from typing import Protocol

from automix.errors import ConfigError
from automix.random_streams import Stream, derived_seed
from automix.schedule import Decision, Schedule
from automix.schedule_builders import even_schedule, random_schedule


class Searcher(Protocol):
    """Proposes schedules and is told what came of them."""

    def ask(self, count: int) -> list[Schedule]:
        """Return ``count`` schedules to train with next."""
        ...

    def tell(self, schedules: Sequence[Schedule], values: Sequence[float]) -> None:
        """Take in what came of the schedules asked for last; higher is better."""
        ...


class RandomSearch:
    """Random schedules, whatever comes of them."""

    def __init__(self, choices: Sequence[Decision], *, num_segments: int, seed: int) -> None:
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
        """Forget it."""


class TreeParzenSearch:
    """Optuna's tree-structured Parzen estimator, one categorical variable per segment."""

    def __init__(self, choices: Sequence[Decision], *, num_segments: int, seed: int) -> None:
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
        sampler = optuna.samplers.TPESampler(
            seed=derived_seed(seed, Stream.POLICY) % 2**32, multivariate=True, constant_liar=True
        )
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
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

    @property
    def _indices(self) -> list[int]:
        return list(range(len(self._choices)))
