"""Cost of Ray against processes of this machine, and memory of its object store.

    python -m benchmarks.executors --json executors.json

The environments of the digits search take the same steps in worker processes and in actors, in
turn: wall-clock time, and CPU time of this process, the workers and everything of Ray. Then units
that do nothing are timed, which is what handing out costs, and actors answer with arrays of the
size of a state, a thousand episodes of them, while the object store is looked at.
"""

import contextlib
import functools
import importlib
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from automix.configuration.task import ComputeConfig
from automix.executors.choose import Kind, make_executor
from automix.executors.ray_actors import connect
from automix.executors.units import Executor, Unit
from automix.experiments.config import SearchConfig
from automix.training.distributed import start_method
from envs.vector import make_vec_env, stop_vec_env

_KINDS: tuple[Kind, ...] = ("processes", "ray")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Cost of Ray against processes of this machine."""

    config: Path = Path("configs/search/digits.yaml")
    """Search whose environments are stepped."""
    steps: int = 16
    """Segments per environment and kind; the first is not counted."""
    units: int = 400
    """Units that do nothing, per kind."""
    episodes: int = 1000
    """Episodes of arrays through the object store."""
    segments: int = 4
    """Arrays per episode."""
    kilobytes: int = 1000
    """Size of an array."""
    json: Path | None = None
    """File for the figures."""


def cpu_seconds() -> dict[str, float]:
    """Return the CPU time so far of this process and all below it: Ray's, and the others."""
    table = dict(filter(None, map(_times, Path("/proc").glob("[0-9]*"))))
    children: dict[int, list[int]] = {}
    for process, (parent, _, _) in table.items():
        children.setdefault(parent, []).append(process)
    totals: dict[str, float] = dict.fromkeys(_KINDS, 0.0)
    waiting = [os.getpid()]
    while waiting:
        process = waiting.pop()
        waiting += children.get(process, [])
        _, seconds, is_of_ray = table[process]
        totals["ray" if is_of_ray else "processes"] += seconds
    return totals


def _times(path: Path) -> tuple[int, tuple[int, float, bool]] | None:
    """Return a process: its parent, CPU time with that of its dead children, and whether Ray's."""
    with contextlib.suppress(OSError, IndexError):
        fields = (path / "stat").read_text().rpartition(")")[2].split()
        command_line = (path / "cmdline").read_bytes()
        seconds = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
        is_of_ray = b"/ray/" in command_line or command_line.startswith(b"ray::")
        return int(path.name), (int(fields[1]), seconds, is_of_ray)
    return None


def step_costs(options: Options) -> dict[str, dict[str, float]]:
    """Return wall-clock and CPU seconds of one step of all environments, by kind."""
    config = SearchConfig.from_yaml(options.config)
    make = functools.partial(
        make_vec_env,
        config.task,
        config.environment,
        num_envs=config.agent.num_environments,
        seed=0,
        population=config.compute.population or 1,
        compute=ComputeConfig(),
    )
    envs = {"processes": make(kind="subprocess"), "ray": make(kind="ray")}
    generator = np.random.default_rng(0)
    wall: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    cpu: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    for env in envs.values():
        env.reset()
    for step in range(options.steps):
        sizes = envs["ray"].action_space.nvec  # type: ignore[attr-defined]
        actions = generator.integers(sizes, size=(config.agent.num_environments, len(sizes)))
        for kind in _KINDS if step % 2 else _KINDS[::-1]:
            before, used = cpu_seconds(), time.process_time()
            began = time.perf_counter()
            envs[kind].step(actions)
            wall[kind].append(time.perf_counter() - began)
            after, used = cpu_seconds(), time.process_time() - used
            # This process is among the others: its part of a step on Ray is added to Ray's.
            cpu[kind].append(after[kind] - before[kind] + (used if kind == "ray" else 0.0))
    for env in envs.values():
        stop_vec_env(env)
    return {
        kind: {"wall": statistics.median(wall[kind][1:]), "cpu": statistics.mean(cpu[kind][1:])}
        for kind in _KINDS
    }


def nothing(held: Any) -> None:
    """Do nothing, in a worker."""


def array(held: Any, kilobytes: int) -> np.ndarray[Any, Any]:
    """Return an array, in a worker."""
    return np.ones(1000 * kilobytes, dtype=np.uint8)


def _executor(kind: Kind) -> Executor:
    method = start_method("automix.executors.processes")
    return make_executor([dict, dict], ComputeConfig(), kind=kind, method=method)


def _do_units(
    executor: Executor, count: int, function: Callable[..., Any], *arguments: Any
) -> None:
    """Do units two at a time, as two environments do."""
    for number in range(count):
        names = [f"{function.__name__}-{number}-{seat}" for seat in range(2)]
        for seat, name in enumerate(names):
            unit = Unit(name=name, kind=function.__name__, call=(function, arguments))
            executor.submit(unit, seat=seat)
        for name in names:
            executor.outcome(name)


def unit_seconds(kind: Kind, options: Options) -> float:
    """Return the wall-clock seconds of a unit that does nothing."""
    executor = _executor(kind)
    _do_units(executor, 1, nothing)
    began = time.perf_counter()
    _do_units(executor, options.units // 2, nothing)
    seconds = (time.perf_counter() - began) / options.units
    executor.stop()
    return seconds


def store_bytes(options: Options) -> dict[str, float]:
    """Return the most bytes in the object store, in each tenth of the episodes."""
    ray = connect(ComputeConfig())
    from ray._private.internal_api import node_stats  # noqa: PLC0415 - an extra

    node = ray.nodes()[0]
    executor = _executor("ray")
    tenths: dict[str, float] = {}
    for tenth in range(10):
        most = 0
        for episode in range(options.episodes // 10):
            # Units have names of their own in each call.
            _do_units(executor, options.segments // 2, array, options.kilobytes)
            if episode % 10 == 0:
                stats = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"]).store_stats
                most = max(most, stats.object_store_bytes_used)
        tenths[f"tenth {tenth + 1}"] = most
    executor.stop()
    return tenths


def main(options: Options) -> None:
    """Measure, print, and write the figures."""
    torch.set_num_threads(1)
    costs = step_costs(options)
    figures: dict[str, Mapping[str, Any]] = {
        "step": costs,
        "unit": {kind: unit_seconds(kind, options) for kind in _KINDS},
        "store": store_bytes(options),
    }
    for what in ("wall", "cpu"):
        ratio = costs["ray"][what] / costs["processes"][what]
        print(f"step, {what}: {costs['processes'][what]:.3f} s, on Ray {ratio:.3f} times as long")
    for kind, seconds in figures["unit"].items():
        print(f"a unit that does nothing, {kind}: {1000 * seconds:.2f} ms")
    for name, size in figures["store"].items():
        print(f"object store, {name}: at most {size / 1e6:.1f} MB")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    # Workers know functions of modules, and not of what is run as a script.
    importlib.import_module("benchmarks.executors").main(tyro.cli(Options))
