"""Actions to decisions and mixtures, and back."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automix.errors import ConfigError
from automix.operator_info import OPERATOR_FACTS, Operator
from automix.schedule import Decision, Mixture, Schedule, equal_mixture
from automix.training.trainer import build_trainer
from envs.actions import ActionCodec
from envs.config import EnvironmentConfig
from envs.mixing_env import MixingEnv
from envs.smoke import SMOKE_TASK

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
            Mixture.of(codec.decode(np.array([operator, level, 0]))).decision.strength
            for level in range(config.num_strengths)
        ]
        assert all(low <= high for low, high in itertools.pairwise(strengths))


@pytest.mark.parametrize(
    ("num_strengths", "expected"), [(1, [1.0]), (2, [0.2, 2.0]), (3, [0.2, 1.0, 2.0])]
)
def test_fewer_strengths_keep_the_ends(num_strengths: int, expected: list[float]) -> None:
    config = EnvironmentConfig(operators=(Operator.MIXUP,), num_strengths=num_strengths)
    codec = ActionCodec(config)
    actions = [np.array([0, level, 0]) for level in range(num_strengths)]
    strengths = [Mixture.of(codec.decode(action)).decision.strength for action in actions]
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


MIXTURES = EnvironmentConfig(
    operators=(Operator.NONE, Operator.MIXUP, Operator.CUTMIX, Operator.RESIZEMIX),
    num_strengths=1,
    probabilities=(1.0,),
    actions="mixtures",
)


def test_actions_may_be_mixtures_of_two_or_three_operators() -> None:
    codec = ActionCodec(MIXTURES)
    labels = [choice.label() for choice in codec.choices()]
    assert labels[:4] == ["none", "mixup 1", "cutmix 1", "resizemix 0.8"]
    assert len(labels) == len(set(labels)) == 4 + 3 + 1
    # What ships can be said.
    shipped = {it.mixture_at(0.0).label() for it in Schedule.portfolio().values()}
    assert "mixup 1 p=0.5 + resizemix 0.8 p=0.5" in shipped & set(labels)
    for place, choice in enumerate(codec.choices()):
        assert codec.decode(np.array([place])) == choice
        assert codec.encode(choice).tolist() == [place]
    # The decisions are those of the other kind of actions.
    same = MIXTURES.model_copy(update={"actions": "decisions"})
    assert ActionCodec(same).choices() == codec.choices()[:4] == codec.decisions()


def test_an_episode_of_mixtures_and_of_segments_that_are_finer_at_the_end() -> None:
    starts = (0.0, 0.5, 0.75)
    config = EnvironmentConfig.model_validate(
        MIXTURES.model_dump() | {"segment_starts": starts, "num_segments": 3}
    )
    env = MixingEnv(SMOKE_TASK, config, seed=0)
    env.reset()
    both = equal_mixture([Decision(operator=Operator.MIXUP), Decision(operator=Operator.CUTMIX)])
    choices, names = ActionCodec(config), [it.name for it in env.observation_features]
    observations, steps = [], []
    for choice in (both, Decision(operator=Operator.RESIZEMIX), Decision(operator=Operator.NONE)):
        before = env.trainer.step
        observation, _, is_over, _, info = env.step(choices.encode(choice))
        observations.append(dict(zip(names, observation, strict=True)))
        steps.append(env.trainer.step - before)
    assert is_over
    assert steps == [env.trainer.total_steps // 2, *[env.trainer.total_steps // 4] * 2]
    assert observations[0]["last_is_mixup"] == observations[0]["last_is_cutmix"] == 0.5
    assert observations[0]["last_probability"] == observations[1]["last_is_resizemix"] == 1
    assert observations[2]["last_is_none"] == 1
    schedule = info["schedule"]
    assert schedule.version == 2
    assert [(it.start, it.mixture.label()) for it in schedule.segments] == [
        (0.0, both.label()),
        (0.5, "resizemix 0.8"),
        (0.75, "none"),
    ]
    # A run that replays the file is the same run.
    replayed = build_trainer(SMOKE_TASK, env.data, seed=env.trainer.seed)
    for _ in replayed.replay(schedule):
        pass
    loss = replayed.evaluate(env.data.reward).calibrated_nll
    assert loss == pytest.approx(info["metrics"].calibrated_nll, rel=1e-5)
    # And the state between two segments holds the mixture.
    env.reset(options={"training_seed": 1})
    env.step(choices.encode(both))
    state = env.get_state()
    env.set_state(state)
    assert env.last_reading.decision == both


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"segment_starts": [0.5]}, r"segment_starts: expected rising fractions from 0 .*\[0.5\]"),
        ({"segment_starts": [0, 0.5, 0.5]}, "expected rising fractions from 0 to below 1"),
        ({"segment_starts": [0, 1.0]}, "expected rising fractions from 0 to below 1"),
        (
            {"segment_starts": [0, 0.5]},
            "expected num_segments 2 with as many segment_starts, got 8",
        ),
        (
            {"actions": "mixtures", "potential": "gradient_similarity"},
            "expected actions decisions with potential gradient_similarity, got mixtures",
        ),
        ({"actions": "both"}, "actions: expected 'decisions' or 'mixtures', got 'both'"),
    ],
)
def test_impossible_segments_and_actions_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EnvironmentConfig.from_mapping(fields, source="here")


def test_every_segment_has_a_step() -> None:
    starts = {"segment_starts": [0, 0.5, 0.75], "num_segments": 3}
    config = EnvironmentConfig.from_mapping(starts, source="here")
    assert list(config.starts) == [0, 0.5, 0.75]
    assert EnvironmentConfig.from_mapping(config.model_dump(mode="json"), source="x") == config
    assert list(EnvironmentConfig(num_segments=4).starts) == [0, 0.25, 0.5, 0.75]
    config.check_length(4)
    with pytest.raises(ConfigError, match="segments of at least one of the 2 optimizer steps"):
        config.check_length(2)
