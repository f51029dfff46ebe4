"""Fixtures shared by all tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

from tests.worlds import RunWorld, world_runner

# The clock of a shared machine says nothing about an example. `HYPOTHESIS_PROFILE=thorough` tries
# ten times as many.
hypothesis.settings.register_profile("quick", deadline=None, max_examples=30)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=300)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Bit-for-bit comparisons need a fixed number of threads; tiny tensors need only one."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The folder with reference outputs and photographs; tests skip where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("AUTOMIX_SHARED", default))
    if not folder.is_dir():
        pytest.skip("the reference outputs and photographs are not on this machine")
    return folder


@pytest.fixture(scope="session")
def run_world() -> Iterator[RunWorld]:
    """Run a function in several processes that have joined one world."""
    with world_runner() as run:
        yield run
