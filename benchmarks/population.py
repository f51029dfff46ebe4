"""Training runs per minute, alone and in populations, with everything that a search does.

    python -m benchmarks.population --json population.json

Two tables. The first has the time of a training run in a population of N over that of a run alone,
in this process, in alternating rounds: with random actions, observations, saliency and probe as in
a search, and of the optimizer steps alone. It is CPU time, or on an accelerator time of the clock.
The second has training runs per minute of the environments of a search, in worker processes unless
there is an accelerator, one number of runs at once after the other.
"""

import json
import statistics
import time
from collections.abc import Callable
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
from automix.training.trainer import build_trainer, load_search_data, training_device
from automix.worker_processes import num_cores
from benchmarks import trainer_loops
from benchmarks.measure import clock_for, wait_for
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
        kind="in_process" if here else "auto",
        seed=0,
        population=population,
    )
    env.reset()
    return env


def device_clock() -> Callable[[], float]:
    """Return a clock that first waits for what the accelerator has been given."""
    device = training_device()
    clock = clock_for(device)

    def now() -> float:
        wait_for(device)
        return clock()

    return now


def cost_in_search(config: SearchConfig, options: Options) -> dict[int, float]:
    """Return the time of a segment per run in each population, over that of a run alone."""
    now = device_clock()
    environments = {
        count: _environments(config, count=count, population=count, here=True)
        for count in (1, *options.populations)
    }
    times: dict[int, list[float]] = {count: [] for count in environments}
    for number in range(options.rounds + 1):
        for count, env in environments.items():
            started = now()
            for actions in random_actions(env, segments=options.segments, seed=number):
                env.step(actions)
            # The first round allocates memory and chooses kernels.
            if number:
                times[count].append((now() - started) / count)
    alone = times[1]
    return {
        count: statistics.median(
            [joined / one for joined, one in zip(times[count], alone, strict=True)]
        )
        for count in options.populations
    }


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """Optimizer steps in a population: time per run over that of a run alone, and images/s."""

    ratio: float
    images_per_second: float
    alone_images_per_second: float


def cost_of_steps(
    config: SearchConfig, options: Options, decision: Decision
) -> dict[int, StepCost]:
    """Return the cost of the optimizer steps in each population."""
    data, now = load_search_data(config.task.data), device_clock()
    costs = {}
    for count in options.populations:
        alone, *members = (build_trainer(config.task, data, seed=i) for i in range(count + 1))
        population = Population(members)
        steps = min(20, alone.total_steps)
        rounds = []
        for number in range(options.rounds + 1):
            for trainer in (alone, *members):
                trainer.reset(trainer.seed)
            first = now()
            alone.train(decision, num_steps=steps)
            second = now()
            population.train([(decision, steps)] * count)
            third = now()
            if number:
                rounds.append(((third - second) / count, second - first))
        images = steps * alone.training_step.batches.layout.batch_size
        joined_seconds, alone_seconds = zip(*rounds, strict=True)
        costs[count] = StepCost(
            ratio=statistics.median(joined / one for joined, one in rounds),
            images_per_second=images / statistics.median(joined_seconds),
            alone_images_per_second=images / statistics.median(alone_seconds),
        )
    return costs


def matmul_seconds(config: SearchConfig) -> float:
    """Return the time of matrix products with as much arithmetic as one image in training."""
    data, device = load_search_data(config.task.data), training_device()
    channels, size, _ = data.image_shape
    options = trainer_loops.Options(
        model=config.task.model,
        batch_size=config.task.trainer.batch_size,
        size=size,
        channels=channels,
        classes=data.num_classes,
    )
    flops = trainer_loops.flops_per_step(options, device) / options.batch_size
    return flops / trainer_loops.matmul_rate(options, device)


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
    device = training_device()
    in_search = cost_in_search(config, options)
    steps = {
        name: cost_of_steps(config, options, Decision(operator=name))
        for name in (Operator.NONE, Operator.MIXUP, Operator.SALIENCY_GRAFTING)
    }
    plain = steps[Operator.NONE]
    images = {1: statistics.median(cost.alone_images_per_second for cost in plain.values())}
    images |= {count: cost.images_per_second for count, cost in plain.items()}
    per_image = matmul_seconds(config)
    print(f"{options.config}, {device}, one thread per process, torch {torch.__version__}\n")
    print("| runs at once | in a search | step, none | step, mixup | step, grafting | images/s |")
    print("|---:|---:|---:|---:|---:|---:|")
    for count in options.populations:
        row = [in_search[count], *(costs[count].ratio for costs in steps.values())]
        cells = [*(f"{ratio:.2f}" for ratio in row), f"{images[count]:.0f}"]
        print(f"| {count} | " + " | ".join(cells) + " |")
    rates = _print_rates(config, options) if options.runs else {}
    if options.json:
        figures = {
            "device": str(device),
            "torch": torch.__version__,
            "in_search": {1: 1.0, **in_search},
            "steps": {
                name.value: {1: 1.0, **{count: cost.ratio for count, cost in costs.items()}}
                for name, costs in steps.items()
            },
            "images_per_second": images,
            "matmul_fraction": {count: per_image * rate for count, rate in images.items()},
            "runs_per_minute": rates,
        }
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def _print_rates(config: SearchConfig, options: Options) -> dict[int, float]:
    # A population of one process, of which there is one for each core unless they share a device.
    num_processes = num_cores() if training_device().type == "cpu" else 1
    print(f"\n| runs at once, {num_cores()} cores | training runs per minute |\n|---|---:|")
    rates = {}
    for population in (1, *options.populations):
        if population <= config.agent.num_environments // num_processes:
            rates[population] = runs_per_minute(config, options, population)
            print(f"| {population} | {rates[population]:.0f} |")
    return rates


if __name__ == "__main__":
    main(tyro.cli(Options, description=Options.__doc__))
