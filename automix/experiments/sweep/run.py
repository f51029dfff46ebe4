"""Ablate: a sweep from its file to its table."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from automix.configuration.base import did_you_mean
from automix.configuration.command import Command
from automix.configuration.task import ComputeConfig
from automix.errors import AutoMixError, ConfigError
from automix.experiments.common.cost import CostEstimate
from automix.experiments.common.run_folder import (
    ENVIRONMENT_NAME,
    ProgressBar,
    describe_environment,
    format_seconds,
)
from automix.experiments.common.summaries import align
from automix.experiments.sweep.cell import (
    Cell,
    CellState,
    MeasureConfig,
    SweepConfig,
    describe_settings,
    expand_sweep,
    find_cell,
    is_busy,
    is_finished,
    read_error,
    reopen_damaged,
    run_cell,
)
from automix.experiments.sweep.scheduler import SweepOutcome, run_sweep
from automix.experiments.sweep.table import build_table, format_table, write_table
from automix.files import write_json, write_text

SWEEP_NAME = "sweep.yaml"
"""The sweep as it was read, in its folder."""

# The first optimizer step imports `torch._dynamo`, which takes as long as torch itself.
_PRELOAD = ("automix.experiments.sweep.experiments", "automix.data.load", "torch._dynamo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A sweep that was read and validated."""

    path: Path  # its file
    config: SweepConfig  # what the file says
    experiment: Command  # what its cells run
    cells: tuple[Cell[Any], ...]  # in the order of the file
    folder: Path  # where results are


def load_sweep(path: Path, folder: Path, commands: Mapping[str, Command]) -> Sweep:
    """Read a sweep and validate all of its cells; nothing is written.

    Raises:
        ConfigError: the file, its base, a cell or the experiment's name does not fit.
    """
    config = SweepConfig.from_yaml(path)
    # Commands that cannot be named by their content, such as report, are no cells.
    names = [name for name, command in commands.items() if command.identify]
    if config.experiment not in names:
        raise ConfigError(
            f"{path}: experiment: expected one of {', '.join(names)}, got {config.experiment!r}"
            f"{did_you_mean(config.experiment, names)}"
        )
    experiment = commands[config.experiment]
    model = resolve_name(experiment.cell_config or experiment.config)
    cells = expand_sweep(config, model, source=path, identify=resolve_name(experiment.identify))
    return Sweep(path=path, config=config, experiment=experiment, cells=cells, folder=folder)


def run_all(sweep: Sweep, *, compute: ComputeConfig, devices: Sequence[str]) -> SweepOutcome:
    """Run every cell that has no result, ``compute.workers`` at once."""
    write_text(sweep.folder / SWEEP_NAME, sweep.config.to_yaml())
    for cell in sweep.cells:
        reopen_damaged(cell, sweep.folder)
    finished = sum(is_finished(cell, sweep.folder) for cell in sweep.cells)
    with ProgressBar("ablate", len(sweep.cells), done=finished) as bar:

        def advance(cell: Cell[Any], state: CellState) -> None:
            bar.advance(note=f"{state.value}: {describe_settings(cell.settings)}")

        return run_sweep(
            sweep.cells,
            sweep.folder,
            resolve_name(sweep.experiment.run),
            compute=compute,
            devices=devices,
            preload=_PRELOAD,
            on_done=advance,
        )


def run_one(sweep: Sweep, beginning: str) -> Cell[Any]:
    """Run one cell in this process, unless it is finished; return it.

    Raises:
        AutoMixError: there is no such cell, another process runs it, or it failed.
    """
    cell = find_cell(sweep.cells, beginning)
    state = run_cell(cell, sweep.folder, resolve_name(sweep.experiment.run))
    if state is CellState.BUSY:
        raise AutoMixError(
            f"{sweep.folder / cell.identifier}: expected a cell that nobody runs, got one that "
            "another process is running"
        )
    if state is CellState.FAILED:
        raise AutoMixError(f"{cell.identifier}: {read_error(cell, sweep.folder)}")
    return cell


def save_table(sweep: Sweep) -> str:
    """Write the table of the finished cells into the folder, and return it as text.

    Raises:
        CheckpointError: a result is damaged or lacks a measure.
    """
    # From the files alone: the table of a sweep can be made again without running it.
    measures = sweep.config.measures or measures_of(sweep.experiment)
    table = build_table(sweep.config, sweep.cells, sweep.folder, measures)
    write_table(table, sweep.folder, name=sweep.path.stem)
    # That of the first call; the report names its versions and command.
    if not (sweep.folder / ENVIRONMENT_NAME).exists():
        write_json(sweep.folder / ENVIRONMENT_NAME, describe_environment())
    return format_table(table)


def measures_of(experiment: Command) -> dict[str, MeasureConfig]:
    """Return the numbers that the table shows unless the sweep says."""
    return {
        name: MeasureConfig.model_validate(fields) for name, fields in experiment.measures.items()
    }


def list_cells(sweep: Sweep) -> str:
    """Return one line per cell: identifier, state, settings."""
    rows = [
        [cell.identifier, state_of(cell, sweep.folder), describe_settings(cell.settings)]
        for cell in sweep.cells
    ]
    return "\n".join(align(rows))


def state_of(cell: Cell[Any], folder: Path) -> str:
    """Return whether a cell is finished, running, failed or waiting."""
    if is_finished(cell, folder):
        return "finished"
    if is_busy(cell, folder):
        return "running"
    return "failed" if read_error(cell, folder) else "waiting"


def predict(sweep: Sweep, *, num_workers: int) -> Iterator[str]:
    """Yield one line per cell with its state and predicted cost, then one about them all.

    Costs are measured on a few steps; cells that differ in the seed alone are measured once.
    """
    estimates: dict[str, CostEstimate] = {}
    total = 0.0
    counts: dict[str, int] = {}
    for cell in sweep.cells:
        state = state_of(cell, sweep.folder)
        counts[state] = counts.get(state, 0) + 1
        cost = ""
        if state != "finished":
            # Measuring takes seconds, and a seed changes no cost.
            seedless = cell.config.model_copy(update={"seed": 0})
            key = seedless.content_hash()
            if key not in estimates:
                estimates[key] = resolve_name(sweep.experiment.predict_cost)(seedless)
            total += estimates[key].seconds
            cost = f": {estimates[key].describe()}"
        yield f"{cell.identifier}  {state:<8}  {describe_settings(cell.settings)}{cost}"
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    yield (
        f"{len(sweep.cells)} cells: {states}; about {format_seconds(total / num_workers)} on "
        f"{num_workers} processes"
    )
