"""A policy in closed loop decides as it does in its environment, and can be stopped anywhere."""

import json
from pathlib import Path

import pytest
from torch import nn

from agents.learned import LearnedPolicy, make_network, roll_out
from automix.configuration.task import CheckpointConfig, ReplayConfig, TaskConfig
from automix.data.load import load_data
from automix.errors import CheckpointError, ConfigError, DataError
from automix.experiments.config import SearchConfig
from automix.experiments.replay.deciders import ScheduleSource, follows_policy
from automix.experiments.replay.policy import PolicySource
from automix.experiments.replay.run import replay
from automix.files import write_text
from automix.schedule import Schedule, decisions_hash
from envs.actions import ActionCodec
from envs.config import EnvironmentConfig
from envs.mixing_env import MixingEnv
from envs.smoke import SMOKE_ENVIRONMENT, SMOKE_TASK
from tests.equality import assert_same
from tests.experiments.tiny_replay import Stops, attempts, outputs

# 12 steps, 3 segments.
CONFIG = ReplayConfig(
    seed=7,
    task=SMOKE_TASK,
    validations=2,
    checkpoints=CheckpointConfig(every_minutes=None, every_steps=5),
)
LAST_STEP = 12


def save_search(folder: Path, environment: EnvironmentConfig, *, prefers: int | None) -> Path:
    env = MixingEnv(SMOKE_TASK, environment)
    network = make_network(env._observations.space, env._actions.space, (8,))
    if prefers is not None:
        assert isinstance(network.action_net, nn.Linear)
        network.action_net.bias.data[prefers] += 100
    LearnedPolicy(network).save(folder / "policy")
    config = SearchConfig(task=SMOKE_TASK, environment=environment)
    write_text(folder / "config.yaml", config.to_yaml())
    return folder


@pytest.fixture
def search(tmp_path: Path) -> Path:
    """The folder of a search, as far as a replay reads it, whose policy reacts to what it sees."""
    return save_search(tmp_path / "search", SMOKE_ENVIRONMENT, prefers=None)


def test_a_policy_may_choose_mixtures_and_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = {"actions": "mixtures", "segment_starts": (0.0, 0.5, 0.75)}
    environment = EnvironmentConfig.model_validate(SMOKE_ENVIRONMENT.model_dump() | changed)
    source = PolicySource.load(save_search(tmp_path / "search", environment, prefers=-1))
    replay(CONFIG, source, tmp_path / "whole")
    schedule = Schedule.load(tmp_path / "whole" / "schedule.json")
    assert [it.start for it in schedule.segments] == [0.0, 0.5, 0.75]
    last = ActionCodec(environment).choices()[-1]
    assert [it.mixture for it in schedule.segments] == [last] * 3
    assert schedule.version == 2
    stops = Stops(monkeypatch)
    stops.steps = {7}
    assert list(attempts(CONFIG, source, tmp_path / "cut")) == [False, True]
    whole = outputs(tmp_path / "whole", last_step=LAST_STEP)
    assert_same(outputs(tmp_path / "cut", last_step=LAST_STEP), whole)


def test_a_policy_decides_as_in_its_environment(search: Path, tmp_path: Path) -> None:
    source = PolicySource.load(search)
    result = replay(CONFIG, source, tmp_path / "run")
    env = MixingEnv(SMOKE_TASK, SMOKE_ENVIRONMENT, seed=0)
    expected, _ = roll_out(source.policy, env, training_seed=CONFIG.seed)
    written = Schedule.load(tmp_path / "run" / "schedule.json")
    assert written.segments == expected.segments
    assert result["schedule_hash"] == expected.decision_hash()
    assert result["decisions_hash"] == decisions_hash(expected.decisions(LAST_STEP))
    assert result["follows"] == source.identity
    applied = json.loads((tmp_path / "run" / "decisions.json").read_text())
    assert applied["runs"][0]["start"] == 0
    assert applied["runs"][-1]["stop"] == LAST_STEP


