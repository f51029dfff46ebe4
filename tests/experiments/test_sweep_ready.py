"""The sweeps in configs/ablation: valid, and what they measure is there."""

from collections.abc import Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest

from automix.configuration.base import Config
from automix.experiments.commands import COMMANDS
from automix.experiments.sweep.cell import Cell, run_cell
from automix.experiments.sweep.run import Sweep, load_sweep, measures_of
from automix.experiments.sweep.table import build_table, format_table

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs" / "ablation").glob("*.yaml"))
NAMES = [path.stem for path in FILES]
# Every cell in a second or two, whatever the sweep says about lengths.
SMALL: Mapping[str, Any] = {
    "task": {
        "data": {"labels_per_class": 3, "test_size": 2, "reward_size": 3, "selection_size": 3},
        "model": {"width": 2},
        "trainer": {"epochs": 4, "batch_size": 10},
    },
    "agent": {"episodes": 4, "episodes_per_rollout": 4},
    "environment": {"num_segments": 2, "probe_batch": 4},
    "selection": {"learned_candidates": 1, "rounds": 1},
    "outcome": {"num_seeds": 2, "task": None},
    "num_seeds": 2,
}


def load_small(path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Sweep:
    # Paths of schedules are relative to where the command runs.
    monkeypatch.chdir(ROOT)
    return load_sweep(path, folder, COMMANDS)


def smaller(config: Config) -> Config:
    """Return the configuration of a cell with everything small, on digits."""
    values = config.model_dump(mode="json")
    _put(values, SMALL)
    data = values["task"]["data"]
    data.update(source="digits", path=None, image_size=None)
    if values.get("environment", {}).get("observation") == ["progress"]:
        values["environment"]["probe_batch"] = 32
    return type(config).from_mapping(values, source="smaller")


def _put(values: dict[str, Any], small: Mapping[str, Any]) -> None:
    for key, value in small.items():
        if key in values and isinstance(value, dict) and isinstance(values[key], dict):
            _put(values[key], value)
        elif key in values:
            values[key] = value


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_every_cell_is_valid(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = load_small(path, monkeypatch, tmp_path)
    assert len(sweep.cells) > 1
    assert sweep.config.seed_key in sweep.config.grid, "a table without intervals says little"
    assert all(cell.config.compute.workers == 1 for cell in sweep.cells)
    comments = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert f"#   automix ablate configs/ablation/{path.name}" in comments
    assert any(f"# Cost: {len(sweep.cells)} cells" in line for line in comments)


def test_there_is_one_for_each_question() -> None:
    assert {"operators", "reward", "observation", "segments", "proxy", "seeds"} <= set(NAMES)
    assert {"schedule", "transfer"} <= set(NAMES)


@pytest.mark.parametrize(
    "name",
    [
        "schedule",
        "transfer",
        "transfer-folder",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("operators", "reward")),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("segments", "proxy", "seeds")),
        pytest.param("observation", marks=pytest.mark.slow),
    ],
)
def test_the_first_and_last_cells_give_what_is_measured(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = load_small(ROOT / "configs" / "ablation" / f"{name}.yaml", monkeypatch, tmp_path)
    cells = [
        Cell(
            identifier=cell.identifier,
            settings=cell.settings,
            config=smaller(cell.config),
        )
        for cell in (sweep.cells[0], sweep.cells[-1])
    ]
    for cell in cells:
        run_cell(cell, tmp_path, resolve_name(sweep.experiment.run))
    measures = sweep.config.measures or measures_of(sweep.experiment)
    table = build_table(sweep.config, cells, tmp_path, measures)
    assert len(table["cells"]) == 2
    for entry in table["cells"]:
        assert all(value is not None for value in entry["values"].values())
    assert "mean" in format_table(table)
