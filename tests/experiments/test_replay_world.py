"""Two processes that replay together stop together, and resume to the same bits."""

from pathlib import Path

import pytest

from automix.configuration.task import ReplayConfig
from automix.errors import AutoMixError
from automix.experiments.replay.run import replay
from automix.training.distributed import current_world
from tests.equality import assert_same
from tests.experiments.test_replay_resume import CASES, EVERY_CASE
from tests.experiments.tiny_replay import (
    FAMILIES,
    TOTAL_STEPS,
    Stops,
    attempts,
    outputs,
    schedule_of,
    tiny,
)
from tests.worlds import RunWorld

Case = tuple[str, ReplayConfig]


def stop_after_every_step(cases: list[Case], folder: Path) -> None:
    """Replay each case whole, and stopped after every step by a signal to one process."""
    world = current_world()
    for number, (family, config) in enumerate(cases):
        schedule = schedule_of(FAMILIES[family])
        whole, cut = folder / f"{number}-whole", folder / f"{number}-cut"
        replay(config, schedule, whole)
        with pytest.MonkeyPatch.context() as patch:
            stops = Stops(patch)
            stops.steps = set(range(world.rank, TOTAL_STEPS, world.size))
            assert len(list(attempts(config, schedule, cut))) == TOTAL_STEPS + 1
        if world.is_main:
            assert_same(outputs(cut), outputs(whole), where=f"{family} {number}")


def stop_once_at_any_step(cases: list[Case], folder: Path) -> None:
    world = current_world()
    for number, (family, config) in enumerate(cases):
        schedule = schedule_of(FAMILIES[family])
        replay(config, schedule, folder / f"{number}")
        for step in range(TOTAL_STEPS):
            cut = folder / f"{number}-{step}"
            with pytest.MonkeyPatch.context() as patch:
                stops = Stops(patch)
                stops.steps = {step} if world.rank == step % world.size else set()
                assert list(attempts(config, schedule, cut)) == [False, True]
            if world.is_main:
                assert_same(outputs(cut), outputs(folder / f"{number}"), where=f"{family} {step}")


def test_two_processes_that_are_stopped_after_every_step_end_in_the_same_bits(
    run_world: RunWorld, tmp_path: Path
) -> None:
    run_world(2, stop_after_every_step, [CASES[5], CASES[7]], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(EVERY_CASE)), ids=lambda n: f"{EVERY_CASE[n][0]}-{n}")
def test_two_processes_that_are_stopped_once_at_any_step_end_in_the_same_bits(
    run_world: RunWorld, number: int, tmp_path: Path
) -> None:
    run_world(2, stop_once_at_any_step, [EVERY_CASE[number]], tmp_path)


def expect_the_same_number_of_processes(folder: Path) -> None:
    message = "expected checkpoints with number of processes 2, got 1; continue what was begun"
    with pytest.raises(AutoMixError, match=message):
        replay(tiny(), schedule_of(FAMILIES["random"]), folder)


def test_another_number_of_processes_is_refused(
    run_world: RunWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops = Stops(monkeypatch)
    stops.steps = {4}
    replaying = attempts(tiny(), schedule_of(FAMILIES["random"]), tmp_path / "run")
    assert next(replaying) is False
    run_world(2, expect_the_same_number_of_processes, tmp_path / "run")
    assert next(replaying) is True
