"""Time of a search by number of workers and length of a segment: a model, and a check of it.

    python -m benchmarks.scale --json scale.json

A search plays episodes of segments, a rollout of them before each update of the policy. Workers
play in step, as Stable-Baselines3's rollouts do: every step waits for the slowest. The other way is
to collect whatever is ready: who is done begins its next segment at once, and only the update
waits. Both are played through with drawn lengths of segments:

    time of a segment = mean * exp(sigma * n - sigma^2 / 2),  n standard normal

with what handing out a segment costs this process, one after the other, and the learner. The costs
are measured first: units that sleep, and an update of a policy of the search's size. Then 1, 2 and
4 workers that sleep are compared with what the model says of them. A rollout has as many episodes
as there are workers, and at least the 16 of a search's defaults.
"""

import heapq
import importlib
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

from automix.configuration.task import ComputeConfig
from automix.executors.choose import make_executor
from automix.executors.units import Executor, Unit
from automix.training.distributed import start_method


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Costs of a search beyond its training runs."""

    handing: float  # seconds of this process per segment
    learner: float  # seconds of an update per episode of its rollout
    sigma: float  # spread of the logarithm of a segment's time
    start: float = 15.0  # seconds until workers have imported and loaded everything


@dataclass(frozen=True, kw_only=True)
class Options:
    """Time of a search by number of workers and length of a segment."""

    episodes: int = 512
    """Episodes of the search."""
    segments: int = 8
    """Segments of an episode."""
    rollout: int = 16
    """Episodes before each update; as many as workers if there are more."""
    sigma: float = 0.1
    """Spread of the logarithm of a segment's time."""
    check_seconds: float = 0.1
    """Mean time of a segment in the check with workers that sleep."""
    check_steps: int = 40
    """Steps of the check."""
    json: Path | None = None
    """File for the figures."""


def in_step(times: np.ndarray[Any, Any], handing: float) -> float:
    """Return the time of steps that wait for the slowest; ``times``: (steps, workers)."""
    num_workers = times.shape[1]
    # The last segment begins when all were handed out; answers come in while others still run.
    begins = handing * np.arange(1, num_workers + 1)
    return float((begins + times).max(axis=1).sum())


def when_ready(times: np.ndarray[Any, Any], handing: float, num_workers: int) -> float:
    """Return the time of episodes that are played as workers come free; (episodes, segments)."""
    free = [(0.0, worker) for worker in range(num_workers)]
    handed = end = 0.0
    playing: dict[int, list[float]] = {}
    waiting = [list(row) for row in times][::-1]
    while free:
        moment, worker = heapq.heappop(free)
        if not playing.get(worker):
            if not waiting:
                continue
            playing[worker] = waiting.pop()
        # This process hands out one segment after the other.
        handed = max(handed, moment) + handing
        done = handed + playing[worker].pop()
        end = max(end, done)
        heapq.heappush(free, (done, worker))
    return end


def search_seconds(num_workers: int, segment: float, costs: Costs, options: Options) -> list[float]:
    """Return the time of a search in step, and of one that collects what is ready."""
    generator = np.random.default_rng(0)
    rollout = max(options.rollout, num_workers)
    updates = options.episodes // rollout
    rounds = math.ceil(rollout / num_workers)
    steps = rounds * options.segments
    totals = [costs.start + updates * rollout * costs.learner] * 2
    for _ in range(updates):
        totals[0] += in_step(_drawn(generator, (steps, num_workers), segment, costs), costs.handing)
        size = (rollout, options.segments)
        times = _drawn(generator, size, segment, costs)
        totals[1] += when_ready(times, costs.handing, num_workers)
    return totals


def _drawn(
    generator: np.random.Generator, size: tuple[int, int], segment: float, costs: Costs
) -> np.ndarray[Any, Any]:
    exponents = costs.sigma * generator.standard_normal(size) - costs.sigma**2 / 2
    drawn: np.ndarray[Any, Any] = segment * np.exp(exponents)
    return drawn


