"""Configurations that ship: found by name from an empty folder, files on the disk first."""

from pathlib import Path

import pytest

from automix import shipped_configs
from automix.configuration.arguments import read_arguments
from automix.errors import ConfigError
from automix.experiments.commands import COMMANDS
from automix.shipped_configs import config_file, first_sentence, shipped_folder
from tests.cli.running import RunCommand

FILES = sorted(path.relative_to(shipped_folder()) for path in shipped_folder().rglob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_the_path_of_a_checkout_names_a_file_that_ships(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = config_file(f"configs/{path}", (path.parts[0],))
    assert file == shipped_folder() / path
    # Those of a subfolder are bases of others, and have no name.
    if len(path.parts) == 2:
        assert config_file(path.stem, (path.parts[0],)) == file


def test_a_file_on_the_disk_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for word in ("digits", "configs/search/digits.yaml"):
        Path(word).parent.mkdir(parents=True, exist_ok=True)
        Path(word).write_text("seed: 5")
        assert config_file(word, ("search",)) == Path(word)


@pytest.mark.parametrize(
    "word", ["configs/../secret.yaml", "search/digits.yaml", "/configs/search/digits.yaml"]
)
def test_other_paths_are_the_users(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert config_file(word, ("search",)) == Path(word)


def test_a_name_of_nothing_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ConfigError, match=r"^digts: expected a YAML file or one .*digits.*, got"):
        config_file("digts", ("search",))


def test_a_wheel_has_them_inside_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped_configs, "__file__", str(tmp_path / "automix/shipped_configs.py"))
    assert shipped_folder() == tmp_path / "configs"
    (tmp_path / "automix/configs").mkdir(parents=True)
    assert shipped_folder() == tmp_path / "automix/configs"


def test_commands_take_names(folder: Path) -> None:
    assert folder == Path.cwd()
    by_path = read_arguments(COMMANDS["search"], ["configs/search/digits.yaml"]).config
    assert read_arguments(COMMANDS["search"], ["digits", "--agent", "ppo"]).config == by_path


def test_the_list_has_every_name(run_command: RunCommand) -> None:
    outcome = run_command("config", "list")
    assert outcome.code == 0
    for path in FILES:
        if len(path.parts) == 2:
            assert f"  {path.stem} " in outcome.out
            assert first_sentence(shipped_folder() / path) in outcome.out
