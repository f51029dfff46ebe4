"""A command line in a folder of its own."""

import logging
from collections.abc import Iterator
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
def _log_levels() -> Iterator[None]:
    """Put back the log levels that a command sets."""
    loggers = [logging.getLogger(name) for name in ("automix", "agents", "envs")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture
def run_command(folder: Path, _log_levels: None, capsys: pytest.CaptureFixture[str]) -> RunCommand:
    """Run ``automix`` in this process."""

    def run(*argv: str) -> Outcome:
        assert folder == Path.cwd()
        code = main(argv)
        captured = capsys.readouterr()
        return Outcome(code=code, out=captured.out, err=captured.err)

    return run
