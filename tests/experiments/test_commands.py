"""The table of commands: complete, importable, and read by sweeps."""

from pathlib import Path
from pkgutil import resolve_name

import pytest

from automix.configuration.base import Config
from automix.errors import ConfigError
from automix.experiments.commands import COMMANDS
from automix.experiments.common.interruption import Interrupted, resumable
from automix.experiments.sweep.run import load_sweep, measures_of


def test_every_name_in_the_table_can_be_imported() -> None:
    for name, command in COMMANDS.items():
        assert command.name == name
        functions = (command.run, command.predict_cost, command.summarize, command.identify)
        references = (command.config, command.flags, command.cell_config, *functions)
        assert all(callable(resolve_name(reference)) for reference in filter(None, references))
        assert bool(command.run) == bool(command.predict_cost)


def test_each_command_with_a_file_prints_its_configuration() -> None:
    with_file = {name for name, command in COMMANDS.items() if command.takes_file}
    experiments = {name for name in with_file if not name.startswith("config ")}
    assert with_file == experiments | {f"config {name}" for name in experiments}
    for name in with_file:
        assert COMMANDS[name].config == COMMANDS[name.removeprefix("config ")].config


def test_cells_of_sweeps_have_measures_and_a_configuration(tmp_path: Path) -> None:
    cells = [name for name, command in COMMANDS.items() if command.identify]
    assert cells == ["search", "replay", "compare", "search_and_compare"]
    for name in cells:
        command = COMMANDS[name]
        assert all(measure.path for measure in measures_of(command).values())
        assert issubclass(resolve_name(command.cell_config or command.config), Config)
    file = tmp_path / "sweep.yaml"
    file.write_text("experiment: probe\n")
    with pytest.raises(ConfigError, match="expected one of search, replay, compare, search_and_"):
        load_sweep(file, tmp_path / "out", COMMANDS)


def test_an_interrupted_body_says_how_to_resume(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt, match=r"^$"), resumable(tmp_path, "search", "a b.yaml"):
        raise KeyboardInterrupt
    (tmp_path / "config.yaml").touch()
    with pytest.raises(Interrupted) as caught, resumable(tmp_path, "search", "a b.yaml"):
        raise KeyboardInterrupt
    assert str(caught.value) == f"continue with: automix search 'a b.yaml' --output {tmp_path}"
    with (
        pytest.raises(Interrupted, match=r"^continue with: torchrun x replay --resume run$"),
        resumable(Path("run"), "replay", "--resume", "run", mark=None, launcher="torchrun x"),
    ):
        raise KeyboardInterrupt