def sleep(held: Any, seconds: float) -> None:
    """Sleep, in a worker."""
    time.sleep(seconds)


def slept(executor: Executor, times: np.ndarray[Any, Any]) -> float:
    """Return the wall-clock time of steps of workers that sleep so long; (steps, workers)."""
    began = time.perf_counter()
    for step, row in enumerate(times):
        for seat, seconds in enumerate(row):
            name = f"{step}-{seat}"
            unit = Unit(name=name, kind="sleep", call=(sleep, (float(seconds),)))
            executor.submit(unit, seat=seat)
        for seat in range(len(row)):
            executor.outcome(f"{step}-{seat}")
    return time.perf_counter() - began


def learner_seconds(options: Options) -> float:
    """Return the seconds of an update of a policy as small as that of a search, per episode."""
    # Any environment will do: an update takes its time by the numbers of samples and weights.
    env = make_vec_env("CartPole-v1", n_envs=options.rollout)
    size = options.rollout * options.segments
    policy = {"net_arch": [32, 32]}
    model = PPO(
        "MlpPolicy",
        env,
        n_steps=options.segments,
        batch_size=size,
        n_epochs=5,
        policy_kwargs=policy,
        device="cpu",
    )
    model.learn(size)
    # Of the CPU, because others compute beside it.
    began = time.process_time()
    for _ in range(10):
        model.train()
    return (time.process_time() - began) / 10 / options.rollout


def check(options: Options) -> dict[str, Any]:
    """Return what handing out costs, and measured and predicted times of 1, 2 and 4 workers."""
    method = start_method("automix.executors.processes")
    generator, figures = np.random.default_rng(1), {}
    handing = math.nan
    for num_workers in (1, 2, 4):
        executor = make_executor(
            [dict] * num_workers, ComputeConfig(), kind="processes", method=method
        )
        slept(executor, np.zeros((1, num_workers)))
        if num_workers == 1:
            handing = slept(executor, np.zeros((200, 1))) / 200
        costs = Costs(handing=handing, learner=0.0, sigma=options.sigma)
        size = (options.check_steps, num_workers)
        times = _drawn(generator, size, options.check_seconds, costs)
        measured = slept(executor, times)
        figures[str(num_workers)] = {"measured": measured, "model": in_step(times, handing)}
        executor.stop()
    return {"handing": handing, "workers": figures}


def _shown(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def main(options: Options) -> None:
    """Measure, print, and write the figures."""
    torch.set_num_threads(1)
    checked = check(options)
    learner = learner_seconds(options)
    costs = Costs(handing=checked["handing"], learner=learner, sigma=options.sigma)
    print(f"handing out a segment: {1000 * costs.handing:.2f} ms")
    print(f"update, per episode of its rollout: {1000 * costs.learner:.2f} ms")
    for num_workers, row in checked["workers"].items():
        ratio = row["model"] / row["measured"]
        print(f"{num_workers} workers that sleep: the model says {ratio:.3f} of what is measured")
    counts, segments = [4**power for power in range(5)], (1.0, 10.0, 60.0, 600.0)
    print("\n| workers |" + "".join(f" {segment:g} s |" for segment in segments))
    print("|---:|" + "---:|" * len(segments))
    table: dict[str, dict[str, list[float]]] = {}
    for count in counts:
        rows = {f"{one:g}": search_seconds(count, one, costs, options) for one in segments}
        table[str(count)] = rows
        cells = [f" {_shown(a)}, {100 * (1 - b / a):.0f}% |" for a, b in rows.values()]
        print(f"| {count} |" + "".join(cells))
    if options.json:
        figures = {"costs": asdict(costs), "check": checked, "seconds": table}
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    # Workers know functions of modules, and not of what is run as a script.
    importlib.import_module("benchmarks.scale").main(tyro.cli(Options))
