"""Observations: named, bounded, fresh, and the same for any dataset."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automix.errors import ConfigError
from automix.operator_info import Operator
from automix.schedule import Decision
from automix.training.metrics import CleanMetrics, EvalMetrics, TrainMetrics
from envs.config import EnvironmentConfig, ObservationGroup
from envs.measurement import Reading
from envs.observations import ObservationBuilder, TaskFacts, describe_task
from tests.envs.conftest import ACTIONS, MakeEnv

OPERATORS = (Operator.NONE, Operator.MIXUP, Operator.GUIDEDMIXUP)
CONFIG = EnvironmentConfig(operators=OPERATORS)
LOSSES = st.floats(0, 50) | st.sampled_from([math.nan, math.inf, 0.0])
SHARES = st.floats(0, 1)
EVALUATIONS = st.builds(
    EvalMetrics,
    nll=LOSSES,
    calibrated_nll=LOSSES,
    accuracy=SHARES,
    temperature=st.floats(0.01, 100) | st.just(math.nan),
    num_images=st.just(5),
)
TRAIN_METRICS = st.builds(
    TrainMetrics,
    loss=LOSSES,
    clean_accuracy=st.none() | SHARES,
    mixed_accuracy=st.none() | SHARES,
    mixed_fraction=SHARES,
    num_images=st.just(5),
    seconds=st.just(1.0),
)
DECISIONS = st.sampled_from(
    [
        Decision(operator=Operator.NONE),
        Decision(operator=Operator.MIXUP, strength=0.2),
        Decision(operator=Operator.MIXUP, strength=2.0, probability=0.5),
        Decision(operator=Operator.GUIDEDMIXUP),
    ]
)
READINGS = st.builds(
    Reading,
    progress=SHARES,
    learning_rate_fraction=SHARES,
    reward=EVALUATIONS,
    clean=st.builds(CleanMetrics, nll=LOSSES, accuracy=SHARES),
    train=st.none() | TRAIN_METRICS,
    decision=st.none() | DECISIONS,
    probe=st.tuples(LOSSES, LOSSES, LOSSES),
)
EVALUATION = EvalMetrics(nll=1.0, calibrated_nll=0.8, accuracy=0.6, temperature=1.5, num_images=10)
START = Reading(
    progress=0.0,
    learning_rate_fraction=0.05,
    reward=EVALUATION,
    clean=CleanMetrics(nll=0.7, accuracy=0.9),
    train=None,
    decision=None,
    probe=(0.5, 1.5, 2.0),
)
AFTER = dataclasses.replace(
    START,
    progress=0.25,
    reward=dataclasses.replace(EVALUATION, nll=0.9, calibrated_nll=0.5),
    clean=CleanMetrics(nll=0.4, accuracy=0.6),
    train=TrainMetrics(
        loss=1.2,
        clean_accuracy=None,
        mixed_accuracy=0.5,
        mixed_fraction=1,
        num_images=8,
        seconds=1,
    ),
    decision=Decision(operator=Operator.MIXUP, strength=1.0, probability=0.5),
)


@given(READINGS, st.none() | READINGS, st.integers(2, 1000))
def test_whatever_happens_the_observation_is_in_its_space(
    now: Reading, before: Reading | None, num_classes: int
) -> None:
    builder = ObservationBuilder(CONFIG, facts(num_classes))
    observation = builder.build(now, before)
    assert builder.space.contains(observation)
    assert np.isfinite(observation).all()


def facts(num_classes: int) -> TaskFacts:
    return TaskFacts(
        num_classes=num_classes, images_per_class=20, image_side=8, channels=1, epochs=60, steps=240
    )


def named(builder: ObservationBuilder, now: Reading, before: Reading | None) -> dict[str, float]:
    values = builder.build(now, before).tolist()
    return dict(zip([feature.name for feature in builder.features], values, strict=True))


def test_features_are_what_they_are_called() -> None:
    scale = math.log(10)
    values = named(ObservationBuilder(CONFIG, facts(10)), AFTER, START)
    assert values == pytest.approx(
        {
            "progress": 0.25,
            "learning_rate": 0.05,
            "reward_nll": 0.9 / scale,
            "reward_calibrated_nll": 0.5 / scale,
            "reward_log_calibrated_nll": math.log(0.5 / scale),
            "reward_accuracy": 0.6,
            "log_temperature": math.log(1.5),
            "clean_nll": 0.4 / scale,
            "clean_accuracy": 0.6,
            "nll_gap": 0.5 / scale,
            "accuracy_gap": 0.0,
            "reward_slope": -0.3 / scale,
            "clean_slope": -0.3 / scale,
            "train_loss": 1.2 / scale,
            "last_strength": 0.8 / 1.8,
            "last_probability": 0.5,
            "stage_0": 0.0,
            "stage_1": 1.0,
            "stage_2": 0.0,
            "stage_3": 0.0,
            "stage_4": 0.0,
            "probe_none": 0.5 / scale,
            "probe_mixup": 1.5 / scale,
            "probe_guidedmixup": 2.0 / scale,
            "last_is_none": 0.0,
            "last_is_mixup": 1.0,
            "last_is_guidedmixup": 0.0,
        },
        abs=1e-6,
    )


@given(SHARES)
def test_stages_are_nearness_to_points_of_the_training(progress: float) -> None:
    builder = ObservationBuilder(CONFIG, facts(10))
    values = named(builder, dataclasses.replace(START, progress=progress), None)
    stages = np.array([values[f"stage_{index}"] for index in range(5)])
    assert stages.sum() == pytest.approx(1, abs=1e-6)
    assert (stages * np.arange(5) / 4).sum() == pytest.approx(progress, abs=1e-6)
    assert np.count_nonzero(stages) <= 2


def test_before_the_first_decision_there_is_no_last_one() -> None:
    values = named(ObservationBuilder(CONFIG, facts(10)), START, None)
    zero = ["last_strength", "last_probability", "reward_slope", "clean_slope"]
    zero += [f"last_is_{operator.value}" for operator in OPERATORS]
    assert {values[name] for name in zero} == {0.0}
    assert values["train_loss"] == 1.0


def test_losses_mean_the_same_for_any_number_of_classes() -> None:
    def chance(num_classes: int) -> list[float]:
        loss = math.log(num_classes)
        metrics = dataclasses.replace(EVALUATION, nll=loss, calibrated_nll=loss)
        clean = CleanMetrics(nll=loss, accuracy=0.6)
        reading = dataclasses.replace(START, reward=metrics, clean=clean, probe=(loss,) * 3)
        builder = ObservationBuilder(CONFIG, facts(num_classes))
        return list(named(builder, reading, None).values())

    assert chance(10) == pytest.approx(chance(1000), abs=1e-6)


def test_features_are_documented_and_bound_the_space() -> None:
    builder = ObservationBuilder(CONFIG, facts(10))
    names = [feature.name for feature in builder.features]
    assert len(set(names)) == len(names) == builder.space.shape[0]
    assert builder.space.dtype == np.float32
    for feature, low, high in zip(
        builder.features, builder.space.low, builder.space.high, strict=True
    ):
        assert feature.meaning
        assert (feature.low, feature.high) == (low, high)
        assert feature.low < feature.high


@given(st.lists(st.sampled_from(ObservationGroup), min_size=1, unique=True), READINGS, READINGS)
def test_groups_are_switched_without_changing_the_features_that_stay(
    groups: list[ObservationGroup], now: Reading, before: Reading
) -> None:
    config = EnvironmentConfig(operators=OPERATORS, observation=tuple(groups))
    some = ObservationBuilder(config, facts(10))
    whole = EnvironmentConfig(operators=OPERATORS, observation=tuple(ObservationGroup))
    every = ObservationBuilder(whole, facts(10))
    assert named(some, now, before).items() <= named(every, now, before).items()
    assert {feature.group for feature in some.features} == set(groups)
    assert [f.name for f in some.features] == [
        feature.name for feature in every.features if feature.group in groups
    ]


def test_a_task_is_described_in_logarithms() -> None:
    config = EnvironmentConfig(operators=OPERATORS, observation=(ObservationGroup.TASK,))
    task = TaskFacts(
        num_classes=100, images_per_class=10, image_side=32, channels=3, epochs=10, steps=1000
    )
    values = named(ObservationBuilder(config, task), START, None)
    assert values == pytest.approx(
        {
            "task_classes": 2,
            "task_images_per_class": 1,
            "task_image_side": math.log10(32),
            "task_color": 1,
            "task_epochs": 1,
            "task_steps": 3,
        }
    )
    assert list(describe_task(task)) == pytest.approx(list(values.values()))


def test_one_task_is_not_described_unless_asked_for() -> None:
    features = ObservationBuilder(CONFIG, facts(10)).features
    assert not any(feature.group is ObservationGroup.TASK for feature in features)


def test_what_is_not_observed_is_not_measured(make_env: MakeEnv) -> None:
    env = make_env(observation=["progress", "last_decision"], probe_images=500)
    env.reset()
    env.step(ACTIONS[1])
    assert env._readings[-1].clean is None
    assert env._readings[-1].probe == ()
    assert env.measurement._probe is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"observation": ["progress", "progress"]}, "expected each group once"),
        ({"observation": []}, "expected at least 1"),
        ({"observation": ["progress"], "probe_images": 5}, "expected probe_images 500 without"),
        ({"observation": ["losses"], "probe_batch": 5}, "expected probe_batch 32 without probe"),
        ({"probe_batch": 1}, "expected"),
    ],
)
def test_groups_and_options_without_effect_are_refused(
    fields: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        EnvironmentConfig.from_mapping(fields, source="here")


def test_an_environment_observes_within_its_space_and_hands_out_copies(make_env: MakeEnv) -> None:
    env = make_env()
    observations = [env.reset()[0]]
    kept = [observations[0].copy()]
    for action in ACTIONS:
        observations.append(env.step(action)[0])
        kept.append(observations[-1].copy())
    for index, observation in enumerate(observations):
        assert env.observation_space.contains(observation)
        np.testing.assert_array_equal(observation, kept[index])
        observation.fill(0)  # must not reach into the environment
    assert env.observation_space.contains(env.reset()[0])
    progress = [observation[0] for observation in kept]
    assert progress == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert env.observation_features[0].name == "progress"
