"""Vectorized environments: groups of them trained at once, in this process or in several."""

import functools
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from automix.configuration.task import ComputeConfig, TaskConfig
from automix.data.load import holding_device
from automix.data.splits import SearchData
from automix.executors.choose import Kind, make_executor, room
from automix.executors.units import Executor, Loss, Unit
from automix.models.pretrained import images_of
from automix.random_streams import Stream, derived_seed
from automix.training.distributed import start_method
from automix.training.population import Population, group_sizes
from automix.training.trainer import load_search_data, training_device
from automix.worker_processes import num_cores
from envs.config import EnvironmentConfig
from envs.mixing_env import MixingEnv, Transition

ChosenKind = Literal["in_process", "subprocess", "ray"]
VecEnvKind = Literal["auto"] | ChosenKind
_LOG = logging.getLogger(__name__)


def make_vec_env(  # noqa: PLR0913 - one more keyword is clearer than a bundle for one caller
    task: TaskConfig,
    config: EnvironmentConfig,
    *,
    num_envs: int,
    kind: VecEnvKind,
    seed: int,
    population: int = 1,
    data: SearchData | None = None,
    compute: ComputeConfig | None = None,
) -> VecEnv:
    """Return ``num_envs`` environments for Stable-Baselines3; number i is seeded by (seed, i).

    Up to ``population`` of them are trained at once as one network, see `Population`. The last bits
    depend on that number, but not on ``kind``, nor on the number of processes, which is at most
    that of the cores. A process that is killed or hangs is replaced, see `ComputeConfig.timeout`,
    and the segment that it was at trained again from its start, with the same bits. They use
    ``data``, or load the splits of ``task``. "auto" is what
    `choose_kind` says, and never "subprocess" where there are ``data``: processes load their own.

    Raises:
        ValueError: there are ``data`` for environments in other processes.
    """
    sizes = group_sizes(num_envs, population)
    if kind == "auto":
        kind, reason = choose_kind(len(sizes))
        if kind == "subprocess" and data is not None:
            kind, reason = "in_process", "splits are given"
        _LOG.info("environments: %d, %s (%s)", num_envs, kind, reason)
    seeds = [derived_seed(seed, Stream.EPISODE, rank=index) for index in range(num_envs)]
    groups = _cut(seeds, sizes)
    if kind != "in_process":
        if data is not None:
            raise ValueError(f"expected data=None with {kind} environments, got splits")
        # Each process maps the data into memory by itself, and computes with as many threads as
        # this one: sums that are split among another number have other bits.
        make = functools.partial(_make_in_worker, task, config, torch.get_num_threads())
        return workers_env(make, groups, kind, compute or ComputeConfig())
    # One copy of the images, where the training runs want them.
    data = data or load_search_data(images_of(task))
    device = holding_device(data.num_bytes, device=training_device(), placement=task.data.placement)
    shared = data if data.train.device == device else data.to(device)
    return _joined_groups(task, config, shared, groups)


