"""Episodes: rewards, ends, seeds, states, and the splits they may look at."""

import dataclasses
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from torch import Tensor

from automix.data.batches import ResidentBatches
from automix.data.splits import SearchData
from automix.errors import ConfigError
from automix.files import read_checkpoint, write_checkpoint
from automix.schedule import Schedule
from envs.mixing_env import MixingEnv
from envs.observations import Observation
from tests.envs.conftest import ACTIONS, MakeEnv
from tests.equality import assert_same, untouched_generators
from tests.resident import resident

Transition = tuple[Observation, float, bool, bool, dict[str, Any]]
HUGE = {"learning_rate": 1e30}


def play(env: MixingEnv, *, first: int = 0) -> list[Transition]:
    return [env.step(action) for action in ACTIONS[first:]]


def comparable(transitions: list[Transition]) -> list[object]:
    """Return what must be equal when an episode is repeated: all but wall-clock time."""
    return [
        (
            observation.tolist(),
            reward,
            terminated,
            {key: value for key, value in info.items() if key != "seconds"},
        )
        for observation, reward, terminated, _, info in transitions
    ]


def test_metrics_are_those_of_the_reward_split(make_env: MakeEnv) -> None:
    env = make_env()
    env.reset()
    for action in ACTIONS:
        *_, info = env.step(action)
        # Passed through the network with the training images, in other blocks of a product.
        alone = dataclasses.asdict(env.trainer.evaluate(env.data.reward))
        together = dataclasses.asdict(info["metrics"])
        # There is no average precision of images with one label.
        assert together.pop("mean_average_precision") is alone.pop("mean_average_precision") is None
        assert together == pytest.approx(alone, rel=1e-5)


def test_an_episode_terminates_after_its_last_segment(make_env: MakeEnv) -> None:
    env = make_env()
    env.reset()
    transitions = play(env)
    assert [terminated for _, _, terminated, _, _ in transitions] == [False, False, True]
    assert env.trainer.progress == 1
    assert "schedule" not in transitions[1][4]
    assert {"schedule", "potential", "training_seed", "seconds"} <= transitions[2][4].keys()
    with pytest.raises(RuntimeError, match=r"expected reset\(\)"):
        env.step(ACTIONS[0])
    env.reset()
    env.step(ACTIONS[0])


def test_the_schedule_holds_the_decisions_taken(make_env: MakeEnv) -> None:
    env = make_env()
    env.reset()
    assert [segment.decision.label() for segment in env.schedule().segments] == ["none"]
    transitions = play(env)
    schedule = transitions[-1][4]["schedule"]
    assert isinstance(schedule, Schedule)
    assert [segment.start for segment in schedule.segments] == [0, 1 / 3, 2 / 3]
    decisions = [info["decision"] for *_, info in transitions]
    assert [segment.decision for segment in schedule.segments] == decisions
    assert [decision.label() for decision in decisions] == ["none", "mixup 2 p=0.5", "cutmix 0.2"]


def test_stepping_before_reset_is_refused(make_env: MakeEnv) -> None:
    with pytest.raises(RuntimeError, match=r"expected reset\(\) before anything else"):
        make_env().step(ACTIONS[0])


def test_an_episode_after_a_diverged_one_is_as_good_as_new(make_env: MakeEnv) -> None:
    used, fresh = make_env(trainer=HUGE), make_env(trainer=HUGE)
    used.reset()
    used.step(ACTIONS[0])
    first, _ = used.reset(options={"training_seed": 5})
    second, _ = fresh.reset(options={"training_seed": 5})
    np.testing.assert_array_equal(first, second)


class Poisoned:
    """A split that may be measured and moved, and fails as soon as anything looks into it."""

    num_bytes = 0

    def to(self, device: object) -> "Poisoned":
        del device
        return self

    def __getattr__(self, name: str) -> NoReturn:
        raise AssertionError(f"the environment reads {name} of the selection split")

    def __len__(self) -> NoReturn:
        raise AssertionError("the environment reads the size of the selection split")


def test_only_train_and_reward_splits_are_looked_at(
    make_env: MakeEnv, smoke_data: SearchData
) -> None:
    poisoned = dataclasses.replace(smoke_data, selection=Poisoned())  # type: ignore[arg-type]
    env = make_env(data=poisoned, render_mode="rgb_array")
    env.reset()
    play(env)
    env.render()
    env.set_state(env.get_state())


def test_a_search_has_no_test_images(smoke_data: SearchData) -> None:
    names = {field.name for field in dataclasses.fields(smoke_data)}
    assert names == {
        "train",
        "reward",
        "selection",
        "class_names",
        "statistics",
        "fingerprint",
    }


def test_same_seed_same_sequence_of_episodes(make_env: MakeEnv) -> None:
    episodes = []
    for env in (make_env(seed=7), make_env(seed=1)):
        # The constructor's seed and that of reset name the same sequence.
        first = env.reset() if env._episode == -1 and env._seed == 7 else env.reset(seed=7)
        episode: list[object] = [first[0].tolist(), first[1], comparable(play(env))]
        second = env.reset()
        episode += [second[0].tolist(), second[1], comparable(play(env))]
        assert first[1] != second[1]
        episodes.append(episode)
    assert episodes[0] == episodes[1]


