"""Training runs per minute, alone and in populations, with everything that a search does.

    python -m benchmarks.population --json population.json

Two tables. The first has the CPU time of a training run in a population of N over that of a run
alone, in this process, in alternating rounds: with random actions, observations, saliency and probe
as in a search, and of the optimizer steps alone. The second has training runs per minute of the
environments of a search, in worker processes, one number of runs at once after the other.
"""

import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from automix.experiments.config import SearchConfig
from automix.operator_info import Operator
from automix.schedule import Decision
from automix.training.population import Population
from automix.training.trainer import build_trainer, load_search_data
from automix.worker_processes import num_cores
from envs.vector import make_vec_env, stop_vec_env


@dataclass(frozen=True, kw_only=True)
class Options:
    """Training runs per minute, alone and in populations."""

    config: Path = Path("configs/search/digits.yaml")
    """Search whose task and environment are timed."""
    populations: tuple[int, ...] = (2, 4, 8, 16)
    """Numbers of training runs at once."""
    rounds: int = 3
    """Alternating rounds of the first table; medians count."""
    segments: int = 4
    """Segments per round."""
    runs: int = 64
    """Training runs of each row of the second table; 0 leaves it out."""
    json: Path | None = None
    """File for the figures."""


def random_actions(env: VecEnv, *, segments: int, seed: int) -> NDArray[np.int64]:
    """Return (segments, environments, 3) actions."""
    sizes = env.action_space.nvec  # type: ignore[attr-defined]
    generator = np.random.default_rng(seed)
    return generator.integers(sizes, size=(segments, env.num_envs, len(sizes)))


def _environments(config: SearchConfig, *, count: int, population: int, here: bool) -> VecEnv:
    env = make_vec_env(
        config.task,
        config.environment,
        num_envs=count,
        kind="in_process" if here else "subprocess",
        seed=0,
        population=population,
    )
    env.reset()
    return env


def cost_in_search(config: SearchConfig, options: Options) -> dict[int, float]:
    """Return the CPU time of a segment per run in each population, over that of a run alone."""
    environments = {
        count: _environments(config, count=count, population=count, here=True)
        for count in (1, *options.populations)
    }
    times: dict[int, list[float]] = {count: [] for count in environments}
    for number in range(options.rounds + 1):
        for count, env in environments.items():
            started = time.thread_time()
            for actions in random_actions(env, segments=options.segments, seed=number):
                env.step(actions)
            # The first round allocates memory and chooses kernels.
            if number:
                times[count].append((time.thread_time() - started) / count)
    alone = times[1]
    return {
        count: statistics.median(
            [joined / one for joined, one in zip(times[count], alone, strict=True)]
        )
        for count in options.populations
    }


def cost_of_steps(config: SearchConfig, options: Options, decision: Decision) -> dict[int, float]:
    """Return the CPU time of an optimizer step per run, over that of a run alone."""
    data = load_search_data(config.task.data)
    ratios = {}
    for count in options.populations:
        alone, *members = (build_trainer(config.task, data, seed=i) for i in range(count + 1))
        population = Population(members)
        steps = min(20, alone.total_steps)
        rounds = []
        for number in range(options.rounds + 1):
            for trainer in (alone, *members):
                trainer.reset(trainer.seed)
            first = time.thread_time()
            alone.train(decision, num_steps=steps)
            second = time.thread_time()
            population.train([(decision, steps)] * count)
            third = time.thread_time()
            if number:
                rounds.append((third - second) / count / (second - first))
        ratios[count] = statistics.median(rounds)
    return ratios


def runs_per_minute(config: SearchConfig, options: Options, population: int) -> float:
    """Return training runs per minute of wall-clock time, on all cores."""
    env = _environments(
        config, count=config.agent.num_environments, population=population, here=False
    )
    try:
        segments = config.environment.num_segments
        # One segment untimed: processes load the data and build the networks.
        env.step(random_actions(env, segments=1, seed=0)[0])
        env.reset()
        started = time.perf_counter()
        episodes = max(options.runs // env.num_envs, 1)
        for actions in random_actions(env, segments=episodes * segments, seed=1):
            env.step(actions)
        return 60 * episodes * env.num_envs / (time.perf_counter() - started)
    finally:
        stop_vec_env(env)


def main(options: Options) -> None:
    """Measure, print, and write the figures."""
    torch.set_num_threads(1)
    config = SearchConfig.from_yaml(options.config)
    in_search = cost_in_search(config, options)
    steps = {
        name: cost_of_steps(config, options, Decision(operator=name))
        for name in (Operator.NONE, Operator.MIXUP, Operator.SALIENCY_GRAFTING)
    }
    print(f"{options.config}, one thread per process, torch {torch.__version__}\n")
    print("| runs at once | in a search | step, none | step, mixup | step, grafting |")
    print("|---:|---:|---:|---:|---:|")
    for count in options.populations:
        row = [in_search[count], *(ratios[count] for ratios in steps.values())]
        print(f"| {count} | " + " | ".join(f"{ratio:.2f}" for ratio in row) + " |")
    rates = {}
    if options.runs:
        print(f"\n| runs at once, {num_cores()} cores | training runs per minute |\n|---|---:|")
        for population in (1, *options.populations):
            if population <= config.agent.num_environments // num_cores():
                rates[population] = runs_per_minute(config, options, population)
                print(f"| {population} | {rates[population]:.0f} |")
    if options.json:
        figures = {
            "in_search": in_search,
            "steps": {name.value: ratios for name, ratios in steps.items()},
            "runs_per_minute": rates,
        }
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options, description=Options.__doc__))
