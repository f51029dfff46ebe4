"""Environments that go from task to task of a family, several tasks side by side.

The vector consists of groups. A group trains the runs of one task at once, as one population, and
then those of its next task. Which task comes when is a table that the caller gives.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from automix.configuration.data import AugmentConfig
from automix.configuration.task import ComputeConfig, SaliencyConfig, TaskConfig
from automix.configuration.trainer import TrainerConfig
from automix.data.splits import SearchData
from automix.data.subsets import subset_of_classes
from automix.errors import DataError
from automix.operator_info import SaliencyKind
from automix.random_streams import Stream, derived_seed, stream_generator
from automix.training.distributed import prepare_worker
from automix.training.population import Population
from automix.training.trainer import load_search_data
from envs.actions import Action
from envs.config import EnvironmentConfig
from envs.family_config import FamilyConfig, model_of
from envs.mixing_env import MixingEnv, Transition
from envs.observations import Observation
from envs.vector import ChosenKind, JoinedVecEnv, LocalPart, train_segment, workers_env

Visits = NDArray[np.int64]
"""(positions, groups) numbers of tasks: which task each group trains at each position."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnTask:
    """A task of a family, as it was drawn."""

    number: int
    source: str
    classes: tuple[int, ...]
    labels_per_class: int
    # Its data section says where the images come from: all classes, all labels.
    task: TaskConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Mean and standard deviation of the potential that random schedules reach in a task."""

    mean: float = 0.0
    deviation: float = 1.0

    def of(self, potential: float) -> float:
        """Return how many deviations a potential is above the mean."""
        return (potential - self.mean) / self.deviation


@functools.lru_cache(maxsize=16)
def _whole_data(config: FamilyConfig, source: str, image_size: int) -> SearchData:
    """Return all images of a source, loaded once per process."""
    return load_search_data(config.data_of(source, image_size=image_size))


def draw_task(config: FamilyConfig, number: int, *, seed: int) -> DrawnTask:
    """Return task ``number`` of a family; the same whatever else is drawn.

    Raises:
        DataError: a source has fewer classes than the family asks for.
    """
    # One stream of draws per task, in the order of the fields below.
    generator = np.random.default_rng(derived_seed(seed, Stream.TASK, step=number))
    source = str(generator.choice(config.source_names))
    image_size = int(generator.choice(config.image_size))
    data = _whole_data(config, source, image_size)
    low, high = config.num_classes
    if data.num_classes < low:
        raise DataError(
            f"family.num_classes: expected at most the {data.num_classes} classes of {source!r}, "
            f"got {low}"
        )
    num_classes = _log_uniform((low, min(high, data.num_classes)), generator)
    classes = generator.permutation(data.num_classes)[:num_classes]
    most = int(torch.bincount(data.train.labels).min())
    least, many = config.labels_per_class
    labels = _log_uniform((min(least, most), min(many, most)), generator)
    model = model_of(str(generator.choice(config.models)))
    steps = _log_uniform(config.steps, generator)
    batch_size = min(_log_uniform(config.batch_size, generator), num_classes * labels)
    low_rate, high_rate = np.log(config.learning_rate)
    trainer = TrainerConfig(
        epochs=max(1, round(steps / (num_classes * labels // batch_size))),
        batch_size=batch_size,
        learning_rate=float(f"{math.exp(generator.uniform(low_rate, high_rate)):.3g}"),
        channels_last=True,
    )
    augment = AugmentConfig(
        crop_padding=int(generator.choice(config.crop_padding)),
        horizontal_flip=source in config.flipped,
    )
    images = config.data_of(source, image_size=image_size)
    return DrawnTask(
        number=number,
        source=source,
        classes=tuple(map(int, classes)),
        labels_per_class=labels,
        task=TaskConfig(
            data=images.model_copy(update={"augment": augment}),
            model=model,
            trainer=trainer,
            # From the image alone: the same for every network, and almost free.
            saliency=SaliencyConfig(source=SaliencyKind.SPECTRAL_RESIDUAL),
        ),
    )


def _log_uniform(pair: tuple[int, int], generator: np.random.Generator) -> int:
    """Return a whole number, uniform on a logarithmic scale, both ends included."""
    low, high = pair
    # The ends as likely as the others: each number n stands for [n, n + 1).
    value = math.exp(generator.uniform(math.log(low), math.log(high + 1)))
    return min(high, int(value))


def data_of(config: FamilyConfig, drawn: DrawnTask, *, seed: int) -> SearchData:
    """Return the images of a drawn task."""
    image_size = drawn.task.data.image_size
    size = config.image_size[0] if image_size is None else image_size
    assert isinstance(size, int)
    whole = _whole_data(config, drawn.source, size)
    generator = stream_generator(seed, Stream.TASK, rank=1, step=drawn.number)
    return subset_of_classes(
        whole, drawn.classes, labels_per_class=drawn.labels_per_class, generator=generator
    )


class FamilyEnv(MixingEnv):
    """The environment of one task of a family, with rewards in units of that task.

    The rewards of an episode, and what the reset says was gained before, sum to the number of
    deviations by which the run ends above random schedules: so returns of easy and hard tasks are
    on one scale.
    """

    _ends_at_divergence = False

    def __init__(
        self,
        task: TaskConfig,
        config: EnvironmentConfig,
        *,
        data: SearchData,
        seed: int,
        standing: Standing,
    ) -> None:
        super().__init__(task, config, data=data, seed=seed)
        self._standing = standing

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start a new training run."""
        observation, info = super().reset(seed=seed, options=options)
        start = self._potential_of(self._readings[-1])
        return observation, info | {"gain_so_far": self._standing.of(start)}

    def step(self, action: Action, *, outcome: Any = None) -> Transition:
        """Train one segment, see `MixingEnv.step`."""
        observation, reward, terminated, truncated, info = super().step(action, outcome=outcome)
        info["potential"] = self._standing.of(info["potential"])
        return observation, reward / self._standing.deviation, terminated, truncated, info


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyPlan:
    """Order and settings of what the environments of a family train.

    Attributes:
        family: ranges of the tasks.
        environment: of every task.
        visits: which task each group trains at each position.
        group_size: training runs of a group.
        seed: of tasks and training runs.
        standings: of the tasks by number; without, potentials are as measured.
    """

    family: FamilyConfig
    environment: EnvironmentConfig
    visits: Visits
    group_size: int
    seed: int
    standings: tuple[Standing, ...] = ()

    def standing_of(self, number: int) -> Standing:
        """Return the standing of a task."""
        return self.standings[number] if self.standings else Standing()


