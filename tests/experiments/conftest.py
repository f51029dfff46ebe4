"""The tiny search, run once without interruption."""

from pathlib import Path

import pytest

from automix.experiments.search import search
from tests.experiments.tiny_search import TINY


@pytest.fixture(scope="session")
def finished_search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the finished tiny search; read only."""
    folder = tmp_path_factory.mktemp("finished") / "search"
    search(TINY, folder)
    return folder
