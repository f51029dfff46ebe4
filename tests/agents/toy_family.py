"""Families of toy tasks whose best schedules are known in closed form.

Each task has a number from 0 to 1, which the loss shows from the start; what a schedule is worth
there differs between tasks by a factor of up to 100, as it does between easy and hard images.
A run is worth the fraction of its batches that the best operator of the task mixed.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from agents.ppo import Episode
from automix.data.splits import Split
from automix.operator_info import Operator
from automix.random_streams import Stream, derived_seed
from automix.schedule import Decision
from automix.training.metrics import EvalMetrics
from automix.training.trainer import ClassifierTrainer
from envs.config import EnvironmentConfig
from envs.family import FamilyEnv, Standing
from tests.agents.toy import ENVIRONMENT, NUM_SEGMENTS, TASK, Toy, ToyTrainer, toy_data

Kind = Literal["task", "state", "both"]
"""What the best operator depends on: the number of the task; whether the seed of the run is odd,
which the accuracy shows; or both."""

_OPERATORS = (Operator.MIXUP, Operator.CUTMIX, Operator.SALIENCY_GRAFTING)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyTask:
    """One task of a family."""

    kind: Kind
    number: float
    # The loss of the best schedule is lower by this than that of no mixing.
    scale: float

    def best(self, *, odd: bool) -> Operator:
        """Return the best operator of a run."""
        third = int(3 * self.number)
        place = {"task": third, "state": int(odd), "both": third + int(odd)}[self.kind]
        return _OPERATORS[place % len(_OPERATORS)]

    @property
    def level(self) -> float:
        """Amount that the loss is higher by, whatever the schedule."""
        return 1.5 * self.number


def draw_tasks(kind: Kind, count: int, *, seed: int) -> list[ToyTask]:
    """Return tasks whose numbers are in the middle of their thirds."""
    generator = np.random.default_rng(derived_seed(seed, Stream.TASK))
    return [
        ToyTask(
            kind=kind,
            number=(index % 3 + generator.uniform(0.2, 0.8)) / 3,
            scale=float(10 ** generator.uniform(-3, -1)),
        )
        for index in range(count)
    ]


class TaskTrainer(ToyTrainer):
    """Trains a toy task."""

    def __init__(self, task: ToyTask, *, seed: int, noise: float) -> None:
        self._task, self._odd = task, seed % 2 == 1
        best = task.best(odd=self._odd)

        def worth(decision: Decision, _: float) -> float:
            return decision.probability if decision.operator is best else 0.0

        super().__init__(Toy(worth=worth, harm=lambda _: 0.0), seed=seed, noise=noise)

    def evaluate(self, split: Split) -> EvalMetrics:
        """Show by the accuracy whether the seed is odd."""
        return dataclasses.replace(super().evaluate(split), accuracy=0.6 if self._odd else 0.4)

    @property
    def _loss(self) -> float:
        # That of the toy is 1 - worth + noise.
        return 1 + self._task.level + self._task.scale * (super()._loss - 1)


class TaskEnv(FamilyEnv):
    """The environment of toy tasks, another one in each episode."""

    def __init__(
        self,
        tasks: Sequence[ToyTask],
        environment: EnvironmentConfig,
        *,
        noise: float,
        first: int,
        sign: float = 1.0,
    ) -> None:
        seed = derived_seed(first, Stream.EPISODE)
        super().__init__(TASK, environment, data=toy_data(), seed=seed, standing=Standing())
        turn = first % len(tasks)
        self._order = itertools.cycle([*tasks[turn:], *tasks[:turn]])
        self._noise, self._sign = noise, sign

    def _restart_training(self, training_seed: int) -> None:
        task = next(self._order)
        trainer = TaskTrainer(task, seed=training_seed, noise=self._noise)
        # A potential of 0 is a run that mixed nothing, one of 1 the best run.
        nothing = -1 - task.level
        self._standing = Standing(mean=nothing, deviation=self._sign * task.scale)
        self._trainer = cast("ClassifierTrainer", trainer)


def toy_family(
    tasks: Sequence[ToyTask],
    environment: EnvironmentConfig = ENVIRONMENT,
    *,
    noise: float,
    num_envs: int,
    seed: int,
    sign: float = 1.0,
) -> VecEnv:
    """Return environments that go through the tasks, each from another one on."""

    def maker(index: int) -> Callable[[], TaskEnv]:
        first = seed * num_envs + index
        return lambda: TaskEnv(list(tasks), environment, noise=noise, first=first, sign=sign)

    return DummyVecEnv([maker(index) for index in range(num_envs)])


def random_episodes(env: VecEnv, *, count: int, seed: int) -> list[Episode]:
    """Return the training runs of random schedules, as pretraining begins with."""
    generator = np.random.default_rng(derived_seed(seed, Stream.POLICY))
    episodes: list[Episode] = []
    while len(episodes) < count:
        observations = env.reset()
        assert isinstance(observations, np.ndarray)
        rows: list[NDArray[np.float32]] = []
        infos: list[dict[str, object]] = []
        for _ in range(NUM_SEGMENTS):
            rows.append(np.asarray(observations))
            sizes = env.action_space.nvec  # type: ignore[attr-defined]  # MultiDiscrete
            actions = generator.integers(sizes, size=(env.num_envs, len(sizes)))
            observations, _, _, infos = env.step(actions)
        for index, info in enumerate(infos):
            seen = [row[index] for row in rows]
            number = len(episodes)
            episodes.append(
                Episode.from_info(info, number=number, total_reward=0.0, observations=seen)
            )
    return episodes
