"""Cost of the environment beyond training, and the gain of several training runs at once.

    python -m benchmarks.environment --json environment.json

A segment of the digits search is timed part by part: the training, the evaluation passes (reward
split, clean training images, probe), and everything else that the environment does. Then the same
number of training runs is run by one environment and by two: in a process each, and as one
population.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from automix.experiments.config import SearchConfig
from automix.training.trainer import ClassifierTrainer
from envs.measurement import Measurement
from envs.mixing_env import MixingEnv

_PARTS = ("training", "evaluation", "probe")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Cost of the environment beyond training, and speed of several training runs at once."""

    config: Path = Path("configs/search/digits.yaml")
    """Search whose task and environment are timed."""
    episodes: int = 6
    """Training runs of the timing by parts; the first is not counted."""
    segments: int = 24
    """Segments that each environment trains in the comparison of one and two."""
    rounds: int = 3
    """Times that one and two environments are compared, alternately; the median counts."""
    snapshots: bool = False
    """Start episodes from snapshots and stop hopeless ones, too."""
    json: Path | None = None
    """File for the figures."""


class Clock:
    """Adds up the time that is spent inside functions, by part."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(_PARTS, 0.0)

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``function``, whose time counts for ``part``."""

        def run(*args: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                self.seconds[part] += time.perf_counter() - started

        return run


def step_fractions(config: SearchConfig, options: Options) -> dict[str, float]:
    """Return the time of each part of the environment as a fraction of the training time."""
    env = MixingEnv(config.task, config.environment, seed=0)
    env.reset()
    clock = Clock()
    _instrument(clock, env.trainer, env.measurement)
    generator, sizes = np.random.default_rng(0), env.action_space.nvec  # type: ignore[attr-defined]
    total = 0.0
    for episode in range(options.episodes):
        if episode == 1:
            clock.seconds, total = dict.fromkeys(_PARTS, 0.0), 0.0
        started = time.perf_counter()
        env.reset()
        is_over = False
        while not is_over:
            _, _, is_over, _, _ = env.step(generator.integers(sizes))
        total += time.perf_counter() - started
    parts = dict(clock.seconds)
    parts["everything else"] = total - sum(parts.values())
    return {name: seconds / parts["training"] for name, seconds in parts.items()}


def _instrument(clock: Clock, trainer: ClassifierTrainer, measurement: Measurement) -> None:
    # Set on the instances: what is timed is the code that a search runs.
    for owner, name, part in (
        (trainer, "train", "training"),
        (trainer, "evaluate_both", "evaluation"),
        (measurement._probe, "losses", "probe"),
    ):
        setattr(owner, name, clock.timed(part, getattr(owner, name)))


def main(options: Options) -> None:
    """Measure, print, and write the figures."""
    torch.set_num_threads(1)
    config = SearchConfig.from_yaml(options.config)
    if options.snapshots:
        environment = config.environment.model_copy(update={"snapshot_fraction": 0.5})
        config = config.model_copy(update={"environment": environment})
    fractions = step_fractions(config, options)
    print(f"{options.config}, one thread per process, torch {torch.__version__}\n")
    print("| part of an episode | fraction of the training time |\n|---|---:|")
    for name, fraction in fractions.items():
        print(f"| {name} | {100 * fraction:.1f}% |")
    if options.json:
        figures = {"fractions": fractions}
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options))