class TaskGroup(VecEnv):
    """One group: the runs of one task, trained at once, then those of the next."""

    def __init__(self, plan: FamilyPlan, group: int) -> None:
        """Build the environments of the first task."""
        self._plan, self._group = plan, group
        self._envs: list[FamilyEnv] = []
        self._population: Population | None = None
        self._position = -1
        self._observations = self._go_to(0)
        self._actions: Sequence[Any] = ()
        first = self._envs[0]
        super().__init__(plan.group_size, first.observation_space, first.action_space)
        self.reset_infos = self._infos

    def _go_to(self, position: int) -> NDArray[np.float32]:
        """Start the runs of the task at a position; after the last one, of that one again."""
        plan = self._plan
        row = min(position, len(plan.visits) - 1)
        number = int(plan.visits[row, self._group])
        drawn = draw_task(plan.family, number, seed=plan.seed)
        data = data_of(plan.family, drawn, seed=plan.seed)
        first = self._group * plan.group_size
        self._envs = [
            FamilyEnv(
                drawn.task,
                plan.environment,
                data=data,
                seed=derived_seed(plan.seed, Stream.EPISODE, rank=first + index, step=position),
                standing=plan.standing_of(number),
            )
            for index in range(plan.group_size)
        ]
        started = [env.reset() for env in self._envs]
        self._population = None
        self._position = position
        self._is_start = True
        self._infos = [info for _, info in started]
        return np.stack([observation for observation, _ in started])

    def reset(self) -> NDArray[np.float32]:
        """Start with the first position."""
        if self._position or not self._is_start:
            self._observations = self._go_to(0)
        self.reset_infos = self._infos
        return self._observations.copy()

    def step_async(self, actions: Any) -> None:
        """Keep the actions of the next segment."""
        self._actions = list(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Train the next segment of every run; at their end, start those of the next task."""
        if self._population is None:
            self._population = Population([env.trainer for env in self._envs])
        self._is_start = False
        observations, rewards, dones, _, infos = zip(
            *train_segment(self._envs, self._population, self._actions), strict=True
        )
        self._observations = np.stack(observations)
        if all(dones):
            for info, observation in zip(infos, observations, strict=True):
                info["terminal_observation"] = observation
                info["TimeLimit.truncated"] = False
            self._observations = self._go_to(self._position + 1)
            self.reset_infos = self._infos
        return (
            self._observations.copy(),
            np.array(rewards, dtype=np.float32),
            np.array(dones),
            list(infos),
        )

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **_: Any
    ) -> list[Any]:
        """Call `get_state` or `set_state`, which know positions between two tasks alone."""
        methods: dict[str, Callable[..., Any]] = {
            "get_state": self._get_state,
            "set_state": self._set_state,
        }
        method = methods[method_name]
        return [method(index, *method_args) for index in self._get_indices(indices)]

    def _get_state(self, index: int) -> dict[str, Any]:
        # In the middle of a training run, for a worker that takes the place of a lost one.
        run = {} if self._is_start else {"run": self._envs[index].get_state()}
        return {"position": self._position, "is_start": self._is_start} | run

    def _set_state(self, index: int, state: dict[str, Any]) -> NDArray[np.float32]:
        if self._position != state["position"] or (state["is_start"] and not self._is_start):
            self._observations = self._go_to(state["position"])
            self.reset_infos = self._infos
        if "run" in state:
            self._is_start = False
            self._observations[index] = self._envs[index].set_state(state["run"])
        row: NDArray[np.float32] = self._observations[index]
        return row

    def close(self) -> None:
        """Hold nothing that would have to be closed."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of the environments."""
        return [getattr(self._envs[index], attr_name) for index in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Refuse: the environments of the next task would not have it."""
        raise NotImplementedError(f"expected no attribute to be set, got {attr_name}")

    def env_is_wrapped(self, wrapper_class: Any, indices: VecEnvIndices = None) -> list[bool]:
        """Return false: nothing is wrapped."""
        del wrapper_class
        return [False for _ in self._get_indices(indices)]


def make_family_env(plan: FamilyPlan, compute: ComputeConfig) -> VecEnv:
    """Return the environments of a family, in workers unless ``compute.workers`` is 1.

    The result does not depend on the number of workers.
    """
    groups = list(range(plan.visits.shape[1]))
    if compute.workers == 1 or len(groups) == 1:
        return _joined(plan, groups)
    make = functools.partial(_make_in_worker, plan, torch.get_num_threads())
    kind: ChosenKind = "ray" if compute.executor == "ray" else "subprocess"
    return workers_env(make, groups, kind, compute)


def _joined(plan: FamilyPlan, groups: Sequence[int]) -> VecEnv:
    return JoinedVecEnv([LocalPart(TaskGroup(plan, group)) for group in groups])


def _make_in_worker(plan: FamilyPlan, num_threads: int, groups: Sequence[int]) -> VecEnv:
    prepare_worker(num_threads)
    return _joined(plan, groups)


def shuffled_visits(num_tasks: int, *, positions: int, groups: int, seed: int) -> Visits:
    """Return visits in which every task comes equally often, each time round in another order."""
    count = positions * groups
    rounds = [
        np.random.default_rng(derived_seed(seed, Stream.TASK, rank=2, step=number)).permutation(
            num_tasks
        )
        for number in range(-(-count // num_tasks))
    ]
    return np.concatenate(rounds)[:count].reshape(positions, groups)


def ordered_visits(tasks: Sequence[int], *, repeats: int, groups: int) -> Visits:
    """Return visits in which each of the tasks comes ``repeats`` times, one after the other.

    The last row is filled up with the last task.
    """
    numbers = np.repeat(np.array(tasks), repeats)
    rows = -(-len(numbers) // groups)
    rest = np.full(rows * groups - len(numbers), numbers[-1])
    return np.concatenate([numbers, rest]).reshape(rows, groups)
