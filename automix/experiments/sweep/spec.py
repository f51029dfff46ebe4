"""Sweeps: a base configuration and a grid, expanded to validated cells named by their content."""

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from pydantic import Field

from automix.configuration.base import Config, read_values
from automix.errors import AutoMixError, ConfigError
from automix.reporting.tables import Direction

MAX_CELLS = 10_000
VARIANT = "variant"
"""What the name of a variant is called among the settings of a cell."""

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
    """One experiment of a sweep.

    Attributes:
        identifier: hash of the experiment's name and its whole configuration.
        settings: the variant and the grid's values, by key: what tells it from the other cells.
        config: validated, complete.
    """

    identifier: str
    settings: Mapping[str, Any]
    config: ConfigType


def expand_sweep(
    sweep: SweepConfig,
    model: type[ConfigType],
    *,
    source: Path,
    identify: Callable[[ConfigType], str] = Config.content_hash,
) -> tuple[Cell[ConfigType], ...]:
    """Return the cells of a sweep in the order of its file.

    Args:
        sweep: what `source` holds.
        model: the configuration of the sweep's experiment.
        source: the sweep's file, which the base is relative to and messages name.
        identify: returns a hash of a configuration, or refuses it.

    Raises:
        ConfigError: the base or a cell does not fit the model or is refused, two cells are equal,
            or there are more than `MAX_CELLS`.
    """
    num_cells = max(1, len(sweep.variants)) * math.prod(map(len, sweep.grid.values()))
    if num_cells > MAX_CELLS:
        raise ConfigError(f"{source}: expected at most {MAX_CELLS} cells, got {num_cells}")
    base = read_values(source.parent / sweep.base, model) if sweep.base else {}
    if not isinstance(base, dict):
        raise ConfigError(f"{source}: base: expected a mapping of keys to values in {sweep.base}")
    cells: dict[str, Cell[ConfigType]] = {}
    for settings, values in _combinations(sweep):
        where = f"{source}: cell {_described(settings)}"
        config = model.from_mapping(_overridden(base, values, where), source=where)
        try:
            identifier = f"{sweep.experiment}-{identify(config)}"
        except AutoMixError as error:
            raise ConfigError(f"{where}: {error}") from None
        if identifier in cells:
            raise ConfigError(
                f"{where}: expected a cell of its own, got the configuration of the cell "
                f"{_described(cells[identifier].settings)}"
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
        return _cell_at(cells, beginning.removeprefix("@"))
    found = [
        cell
        for cell in cells
        if cell.identifier.startswith(beginning)
        or cell.identifier.rpartition("-")[2].startswith(beginning)
    ]
    if len(found) != 1 or not beginning:
        known = ", ".join(cell.identifier for cell in (found or cells)[:8])
        raise ConfigError(
            f"cell: expected the beginning of one identifier ({known}, ...), got {beginning!r}"
        )
    return found[0]


def _cell_at(cells: Sequence[Cell[ConfigType]], position: str) -> Cell[ConfigType]:
    if not position.isdecimal() or not 1 <= int(position) <= len(cells):
        raise ConfigError(f"cell: expected @1 to @{len(cells)}, got @{position}")
    return cells[int(position) - 1]


def _combinations(sweep: SweepConfig) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield the settings of each cell and all its values by dotted key."""
    variants = sweep.variants or {"": {}}
    for (name, variant), values in itertools.product(
        variants.items(), itertools.product(*sweep.grid.values())
    ):
        chosen = dict(zip(sweep.grid, values, strict=True))
        settings = ({VARIANT: name} if sweep.variants else {}) | chosen
        yield settings, {**sweep.overrides, **variant, **chosen}


def _overridden(base: dict[Any, Any], values: Mapping[str, Any], where: str) -> dict[Any, Any]:
    """Return a copy of ``base`` with values put at their dotted keys."""
    result = copy.deepcopy(base)
    for key, value in values.items():
        *parents, last = key.split(".")
        target = result
        for parent in parents:
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                raise ConfigError(f"{where}: {key}: expected a section {parent!r}, got a value")
        target[last] = copy.deepcopy(value)
    return result


def describe_settings(settings: Mapping[str, Any]) -> str:
    """Return settings in one line, such as ``variant=no cutting, seed=3``."""
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def _described(settings: Mapping[str, Any]) -> str:
    return f"({describe_settings(settings)})"
