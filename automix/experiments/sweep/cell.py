"""Cells of a sweep: validated configurations named by their content, and their folders.

A cell's folder holds `cell.json` (its settings and result, written by rename: the mark of a
finished cell), `run/` (the experiment's own folder), `starts.jsonl` (when and where it was begun),
`error.txt` (why the last try failed), `log.txt` (its output, unless it ran in the foreground) and
`lock`. The lock is the operating system's and ends with the process that holds it, so a killed
process leaves nothing to clean up; between hosts, a claim that is not renewed ends (`FolderClaim`).

Cells have no `Journal`: several processes, on several hosts, finish cells at once, and appending to
one file is atomic on no network file system, while a rename is.
"""

import copy
import itertools
import json
import logging
import math
import os
import platform
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from pydantic import Field

from automix.configuration.base import Config, read_values
from automix.errors import AutoMixError, CheckpointError, ConfigError
from automix.escapes import one_line
from automix.experiments.common.folder_claim import ClaimedError, FolderClaim, is_claimed
from automix.experiments.common.kept_files import (
    SUMS_NAME,
    damaged_output,
    with_sum,
    without_sum,
)
from automix.experiments.common.run_logs import drop_damaged_lines
from automix.files import write_json, write_text
from automix.readers import MAX_JSON_BYTES, read_json, read_text
from automix.reporting.tables import Direction

MAX_CELLS = 10_000
RESULT_NAME = "cell.json"
ERROR_NAME = "error.txt"
LOG_NAME = "log.txt"
STARTS_NAME = "starts.jsonl"
_RUN_NAME = "run"
_LOCK_NAME = "lock"
_LOG = logging.getLogger(__name__)

VARIANT = "variant"
"""Key of a variant's name among the settings of a cell."""

ConfigType = TypeVar("ConfigType", bound=Config)


class MeasureConfig(Config):
    """A number in the result of a cell."""

    key: str | Annotated[tuple[str, ...], Field(min_length=1)]
    """Where it is: keys of mappings, positions in lists, names of the entries of lists, joined by
    dots. A list of them where one has a dot in it: `[means, test, cutmix 0.2, nll]`."""

    better: Direction = Direction.LOWER
    """Which way it is better: lower or higher."""

    @property
    def path(self) -> tuple[str, ...]:
        """Return the keys one by one."""
        return tuple(self.key.split(".")) if isinstance(self.key, str) else self.key


class SweepConfig(Config):
    """A set of experiments: every variant with every combination of the grid."""

    experiment: str
    """What a cell is: the command whose configuration `base` is, such as `search`."""

    base: Path | None = None
    """YAML file of the experiment, relative to the sweep's own file; defaults if there is none."""

    overrides: dict[str, Any] = Field(default_factory=dict)
    """Values for every cell by dotted key, such as `task.trainer.epochs: 30`."""

    variants: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Named sets of values by dotted key, for what is no grid (`no cutting: {...}`)."""

    grid: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(default_factory=dict)
    """Lists of values by dotted key; all combinations are run."""

    seed_key: str = "seed"
    """Key of the grid whose values repeat an experiment. If it is in the grid, rows of the table
    are means over it, paired by its values; otherwise each cell has its row."""

    measures: dict[str, MeasureConfig] = Field(default_factory=dict)
    """Numbers of the result to put in the table, by the name they get there; those of the
    experiment if there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell(Generic[ConfigType]):
    """One experiment of a sweep."""

    identifier: str  # hash of the experiment's name and its whole configuration
    # The variant and the grid's values, by key: what tells it from the other cells.
    settings: Mapping[str, Any]
    config: ConfigType  # validated, complete


def expand_sweep(
    sweep: SweepConfig,
    model: type[ConfigType],
    *,
    source: Path,
    identify: Callable[[ConfigType], str] = Config.content_hash,
) -> tuple[Cell[ConfigType], ...]:
    """Return the cells of a sweep, which was read from ``source``, in the order of its file.

    ``identify`` returns a hash of a configuration of the experiment, a ``model``, or refuses it.

    Raises:
        ConfigError: the base or a cell does not fit the model or is refused, two cells are equal,
            or there are more than `MAX_CELLS`.
    """
    # Counted before anything is expanded: a grid that explodes must not fill the memory first.
    num_cells = max(1, len(sweep.variants)) * math.prod(map(len, sweep.grid.values()))
    if num_cells > MAX_CELLS:
        raise ConfigError(f"{source}: expected at most {MAX_CELLS} cells, got {num_cells}")
    # Plain values, validated only with those of the cell: a base alone need not be complete.
    base = read_values(source.parent / sweep.base, model) if sweep.base else {}
    if not isinstance(base, dict):
        raise ConfigError(f"{source}: base: expected a mapping of keys to values in {sweep.base}")
    cells: dict[str, Cell[ConfigType]] = {}
    for settings, values in _combinations(sweep):
        where = f"{source}: cell ({describe_settings(settings)})"
        config = model.from_mapping(_overridden(base, values, where), source=where)
        try:
            identifier = f"{sweep.experiment}-{identify(config)}"
        except AutoMixError as error:
            raise ConfigError(f"{where}: {error}") from None
        # Equal cells would share a folder, and a table would count one run twice.
        if identifier in cells:
            raise ConfigError(
                f"{where}: expected a cell of its own, got the configuration of the cell "
                f"({describe_settings(cells[identifier].settings)})"
            )
        cells[identifier] = Cell(identifier=identifier, settings=settings, config=config)
    return tuple(cells.values())


