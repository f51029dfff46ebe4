"""The command line as a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "80"}


def run(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "automix", *argv],
        capture_output=True, text=True, check=False, cwd=folder, env=ENVIRONMENT,
    )  # fmt: skip


def test_a_mistake_is_one_line_and_code_2(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("sed: 1")
    result = run(tmp_path, "search", "bad.yaml")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == (
        "bad.yaml: sed: expected one of seed, runs, minutes, portfolio, pretrained, task, "
        "environment, searcher, agent, selection, compute, "
        "got the unknown key 'sed' (did you mean 'seed'?)\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


def test_the_installed_command_is_the_same_function() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert 'automix = "automix.cli.main:main"' in text
    assert "from automix.cli.main import main" in (ROOT / "automix/__main__.py").read_text()


def test_a_reader_that_leaves_early_gets_no_traceback(tmp_path: Path) -> None:
    for buffering in ("0", ""):
        reading, writing = os.pipe()
        os.close(reading)
        result = subprocess.run(
            [sys.executable, "-m", "automix", "--help"],
            stdout=writing, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path,
            env=ENVIRONMENT | {"PYTHONUNBUFFERED": buffering},
        )  # fmt: skip
        os.close(writing)
        assert (result.returncode, result.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_full_disk_under_the_output_is_one_line(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "automix", "--help"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path,
            env=ENVIRONMENT,
        )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr == (
        "automix: expected a place that can be read and written, got: no space left on device\n"
    )


def test_an_output_that_cannot_draw_frames_gets_the_help(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "automix", "schedule", "show", "--help"],
        capture_output=True, check=False, cwd=tmp_path,
        env=ENVIRONMENT | {"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, b"")
    assert b"PNG file to which the schedule is plotted." in result.stdout