def test_another_seed_gives_another_episode(make_env: MakeEnv) -> None:
    rewards = []
    for seed in (1, 2):
        env = make_env(seed=seed)
        env.reset()
        rewards.append(env.step(ACTIONS[0])[1])
    assert rewards[0] != rewards[1]


def test_without_a_seed_every_environment_is_different(make_env: MakeEnv) -> None:
    seeds = {make_env(seed=None).reset()[1]["training_seed"] for _ in range(3)}
    assert len(seeds) == 3


def test_a_training_seed_names_one_training(make_env: MakeEnv) -> None:
    first, second = make_env(seed=1), make_env(seed=2)
    second.reset()
    for env in (first, second):
        _, info = env.reset(options={"training_seed": 99})
        assert info == {"training_seed": 99, "start_segment": 0, "gain_so_far": 0.0}
    assert comparable(play(first)) == comparable(play(second))


def test_unknown_options_are_refused(make_env: MakeEnv) -> None:
    with pytest.raises(ValueError, match=r"expected options among .*, got \['sead'\]"):
        make_env().reset(options={"sead": 1})


@pytest.mark.parametrize("num_done", [0, 1, 2])
def test_a_state_continues_an_episode_through_a_file(
    make_env: MakeEnv, tmp_path: Path, num_done: int
) -> None:
    env, other = make_env(seed=1), make_env(seed=2)
    env.reset()
    env.reset()
    observation = env.step(ACTIONS[0])[0]
    observation, _ = env.reset()
    for action in ACTIONS[:num_done]:
        observation = env.step(action)[0]
    write_checkpoint(tmp_path / "env.bin", {"env": env.get_state()})
    other.reset()
    other.step(ACTIONS[2])
    loaded = read_checkpoint(tmp_path / "env.bin")
    np.testing.assert_array_equal(other.set_state(loaded["env"]), observation)
    assert comparable(play(other, first=num_done)) == comparable(play(env, first=num_done))
    # The episodes after it are the same, too.
    assert env.reset()[1] == other.reset()[1]
    assert_same(env.trainer.state_dict(), other.trainer.state_dict())


def test_a_state_is_a_copy(make_env: MakeEnv) -> None:
    env, other = make_env(seed=1), make_env(seed=2)
    env.reset()
    env.step(ACTIONS[0])
    state = env.get_state()
    rest = comparable(play(env, first=1))
    other.set_state(state)
    assert comparable(play(other, first=1)) == rest
    other.set_state(state)
    assert comparable(play(other, first=1)) == rest


def test_seconds_go_on_after_a_continuation(make_env: MakeEnv) -> None:
    env, other = make_env(), make_env()
    env.reset()
    env.step(ACTIONS[0])
    state = env.get_state()
    assert state["seconds"] > 0
    state["seconds"] = 1000.0
    other.set_state(state)
    assert play(other, first=1)[-1][4]["seconds"] > 1000


def pointers(env: MixingEnv) -> list[int]:
    trainer = env.trainer
    batches = trainer.training_step.batches
    assert isinstance(batches, ResidentBatches)
    tensors: list[Tensor] = [*trainer.model.state_dict().values()]
    tensors += trainer.evaluated_model.state_dict().values()
    tensors += [resident(env.data.train).images, batches._split.images]
    assert env.measurement._clean is not None
    tensors.append(env.measurement._clean.images)
    return [tensor.data_ptr() for tensor in tensors]


def test_reset_reloads_and_reallocates_nothing(make_env: MakeEnv) -> None:
    env = make_env()
    env.reset()
    trainer, before = env.trainer, pointers(env)
    play(env)
    env.reset(seed=5)
    env.step(ACTIONS[1])
    assert env.trainer is trainer
    assert pointers(env) == before


def test_global_generators_are_left_alone(make_env: MakeEnv) -> None:
    with untouched_generators():
        env = make_env(render_mode="rgb_array")
        env.reset(seed=3)
        play(env)
        env.render()
        env.set_state(env.get_state())


def test_more_segments_than_steps_are_refused(make_env: MakeEnv) -> None:
    with pytest.raises(ConfigError, match=r"num_segments: expected at most 12 .*, got 13"):
        make_env(num_segments=13)
    make_env(num_segments=12)


def test_uneven_segments_cover_the_training(make_env: MakeEnv) -> None:
    env = make_env(num_segments=5)
    env.reset()
    lengths, before = [], 0
    for _ in range(5):
        env.step(ACTIONS[0])
        lengths.append(env.trainer.step - before)
        before = env.trainer.step
    assert sum(lengths) == env.trainer.total_steps == 12
    assert max(lengths) - min(lengths) == 1


def test_render_without_a_mode_is_none(make_env: MakeEnv) -> None:
    env = make_env()
    env.reset()
    assert env.render() is None


def test_pictures_change_with_the_episode(make_env: MakeEnv) -> None:
    env = make_env(render_mode="rgb_array")
    env.reset()
    first = env.render()
    env.step(ACTIONS[1])
    second = env.render()
    assert first is not None
    assert second is not None
    assert first.shape == second.shape
    assert (first != second).any()
