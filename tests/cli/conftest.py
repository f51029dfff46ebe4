"""A command line in a folder of its own."""

from pathlib import Path

import platformdirs
import pytest

from automix.cli.main import main
from tests.cli.running import Outcome, RunCommand


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder."""
    # Not by the environment, which would move matplotlib's too: it takes seconds to fill.
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "cache" / name)
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of the commands, empty."""
    path = tmp_path / "work"
    path.mkdir()
    monkeypatch.chdir(path)
    assert not cache.exists()
    return path


@pytest.fixture
def run_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> RunCommand:
    """Run ``automix`` in this process."""

    def run(*words: str) -> Outcome:
        assert folder == Path.cwd()
        code = main(words)
        captured = capsys.readouterr()
        return Outcome(code=code, out=captured.out, err=captured.err)

    return run
