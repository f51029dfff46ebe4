"""Actions to decisions and back."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automix.errors import ConfigError
from automix.operator_info import OPERATOR_FACTS, Operator
from automix.schedule import Decision
from envs.actions import ActionCodec
from envs.config import EnvironmentConfig

SHARES = st.lists(st.floats(0.01, 1), min_size=1, max_size=4, unique=True).map(sorted)
CONFIGS = st.builds(
    EnvironmentConfig,
    operators=st.lists(st.sampled_from(Operator), min_size=1, max_size=4, unique=True).map(tuple),
    num_strengths=st.integers(1, 3),
    probabilities=SHARES.map(tuple),
)


@settings(max_examples=30)
@given(CONFIGS)
def test_every_action_is_a_decision_that_an_action_means(config: EnvironmentConfig) -> None:
    codec = ActionCodec(config)
    reached = set()
    for indices in np.ndindex(*codec.space.nvec):
        action = np.array(indices, dtype=np.int64)
        decision = codec.decode(action)
        again = codec.encode(decision)
        assert codec.decode(again) == decision
        assert tuple(again) <= indices  # the first of the actions that mean it
        reached.add(decision)
    listed = codec.decisions()
    assert len(listed) == len(set(listed))
    assert set(listed) == reached


@given(CONFIGS)
def test_decisions_are_what_the_configuration_offers(config: EnvironmentConfig) -> None:
    for decision in ActionCodec(config).decisions():
        assert decision.operator in config.operators
        assert decision.strength in OPERATOR_FACTS[decision.operator].strength.levels
        if decision.operator is Operator.NONE:
            assert decision.probability == 1
        else:
            assert decision.probability in config.probabilities


@given(CONFIGS)
def test_higher_levels_are_stronger(config: EnvironmentConfig) -> None:
    codec = ActionCodec(config)
    for operator in range(len(config.operators)):
        strengths = [
            codec.decode(np.array([operator, level, 0])).strength
            for level in range(config.num_strengths)
        ]
        assert all(low <= high for low, high in itertools.pairwise(strengths))


@pytest.mark.parametrize(
    ("num_strengths", "expected"), [(1, [1.0]), (2, [0.2, 2.0]), (3, [0.2, 1.0, 2.0])]
)
def test_fewer_strengths_keep_the_ends(num_strengths: int, expected: list[float]) -> None:
    config = EnvironmentConfig(operators=(Operator.MIXUP,), num_strengths=num_strengths)
    codec = ActionCodec(config)
    strengths = [codec.decode(np.array([0, level, 0])).strength for level in range(num_strengths)]
    assert strengths == expected


@pytest.mark.parametrize("action", [[5, 0, 0], [0, -1, 0], [0, 0], [0, 0, 0, 0], [0, 0, 2]])
def test_actions_outside_the_space_are_refused(action: list[int]) -> None:
    with pytest.raises(ValueError, match=r"expected an action in MultiDiscrete\(\[5 3 2\]\)"):
        ActionCodec(EnvironmentConfig()).decode(np.array(action))


def test_decisions_out_of_reach_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a decision that the actions reach, got fmix 1"):
        ActionCodec(EnvironmentConfig()).encode(Decision(operator=Operator.FMIX))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_segments", 0),
        ("operators", []),
        ("operators", ["mixup", "mixup"]),
        ("operators", ["mixupp"]),
        ("num_strengths", 4),
        ("probabilities", []),
        ("probabilities", [0.0, 1.0]),
        ("probabilities", [1.0, 0.5]),
        ("probabilities", [0.5, 0.5]),
        ("potential", "loss"),
        ("probe_images", 0),
    ],
)
def test_impossible_configurations_are_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"here: {field}\S*: expected .*, got "):
        EnvironmentConfig.from_mapping({field: value}, source="here")
