"""The policy that ships: its files, and a replay of a network and size that it never saw."""

import json
import tomllib
from pathlib import Path

import pytest

from agents.outcomes import OutcomeTable
from agents.prior import Prior
from automix.configuration.task import CheckpointConfig, ReplayConfig, TaskConfig
from automix.experiments.replay.policy import PolicySource, policy_folder
from automix.experiments.replay.run import replay
from automix.schedule import Decision, Schedule, constant_schedule
from envs.observations import TaskFacts
from tests.equality import assert_same
from tests.experiments.tiny_replay import Stops, attempts, outputs

DEFAULT = Path("default")
# Residual blocks and 20 x 20 pixels.
CONFIG = ReplayConfig(
    seed=3,
    task=TaskConfig.from_plain(
        {
            "data": {"image_size": 20, "labels_per_class": 4, "reward_size": 4, "test_size": 4},
            "model": {"name": "resnet20", "width": 4},
            "trainer": {"epochs": 4, "batch_size": 10},
        }
    ),
    validations=1,
    checkpoints=CheckpointConfig(every_minutes=None, every_steps=5),
)
LAST_STEP = 16


def test_its_files_are_small_and_plain() -> None:
    files = [path for path in policy_folder(DEFAULT).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1_000_000
    assert {path.suffix for path in files} == {".json", ".yaml", ".safetensors", ".md"}


def test_a_wheel_has_them() -> None:
    text = Path("pyproject.toml").read_text()
    patterns = tomllib.loads(text)["tool"]["setuptools"]["package-data"]["automix"]
    packed = {path for pattern in patterns for path in Path("automix").glob(pattern)}
    files = {path for path in Path("automix/policies").rglob("*") if path.is_file()}
    assert files
    assert files <= packed


def test_it_decides_for_a_network_and_size_that_it_never_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = PolicySource.load(DEFAULT)
    replay(CONFIG, source, tmp_path / "whole")
    schedule = Schedule.load(tmp_path / "whole" / "schedule.json")
    assert len(schedule.segments) == source.environment.num_segments
    applied = json.loads((tmp_path / "whole" / "decisions.json").read_text())
    assert applied["runs"][-1]["stop"] == LAST_STEP
    stops = Stops(monkeypatch)
    stops.steps = {7}
    assert list(attempts(CONFIG, source, tmp_path / "cut")) == [False, True]
    whole = outputs(tmp_path / "whole", last_step=LAST_STEP)
    assert_same(outputs(tmp_path / "cut", last_step=LAST_STEP), whole)


def test_its_outcomes_say_what_is_likely_to_help_elsewhere() -> None:
    table = OutcomeTable.load(policy_folder(DEFAULT))
    assert len(table) >= 4_000
    facts = TaskFacts(
        num_classes=10, images_per_class=20, image_side=8, channels=1, epochs=60, steps=240
    )
    prior = Prior.of(table, facts)
    nothing = constant_schedule(Decision(operator="none"))
    assert prior.worth(prior.best_schedule()) > max(0, prior.worth(nothing))