def test_a_replay_of_what_a_policy_decided_is_the_same_training(
    search: Path, tmp_path: Path
) -> None:
    replay(CONFIG, PolicySource.load(search), tmp_path / "policy")
    schedule = Schedule.load(tmp_path / "policy" / "schedule.json")
    replay(CONFIG, ScheduleSource(schedule), tmp_path / "schedule")
    files = [tmp_path / kind / "classifier.safetensors" for kind in ("policy", "schedule")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_policy_that_is_stopped_after_every_step_ends_in_the_same_bits(
    search: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = PolicySource.load(search)
    replay(CONFIG, source, tmp_path / "whole")
    stops = Stops(monkeypatch)
    stops.steps = set(range(LAST_STEP))
    folder = tmp_path / "cut"
    replaying = attempts(CONFIG, source, folder)
    assert next(replaying) is False
    # From here on from its own folder, whatever becomes of the search.
    (search / "config.yaml").unlink()
    assert follows_policy(folder)
    copied = PolicySource.load(folder)
    assert copied.identity == source.identity
    assert list(attempts(CONFIG, copied, folder))[-1] is True
    whole = outputs(tmp_path / "whole", last_step=LAST_STEP)
    assert_same(outputs(folder, last_step=LAST_STEP), whole)


def test_the_reward_split_is_needed_and_held_out(search: Path, tmp_path: Path) -> None:
    data = load_data(SMOKE_TASK.data).seen
    assert not {bytes(image.numpy()) for image in data.reward.images} & {
        bytes(image.numpy()) for image in data.train.take(data.train.labels.argsort())[0]
    }
    task = TaskConfig.model_validate(
        SMOKE_TASK.model_dump() | {"data": SMOKE_TASK.data.model_dump() | {"reward_size": 0}}
    )
    config = CONFIG.model_copy(update={"task": task})
    with pytest.raises(DataError, match=r"task\.data\.reward_size: expected more than 0, because"):
        replay(config, PolicySource.load(search), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_training_needs_a_step_for_each_decision(search: Path, tmp_path: Path) -> None:
    task = TaskConfig.model_validate(
        SMOKE_TASK.model_dump()
        | {"trainer": SMOKE_TASK.trainer.model_dump() | {"epochs": 2, "batch_size": 30}}
    )
    config = CONFIG.model_copy(update={"task": task})
    with pytest.raises(ConfigError, match="expected a training run of at least 3 steps"):
        replay(config, PolicySource.load(search), tmp_path / "run")


def test_a_policy_of_another_environment_is_refused(search: Path, tmp_path: Path) -> None:
    environment = EnvironmentConfig.model_validate(
        SMOKE_ENVIRONMENT.model_dump() | {"num_strengths": 1}
    )
    config = SearchConfig(task=SMOKE_TASK, environment=environment)
    write_text(search / "config.yaml", config.to_yaml())
    message = "3 x 1 x 2 choices within the bounds of its environment, got one of .* 3 x 2 x 2"
    with pytest.raises(CheckpointError, match=message):
        replay(CONFIG, PolicySource.load(search), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_follows_one_thing(search: Path, tmp_path: Path) -> None:
    policy = PolicySource.load(search)
    folder = tmp_path / "run"
    policy.claim(folder)
    policy.claim(folder)
    schedule = ScheduleSource(Schedule.load(Path(__file__).parents[1] / "golden/schedule-v1.json"))
    with pytest.raises(CheckpointError, match="expected a run of this schedule, got another's"):
        schedule.claim(folder)
    schedule.claim(tmp_path / "other")
    with pytest.raises(CheckpointError, match="expected a run of this policy, got one of a sched"):
        policy.claim(tmp_path / "other")
    (search / "policy/policy.json").write_text((search / "policy/policy.json").read_text() + "\n")
    with pytest.raises(CheckpointError, match="expected a run of this policy, got another's"):
        PolicySource.load(search).claim(folder)