def workers_env(
    make: Callable[[Sequence[Any]], VecEnv],
    groups: Sequence[Any],
    kind: ChosenKind,
    compute: ComputeConfig,
) -> VecEnv:
    """Return the environments of groups that ``make`` makes, each in a worker if there is room."""
    executor_kind: Kind = "ray" if kind == "ray" else "processes"
    parts = cut_evenly(groups, -(-len(groups) // room(compute, executor_kind)))
    executor = make_executor(
        [functools.partial(make, part) for part in parts],
        compute,
        kind=executor_kind,
        method=start_method(__name__),
    )
    return JoinedVecEnv([RemotePart(executor, seat) for seat in range(len(parts))])


def choose_kind(num_groups: int) -> tuple[ChosenKind, str]:
    """Return the fastest kind of environments here, and why in a few words."""
    device, cores = training_device(), num_cores()
    groups = f"{num_groups} group{'s' if num_groups > 1 else ''}"
    if num_groups == 1:
        return "in_process", "one group"
    if device.type != "cpu":
        return "in_process", f"{groups} share one {device.type} device"
    if cores > 1:
        return "subprocess", f"{groups}, {cores} cores, no accelerator"
    return "in_process", f"{groups}, one core, no accelerator"


def stop_vec_env(env: VecEnv) -> None:
    """Close environments at once: worker processes in the middle of a training run are ended."""
    base = env.unwrapped
    if isinstance(base, JoinedVecEnv):
        base.stop()
    else:
        env.close()


def _joined_groups(
    task: TaskConfig, config: EnvironmentConfig, data: SearchData, groups: Sequence[Sequence[int]]
) -> VecEnv:
    """Return the environments of groups of seeds, one group after the other in this process."""
    joined = []
    for seeds in groups:
        makers = [
            functools.partial(MixingEnv, task, config, data=data, seed=seed) for seed in seeds
        ]
        joined.append(PopulationVecEnv(makers) if len(seeds) > 1 else DummyVecEnv(makers))  # type: ignore[arg-type]
    return joined[0] if len(joined) == 1 else JoinedVecEnv([LocalPart(env) for env in joined])


def _make_in_worker(
    task: TaskConfig, config: EnvironmentConfig, num_threads: int, groups: Sequence[Sequence[int]]
) -> VecEnv:
    torch.set_num_threads(num_threads)
    return _joined_groups(task, config, load_search_data(images_of(task)), groups)


def cut_evenly(values: Any, largest: int) -> list[Any]:
    """Return consecutive parts of ``values``, of at most this many and as even as they can be."""
    return _cut(values, group_sizes(len(values), largest))


def _cut(values: Any, sizes: Sequence[int]) -> list[Any]:
    """Return consecutive parts of ``values`` of these sizes."""
    ends = itertools.accumulate(sizes)
    return [values[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def train_segment(
    environments: Sequence[MixingEnv], population: Population, actions: Iterable[Any]
) -> Iterator[Transition]:
    """Train and measure the next segment of all environments at once; yield what `step` returns.

    Args:
        environments: in the order of the trainers of ``population``, none of them at its end.
        population: of their trainers.
        actions: one for each environment.
    """
    actions = list(actions)
    plans = [env.plan_segment(action) for env, action in zip(environments, actions, strict=True)]
    trained = population.train(plans)
    readings = environments[0].measurement.readings(
        population,
        train=trained,
        decisions=[decision for decision, _ in plans],
        before=[env.last_reading for env in environments],
    )
    for env, action, outcome in zip(
        environments, actions, zip(trained, readings, strict=True), strict=True
    ):
        yield env.step(action, outcome=outcome)


class PopulationVecEnv(DummyVecEnv):
    """Trains and measures the segments of all environments at once, as one `Population`."""

    def __init__(self, makers: Sequence[Callable[[], MixingEnv]]) -> None:
        super().__init__(list(makers))
        self._population: Population | None = None

    def step_wait(self) -> VecEnvStepReturn:
        """Train the next segment of every environment, and reset those whose episode is over."""
        environments: list[MixingEnv] = [env.unwrapped for env in self.envs]  # type: ignore[misc]
        if self._population is None:
            self._population = Population([env.trainer for env in environments])
        transitions = train_segment(environments, self._population, self.actions)
        for index, (last, reward, terminated, _, info) in enumerate(transitions):
            observation = last
            # As `DummyVecEnv` does: the last observation goes into the info.
            info["TimeLimit.truncated"] = False
            self.buf_rews[index], self.buf_dones[index] = reward, terminated
            if terminated:
                info["terminal_observation"] = last
                observation, self.reset_infos[index] = environments[index].reset()
            self.buf_infos[index] = info
            self._save_obs(index, observation)
        return (
            self._obs_from_buf(),
            np.copy(self.buf_rews),
            np.copy(self.buf_dones),
            # Their values are never changed: `DummyVecEnv` copies deeply, 5 ms for each.
            [info.copy() for info in self.buf_infos],
        )


class JoinedVecEnv(VecEnv):
    """Several vectorized environments as one; those in other processes work side by side."""

    def __init__(self, parts: Sequence["LocalPart | RemotePart"]) -> None:
        """Number the environments of the parts one after the other."""
        self._parts = list(parts)
        spaces = self._call(_describe)
        self._sizes = [size for size, _, _ in spaces]
        self._actions: list[np.ndarray[Any, Any]] = []
        _, observation_space, action_space = spaces[0]
        super().__init__(sum(self._sizes), observation_space, action_space)

    def reset(self) -> Any:
        """Reset every environment, with the seeds and options that were set for the next reset."""
        arguments = zip(self._split(self._seeds), self._split(self._options), strict=True)
        results = self._call(_reset, list(arguments))
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = [info for _, infos in results for info in infos]
        return np.concatenate([observations for observations, _ in results])

    def step_async(self, actions: Any) -> None:
        """Start a step of every environment."""
        for part, part_actions in zip(self._parts, self._split(actions), strict=True):
            part.start(_step, part_actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Return what `step_async` started, once all parts are done."""
        observations, rewards, dones, infos, reset_infos = zip(
            *[part.finish() for part in self._parts], strict=True
        )
        self.reset_infos = [info for part in reset_infos for info in part]
        return (
            np.concatenate(observations),
            np.concatenate(rewards),
            np.concatenate(dones),
            [info for part in infos for info in part],
        )

    def close(self) -> None:
        """Close every part; a step in progress is awaited."""
        for part in self._parts:
            part.close()

    def stop(self) -> None:
        """Close every part without waiting for a step in progress."""
        for part in self._parts:
            part.stop()

    @property
    def lost(self) -> list[Loss]:
        """Workers that were lost so far, and replaced."""
        parts = [part for part in self._parts if isinstance(part, RemotePart)]
        # They are of one executor.
        return parts[0].executor.lost if parts else []

    def get_images(self) -> Sequence[Any]:
        """Return the rendered pictures."""
        return [image for images in self._call(_images) for image in images]

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of the environments."""
        return self._of_each("get_attr", attr_name, indices=indices)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the environments."""
        self._of_each("set_attr", attr_name, value, indices=indices)

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Call a method of the environments."""
        return self._of_each(
            "env_method", method_name, *method_args, indices=indices, **method_kwargs
        )

    def env_is_wrapped(self, wrapper_class: Any, indices: VecEnvIndices = None) -> list[bool]:
        """Return whether each environment is wrapped in ``wrapper_class``."""
        return self._of_each("env_is_wrapped", wrapper_class, indices=indices)

    def set_reset_infos(self, infos: Sequence[dict[str, Any]]) -> None:
        """Set what the last resets told, in the parts as well."""
        self._call(_set_reset_infos, [(part,) for part in self._split(infos)])

    def _of_each(
        self, name: str, *arguments: Any, indices: VecEnvIndices, **named: Any
    ) -> list[Any]:
        """Call a method of the parts with those of ``indices`` that are theirs, in their order."""
        chosen = list(self._get_indices(indices))
        first, started = 0, []
        for part, size in zip(self._parts, self._sizes, strict=True):
            there = [index for index in chosen if first <= index < first + size]
            if there:
                part.start(_method, name, [index - first for index in there], arguments, named)
                started.append((part, there))
            first += size
        values: dict[int, Any] = {}
        for part, there in started:
            values.update(zip(there, part.finish() or [None] * len(there), strict=True))
        return [values[index] for index in chosen]

    def _call(
        self, function: Callable[..., Any], arguments: Sequence[Sequence[Any]] | None = None
    ) -> list[Any]:
        """Return what ``function(environments, *arguments)`` returns of each part."""
        for part, of_part in zip(self._parts, arguments or [()] * len(self._parts), strict=True):
            part.start(function, *of_part)
        return [part.finish() for part in self._parts]

    def _split(self, values: Any) -> list[Any]:
        return _cut(values, self._sizes)


class LocalPart:
    """A part in this process: what is started runs when it is asked for."""

    def __init__(self, env: VecEnv) -> None:
        self._env = env
        self._started: Callable[[], Any] = lambda: None

    def start(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Start ``function(environments, *arguments)``."""
        self._started = functools.partial(function, self._env, *arguments)

    def finish(self) -> Any:
        """Return what the function that was started last returns."""
        return self._started()

    def close(self) -> None:
        """Close the environments."""
        self._env.close()

    stop = close


class RemotePart:
    """A part on a seat of an executor, whose worker may be lost: another resumes from its states.

    States are those between two segments. They come with every answer that changes them, because a
    worker that is lost cannot be asked.
    """

    def __init__(self, executor: Executor, seat: int) -> None:
        self.executor, self._seat = executor, seat
        self._num_calls = 0
        self._last = _Last()

    def start(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Submit ``function(environments, *arguments)``."""
        self._num_calls += 1
        if function is _method and arguments[0] == "set_attr":
            self._last.attributes.append(arguments)
        self.executor.submit(
            Unit(
                name=self._name,
                kind=f"{function.__name__.removeprefix('_')} of environments",
                call=(_answer, (function, arguments)),
                again=(_resumed_answer, (self._last, function, arguments)),
            ),
            seat=self._seat,
        )

    def finish(self) -> Any:
        """Return what the function that was started last returns, and keep the states."""
        value, states, infos = self.executor.outcome(self._name)
        self._last.states |= states
        self._last.reset_infos = infos
        return value

    def close(self) -> None:
        """End the workers of the executor."""
        self.executor.stop()

    stop = close

    @property
    def _name(self) -> str:
        # Not of its content: the same step may be taken twice, in one state and in another.
        return f"environments-{self._seat}-call-{self._num_calls}"


@dataclass(slots=True)
class _Last:
    """State of a worker that may be lost, as far as its environments depend on it."""

    states: dict[int, Any] = field(default_factory=dict)
    reset_infos: list[dict[str, Any]] = field(default_factory=list)
    attributes: list[tuple[Any, ...]] = field(default_factory=list)  # arguments of `set_attr`


def _answer(
    env: VecEnv, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> tuple[Any, dict[int, Any], list[dict[str, Any]]]:
    """Return the value of a call, the states that it changed, and what the last resets told."""
    value = function(env, *arguments)
    changed: Sequence[int] = ()
    if function in (_reset, _step):
        changed = range(env.num_envs)
    elif function is _method and arguments[0] == "env_method" and arguments[2][0] == "set_state":
        changed = arguments[1]
    states = env.env_method("get_state", indices=changed) if changed else ()
    return value, dict(zip(changed, states, strict=True)), env.reset_infos


def _resumed_answer(
    env: VecEnv, last: _Last, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> tuple[Any, dict[int, Any], list[dict[str, Any]]]:
    """Do the same in the place of a worker that was lost."""
    for index, state in last.states.items():
        env.env_method("set_state", state, indices=index)
    for setting in last.attributes:
        _method(env, *setting)
    _set_reset_infos(env, last.reset_infos)
    return _answer(env, function, arguments)


def _set_reset_infos(env: VecEnv, infos: list[dict[str, Any]]) -> None:
    if infos:
        env.reset_infos = infos
        if isinstance(env, JoinedVecEnv):
            env.set_reset_infos(infos)


def _describe(env: VecEnv) -> tuple[int, Any, Any]:
    return env.num_envs, env.observation_space, env.action_space


def _reset(env: VecEnv, seeds: list[int | None], options: list[dict[str, Any]]) -> tuple[Any, Any]:
    # Consecutive ones, of which each environment gets its own; none: where its sequence is.
    if seeds[0] is not None:
        env.seed(seeds[0])
    env.set_options(options)
    return env.reset(), env.reset_infos


def _step(env: VecEnv, actions: Any) -> tuple[Any, ...]:
    return *env.step(actions), env.reset_infos


def _images(env: VecEnv) -> Sequence[Any]:
    return env.get_images()


def _method(
    env: VecEnv, name: str, indices: list[int], arguments: Sequence[Any], named: dict[str, Any]
) -> Any:
    return getattr(env, name)(*arguments, indices=indices, **named)
