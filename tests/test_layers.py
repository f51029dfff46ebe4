"""Imports point down: the contract in pyproject.toml holds, and is one that can break."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.source_rules import PACKAGES, ROOT

_SCRIPT = (
    "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
)


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of the packages in ``folder``."""
    return subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        capture_output=True, text=True, check=False, cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "NO_COLOR": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages and their contracts, in a folder that may be changed."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_the_contracts_hold(copy: Path) -> None:
    result = lint(copy)
    assert result.returncode == 0, result.stdout
    assert "0 broken" in result.stdout


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        (
            "automix/operators/mixup_cutmix.py",
            "from automix.training.trainer import ClassifierTrainer",
            "automix.operators is not allowed to import automix.training",
        ),
        (
            "automix/schedule.py",
            "import gymnasium",
            "automix.schedule is not allowed to import gymnasium",
        ),
        (
            "automix/experiments/replay/run.py",
            "from automix.experiments.config import SearchConfig",
            "automix.experiments.replay.run is not allowed to import agents",
        ),
        (
            "automix/experiments/common/run_folder.py",
            "from automix.experiments.replay.policy import PolicySource",
            "automix.experiments.common is not allowed to import stable_baselines3",
        ),
        (
            "automix/integrations/scheduled_mix.py",
            "import automix.reporting.canvas",
            "automix.integrations is not allowed to import matplotlib",
        ),
    ],
)
def test_an_import_that_points_up_is_found(copy: Path, file: str, line: str, said: str) -> None:
    path = copy / file
    before = path.read_text()
    path.write_text(f"{before}\n{line}  # noqa: F401, E402\n")
    result = lint(copy)
    path.write_text(before)
    assert result.returncode == 1
    assert said in result.stdout


def test_every_module_has_its_layer(copy: Path) -> None:
    """A module that no layer names could import whatever it likes."""
    text = (ROOT / "pyproject.toml").read_text()
    listed = text.partition("layers = [")[2].partition("]")[0]
    free = {"__init__", "__main__", "py"}
    for path in (ROOT / "automix").iterdir():
        is_module = path.suffix == ".py" or any(path.glob("*.py"))
        if path.stem in free or not is_module:
            continue
        assert f"automix.{path.stem}" in listed.replace('"', " ").replace("|", " ").split(), path
