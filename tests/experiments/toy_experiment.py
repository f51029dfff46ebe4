"""An experiment that takes a moment and notes when it starts; run as a module, a whole sweep."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from automix.configuration.base import Config
from automix.configuration.task import ComputeConfig
from automix.errors import ConfigError
from automix.experiments.sweep.cell import Cell, SweepConfig, expand_sweep
from automix.experiments.sweep.scheduler import run_sweep
from automix.experiments.sweep.table import build_table, write_table
from tests.experiments import toy_experiment

LOG_NAME = "starts.txt"
SIGNALS = {"dies once": signal.SIGKILL, "stops once": signal.SIGSTOP}


class InnerConfig(Config):
    rate: Annotated[float, Field(gt=0)] = 0.1
    """A nested value."""


class ToyConfig(Config):
    seed: Annotated[int, Field(ge=0)] = 0
    """A number."""

    inner: InnerConfig = Field(default_factory=InnerConfig)
    """A section."""

    seconds: float = 0.0
    """How long it takes."""

    fate: str = "finishes"
    """How it ends."""


def run_toy(config: ToyConfig, folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parents[1] / LOG_NAME).open("a", encoding="utf-8") as stream:
        stream.write(f"{folder.parent.name} {time.time_ns()} {os.getpid()}\n")
    time.sleep(config.seconds)
    if config.fate == "refuses":
        raise ConfigError("rate: expected less, got more")
    if config.fate == "breaks":
        raise RuntimeError("a fault of the program")
    mark = folder / "begun before"
    if config.fate == "dies" or (config.fate in SIGNALS and not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), SIGNALS.get(config.fate, signal.SIGKILL))
    device = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return {"score": config.seed * config.inner.rate, "scores": [{"x": config.seed}], "gpu": device}


def read_starts(folder: Path) -> list[tuple[str, int]]:
    """Return which cells were started, and when in ns, in order."""
    path = folder / LOG_NAME
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [(line.split()[0], int(line.split()[1])) for line in lines]


def load_cells(path: Path) -> tuple[SweepConfig, tuple[Cell[ToyConfig], ...]]:
    sweep = SweepConfig.from_yaml(path)
    return sweep, expand_sweep(sweep, ToyConfig, source=path)


def main(path: Path, folder: Path, num_workers: int) -> None:
    sweep, cells = load_cells(path)
    run_sweep(cells, folder, run_toy, compute=ComputeConfig(workers=num_workers))
    write_table(build_table(sweep, cells, folder, sweep.measures), folder, name=path.stem)


if __name__ == "__main__":
    # Cells are sent to processes that know modules, and not what is run as a script.
    toy_experiment.main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
