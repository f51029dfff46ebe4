"""Number of runs at once: as many as keep all processes busy, unless a timing speaks against it."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from automix.configuration.task import ComputeConfig
from automix.data.splits import SearchData
from automix.experiments.common import population_choice as module
from automix.experiments.common.population_choice import (
    PopulationChoice,
    choose_population,
    settled,
)
from automix.training.trainer import load_search_data
from envs.smoke import SMOKE_TASK


@pytest.fixture(scope="module")
def data() -> SearchData:
    return load_search_data(SMOKE_TASK.data)


def timed(monkeypatch: pytest.MonkeyPatch, ratio: Callable[[int], float], device: str) -> None:
    monkeypatch.setattr(module, "_measured_ratio", lambda task, data, count: ratio(count))
    monkeypatch.setattr(module, "training_device", lambda: torch.device(device))


@pytest.mark.parametrize(
    ("device", "num_runs", "num_processes", "ratio", "expected"),
    [
        ("cpu", 16, 2, 0.5, 8),
        ("cpu", 16, 8, 0.5, 2),
        ("cpu", 5, 2, 0.5, 3),
        ("cpu", 100, 2, 0.5, 8),
        ("cpu", 16, 2, 0.95, 1),
        ("cpu", 2, 2, 0.5, 1),
        ("cuda", 16, 8, 0.5, 16),
    ],
)
def test_the_number_follows_from_runs_processes_and_timing(
    data: SearchData,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    num_runs: int,
    num_processes: int,
    ratio: float,
    expected: int,
) -> None:
    timed(monkeypatch, lambda count: ratio, device)
    choice = choose_population(SMOKE_TASK, data, num_runs=num_runs, num_processes=num_processes)
    assert choice.population == expected
    assert f"population: {expected}" in choice.describe()


def test_without_memory_there_are_fewer(data: SearchData, monkeypatch: pytest.MonkeyPatch) -> None:
    def ratio(count: int) -> float:
        if count > 4:
            raise torch.OutOfMemoryError
        return 0.5

    timed(monkeypatch, ratio, "cuda")
    choice = choose_population(SMOKE_TASK, data, num_runs=16, num_processes=1)
    assert choice == PopulationChoice(population=4, ratio=0.5)


def test_the_timing_trains_both(data: SearchData) -> None:
    assert 0 < module._measured_ratio(SMOKE_TASK, data, 2) < 10


def test_a_choice_is_said_once_and_kept(
    tmp_path: Path,
    data: SearchData,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "population.json"

    def population(compute: ComputeConfig) -> int | None:
        return settled(path, SMOKE_TASK, compute, data, num_runs=8, num_processes=2).population

    assert population(ComputeConfig(population=3)) == 3
    assert not path.exists()
    timed(monkeypatch, lambda count: 0.5, "cpu")
    with caplog.at_level(logging.INFO):
        assert population(ComputeConfig()) == 4
    said = ["population: 4 training runs at once" in line for line in caplog.messages]
    # Before it, that steps are timed.
    assert said == [False, True]
    # A later attempt takes what the first one took, whatever is measured now.
    timed(monkeypatch, lambda count: 2.0, "cpu")
    assert population(ComputeConfig()) == 4
    assert json.loads(path.read_text()) == {"population": 4, "ratio": 0.5}
