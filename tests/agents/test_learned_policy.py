"""A policy as a file: what is saved is what is loaded, and nothing in it is executed."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from gymnasium import spaces
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agents.learned import FACTS_NAME, WEIGHTS_NAME, LearnedPolicy, make_network, roll_out
from automix.errors import CheckpointError
from tests.agents.toy import NUM_SEGMENTS, SWITCH, BlindPolicy, ToyEnv
from tests.equality import assert_same, untouched_generators

OBSERVATIONS = spaces.Box(
    np.array([0, -2, -8], dtype=np.float32), np.array([1, 2, 1], dtype=np.float32)
)
ACTIONS = spaces.MultiDiscrete([5, 3, 2])


def make_policy(seed: int = 0) -> LearnedPolicy:
    policy = LearnedPolicy(make_network(OBSERVATIONS, ACTIONS, (7, 5)))
    generator = torch.Generator().manual_seed(seed)
    for value in policy.network.state_dict().values():
        value.copy_(torch.randn(value.shape, generator=generator))
    return policy


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    make_policy().save(tmp_path)
    return tmp_path


def test_what_is_loaded_is_what_was_saved(saved: Path) -> None:
    policy, loaded = make_policy(), LearnedPolicy.load(saved)
    assert_same(dict(policy.network.state_dict()), dict(loaded.network.state_dict()))
    assert loaded.network.observation_space == OBSERVATIONS
    assert loaded.network.action_space == ACTIONS
    generator = np.random.default_rng(0)
    actions = set()
    for _ in range(200):
        observation = generator.uniform(OBSERVATIONS.low, OBSERVATIONS.high).astype(np.float32)
        action = policy.act(observation)
        np.testing.assert_array_equal(loaded.act(observation), action)
        assert ACTIONS.contains(action)
        actions.add(tuple(action))
    assert len(actions) > 3


def test_the_action_is_the_most_probable_one() -> None:
    policy = make_policy()
    observation = OBSERVATIONS.high
    with torch.no_grad():
        distribution = policy.network.get_distribution(torch.from_numpy(observation)[None])
    modes = distribution.mode()[0].tolist()
    assert policy.act(observation).tolist() == modes


def test_saving_a_loaded_policy_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    LearnedPolicy.load(saved).save(tmp_path / "again")
    for name in (WEIGHTS_NAME, FACTS_NAME):
        assert (saved / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_global_generators_are_left_alone(saved: Path) -> None:
    with untouched_generators():
        LearnedPolicy.load(saved).act(OBSERVATIONS.low)


def test_a_missing_policy_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"policy\.json: expected a readable file, got: no"):
        LearnedPolicy.load(tmp_path)


def test_missing_weights_are_one_line(saved: Path) -> None:
    (saved / WEIGHTS_NAME).unlink()
    with pytest.raises(CheckpointError, match=r"policy\.safetensors: expected a readable file"):
        LearnedPolicy.load(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "automix-schedule"}, "format: expected .*automix-policy.*, got"),
        ({"version": 2}, "version: expected 1, got 2"),
        ({"hidden_sizes": [0]}, r"hidden_sizes.*: expected .*, got 0"),
        ({"hidden_sizes": [10**9]}, r"hidden_sizes.*: expected .*, got 1000000000"),
        ({"hidden_sizes": [8] * 1000}, "hidden_sizes: expected"),
        ({"hidden_sizes": [7, 6]}, r"policy\.safetensors: expected weights that fit, got"),
        ({"hidden_sizes": "7"}, "hidden_sizes: expected"),
        ({"action_sizes": [5, -3, 2]}, r"action_sizes.*: expected"),
        ({"action_sizes": []}, "action_sizes: expected"),
        ({"action_sizes": [10**12]}, r"action_sizes.*: expected"),
        ({"action_sizes": [5, 3, 3]}, "expected weights that fit"),
        ({"observation_low": [0, 0]}, "expected a lower and a higher bound for each feature"),
        ({"observation_low": [9, 9, 9]}, "expected a lower and a higher bound for each feature"),
        ({"observation_low": [0, [1], 2]}, r"observation_low.*: expected"),
        ({"observation_low": [0] * 10_000}, "observation_low: expected"),
        ({"extra": 1}, "got the unknown key 'extra'"),
        ({"lstm_size": 16}, "lstm_size: expected null, got 16"),
        ({"hidden_sizes": None}, "hidden_sizes: expected"),
    ],
)
def test_facts_that_do_not_fit_are_one_line(
    saved: Path, changes: dict[str, Any], message: str
) -> None:
    facts = json.loads((saved / FACTS_NAME).read_text())
    (saved / FACTS_NAME).write_text(json.dumps(facts | changes))
    with pytest.raises(CheckpointError, match=message) as caught:
        LearnedPolicy.load(saved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"format": NaN}', b"1" * 5000],
    ids=["empty", "cut", "list", "null", "bytes", "deep", "nan", "long number"],
)
def test_facts_that_are_no_facts_are_one_line(saved: Path, content: bytes) -> None:
    (saved / FACTS_NAME).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"policy\.json: .*expected .*got") as caught:
        LearnedPolicy.load(saved)
    assert "\n" not in str(caught.value)


class _Hostile:
    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._marker),)


def test_a_pickle_is_not_executed(saved: Path) -> None:
    marker = saved / "executed"
    hostile = pickle.dumps(_Hostile(marker))
    for name in (WEIGHTS_NAME, FACTS_NAME):
        make_policy().save(saved)
        (saved / name).write_bytes(hostile)
        with pytest.raises(CheckpointError):
            LearnedPolicy.load(saved)
    assert not marker.exists()
    pickle.loads(hostile)
    assert marker.exists()  # the payload works where it is executed


@settings(max_examples=50)
@given(st.data())
def test_cut_or_overwritten_weights_are_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("policy")
    make_policy().save(folder)
    content = (folder / WEIGHTS_NAME).read_bytes()
    cut = content[: data.draw(st.integers(0, len(content) - 1))]
    damaged = cut + data.draw(st.binary(max_size=3))
    # Of the right length, they may be a policy with other numbers at the end.
    assume(len(damaged) != len(content))
    (folder / WEIGHTS_NAME).write_bytes(damaged)
    with pytest.raises(CheckpointError) as caught:
        LearnedPolicy.load(folder)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_finite_are_refused(saved: Path) -> None:
    weights = safetensors.torch.load_file(saved / WEIGHTS_NAME)
    weights["action_net.bias"][2] = torch.nan
    safetensors.torch.save_file(weights, saved / WEIGHTS_NAME)
    with pytest.raises(CheckpointError, match=r"expected finite weights, got others in action_net"):
        LearnedPolicy.load(saved)


def test_missing_and_additional_tensors_are_refused(saved: Path) -> None:
    weights = safetensors.torch.load_file(saved / WEIGHTS_NAME)
    more = weights | {"more": torch.zeros(2)}
    less = {name: value for name, value in weights.items() if name != "value_net.bias"}
    for tensors in (more, less):
        safetensors.torch.save_file(tensors, saved / WEIGHTS_NAME)
        with pytest.raises(CheckpointError, match="expected weights that fit"):
            LearnedPolicy.load(saved)


def test_roll_out_returns_what_was_applied_and_earned() -> None:
    env = ToyEnv(SWITCH, noise=0.1)
    policy = BlindPolicy(lambda: np.array([1, 2, 1]))
    schedule, total = roll_out(policy, env, training_seed=4)
    assert [segment.decision.label() for segment in schedule.segments] == ["mixup 2"] * NUM_SEGMENTS
    assert schedule == env.schedule()
    assert env.trainer.seed == 4
    assert total == 1 - env.trainer.evaluate(env.data.reward).nll