def find_cell(cells: Sequence[Cell[ConfigType]], beginning: str) -> Cell[ConfigType]:
    """Return the one cell whose identifier, or the hash in it, begins with ``beginning``.

    ``@3`` is the third cell of the sweep, for the array jobs of schedulers.

    Raises:
        ConfigError: none or several do.
    """
    if beginning.startswith("@"):
        position = beginning.removeprefix("@")
        if not position.isdecimal() or not 1 <= int(position) <= len(cells):
            raise ConfigError(f"cell: expected @1 to @{len(cells)}, got @{position}")
        return cells[int(position) - 1]
    matches = [
        cell
        for cell in cells
        if cell.identifier.startswith(beginning)
        or cell.identifier.rpartition("-")[2].startswith(beginning)
    ]
    if len(matches) != 1 or not beginning:
        examples = ", ".join(cell.identifier for cell in (matches or cells)[:8])
        raise ConfigError(
            f"cell: expected the beginning of one identifier ({examples}, ...), got {beginning!r}"
        )
    return matches[0]


def _combinations(sweep: SweepConfig) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield the settings of each cell and all its values by dotted key."""
    variants = sweep.variants or {"": {}}
    for (name, variant), values in itertools.product(
        variants.items(), itertools.product(*sweep.grid.values())
    ):
        chosen = dict(zip(sweep.grid, values, strict=True))
        settings = ({VARIANT: name} if sweep.variants else {}) | chosen
        # From the most general to the most special: the last one wins.
        yield settings, {**sweep.overrides, **variant, **chosen}


def _overridden(base: dict[Any, Any], values: Mapping[str, Any], where: str) -> dict[Any, Any]:
    """Return a copy of ``base`` with values set at their dotted keys."""
    result = copy.deepcopy(base)
    for key, value in values.items():
        *parents, last = key.split(".")
        target = result
        for parent in parents:
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                raise ConfigError(f"{where}: {key}: expected a section {parent!r}, got a value")
        # Copied, because a list of the file would be shared by all cells.
        target[last] = copy.deepcopy(value)
    return result


def describe_settings(settings: Mapping[str, Any]) -> str:
    """Return settings in one line, such as ``variant=no cutting, seed=3``."""
    return ", ".join(f"{one_line(key)}={one_line(value)}" for key, value in settings.items())


CellRunner = Callable[[ConfigType, Path], Mapping[str, Any]]
"""Runs or resumes an experiment in a folder of its own; returns its result as JSON."""


class CellState(Enum):
    """Outcome of trying to run a cell."""

    FINISHED = "finished"
    FAILED = "failed"
    BUSY = "busy"
    """Another process is running it."""


def is_finished(cell: Cell[ConfigType], folder: Path) -> bool:
    """Return whether the cell has its result in ``folder``, the folder of the sweep."""
    return (folder / cell.identifier / RESULT_NAME).exists()


def reopen_damaged(cell: Cell[ConfigType], folder: Path) -> None:
    """Take a finished cell for unfinished if a log of its runs is damaged: it is resumed then."""
    home = folder / cell.identifier
    drop_damaged_lines(home / STARTS_NAME)
    for sums in (home / _RUN_NAME).rglob(SUMS_NAME):
        if is_finished(cell, folder) and (name := damaged_output(sums.parent)):
            _LOG.warning("%s: got a damaged or missing file; written again", sums.parent / name)
            (home / RESULT_NAME).unlink()


def is_busy(cell: Cell[ConfigType], folder: Path) -> bool:
    """Return whether a process is running the cell at this moment."""
    return is_claimed(folder / cell.identifier, lock_name=_LOCK_NAME)


def run_cell(cell: Cell[ConfigType], folder: Path, runner: CellRunner[ConfigType]) -> CellState:
    """Run a cell in ``folder`` unless it is finished or being run.

    An `AutoMixError` of the runner is written down and returned as FAILED. Any other exception is
    written down, too, and raised: it is a fault of the program.
    """
    home = folder / cell.identifier
    home.mkdir(parents=True, exist_ok=True)
    claim = FolderClaim(home, lock_name=_LOCK_NAME)
    try:
        claim.acquire()
    except ClaimedError:
        return CellState.BUSY
    try:
        # Only now is it certain: another process may have finished it before the lock was ours.
        if is_finished(cell, folder):
            return CellState.FINISHED
        # Several starts of one cell show where it was interrupted.
        _note_start(home / STARTS_NAME)
        result = runner(cell.config, home / _RUN_NAME)
        content = {"cell": cell.identifier, "settings": cell.settings, "result": result}
        # By rename, under the lock: from here on, every process takes the cell for finished.
        write_json(home / RESULT_NAME, with_sum(content))
        (home / ERROR_NAME).unlink(missing_ok=True)
    except AutoMixError as error:
        write_text(home / ERROR_NAME, f"{error}\n")
        return CellState.FAILED
    # Ctrl-C as well: the list of cells should say why there is no result.
    except BaseException:
        write_text(home / ERROR_NAME, traceback.format_exc())
        raise
    finally:
        claim.release()
    return CellState.FINISHED


def _note_start(path: Path) -> None:
    drop_damaged_lines(path)
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    line = {"time": moment, "host": platform.node(), "pid": os.getpid()}
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def read_error(cell: Cell[ConfigType], folder: Path) -> str:
    """Return the last line of the last try's error; empty if there was none."""
    path = folder / cell.identifier / ERROR_NAME
    lines = read_text(path, limit=MAX_JSON_BYTES).splitlines() if path.exists() else []
    return lines[-1] if lines else ""


def read_result(cell: Cell[ConfigType], folder: Path) -> dict[str, Any]:
    """Return the result of a finished cell.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    path = folder / cell.identifier / RESULT_NAME
    content = without_sum(read_json(path))
    result = content.get("result") if content else None
    if not isinstance(result, dict):
        raise CheckpointError(
            f"{path}: expected the result of a finished cell, got a damaged file; without it, the "
            "cell is resumed"
        )
    return result
