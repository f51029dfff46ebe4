"""Rewards: gains of the potential that the configuration names."""

import math
from typing import Any

import numpy as np
import pytest

from automix.errors import ConfigError
from automix.schedule import Decision
from automix.training.metrics import EvalMetrics
from envs.config import EnvironmentConfig, PotentialWeights
from envs.mixing_env import MixingEnv
from envs.rewards import REWARDS, Potential
from tests.envs.conftest import ACTIONS, MakeEnv

HUGE = {"learning_rate": 1e30}
WEIGHTS = {"calibrated_nll": 0.5, "nll": 0.0, "accuracy": 2.0}
# What each potential makes of the metrics on the reward split.
FORMULAS: dict[str, Any] = {
    "calibrated_nll": lambda metrics: -metrics.calibrated_nll,
    "nll": lambda metrics: -metrics.nll,
    "accuracy": lambda metrics: metrics.accuracy,
    "worst_class_accuracy": lambda metrics: metrics.worst_class_accuracy,
    "weighted": lambda metrics: -0.5 * metrics.calibrated_nll + 2 * metrics.accuracy,
}
# Of images with several labels: tests/training/test_several_labels.py.
OF_SEVERAL_LABELS = {"mean_average_precision"}
METRICS = EvalMetrics(nll=1.0, calibrated_nll=0.8, accuracy=0.6, temperature=1.5, num_images=10)


def fields_of(potential: str) -> dict[str, Any]:
    weights = {"potential_weights": WEIGHTS} if potential == "weighted" else {}
    return {"potential": potential, **weights}


def config_of(potential: str) -> EnvironmentConfig:
    return EnvironmentConfig.model_validate(fields_of(potential))


def potential_of(name: str, *, num_classes: int = 10) -> Potential:
    return Potential(config_of(name).reward_weights, num_classes=num_classes)


def test_every_reward_is_of_metrics_or_of_segments_and_has_a_test() -> None:
    for name, reward in REWARDS.items():
        assert (reward.of_metrics is None) != (reward.of_segment is None), name
        assert reward.of_segment or name in FORMULAS.keys() | OF_SEVERAL_LABELS
        description = EnvironmentConfig.model_fields["potential"].description
        assert f"{name}: {reward.help}" in str(description)
    with pytest.raises(ConfigError, match="'weighted', got 'acuracy'"):
        EnvironmentConfig.from_mapping({"potential": "acuracy"}, source="here")


@pytest.mark.parametrize("potential", list(FORMULAS))
def test_reward_is_the_gain_of_the_potential(make_env: MakeEnv, potential: str) -> None:
    env = make_env(**fields_of(potential))
    env.reset()
    formula = FORMULAS[potential]
    before = start = formula(env.trainer.evaluate(env.data.reward))
    total = 0.0
    for action in ACTIONS:
        _, reward, _, truncated, info = env.step(action)
        after = formula(info["metrics"])
        assert reward == pytest.approx(after - before, abs=1e-6)
        assert not truncated
        before, total = after, total + reward
    assert total == pytest.approx(info["potential"] - start, abs=1e-6)
    after = formula(env.trainer.evaluate(env.data.reward))
    assert info["potential"] == pytest.approx(after, abs=1e-6)


@pytest.mark.parametrize("potential", list(FORMULAS))
def test_a_diverged_training_ends_with_the_potential_of_chance(
    make_env: MakeEnv, potential: str
) -> None:
    env = make_env(trainer=HUGE, **fields_of(potential))
    env.reset()
    start = FORMULAS[potential](env.trainer.evaluate(env.data.reward))
    observation, reward, terminated, truncated, info = env.step(ACTIONS[0])
    chance = potential_of(potential).at_chance
    assert (terminated, truncated, info["diverged"]) == (True, False, True)
    assert reward == pytest.approx(chance - start, abs=1e-6)
    assert info["potential"] == chance
    assert env.observation_space.contains(observation)
    assert [segment.start for segment in info["schedule"].segments] == [0]


def test_chance_is_what_a_classifier_gets_that_predicts_every_class_alike() -> None:
    entropy = math.log(4)
    uniform = EvalMetrics(
        nll=entropy,
        calibrated_nll=entropy,
        accuracy=1 / 4,
        temperature=1.0,
        num_images=10,
        worst_class_accuracy=0.0,
    )
    for potential, formula in FORMULAS.items():
        at_chance = potential_of(potential, num_classes=4).at_chance
        assert at_chance == pytest.approx(formula(uniform), abs=1e-15), potential
    # Constant probabilities have no input gradients to be alike.
    assert potential_of("gradient_similarity", num_classes=4).at_chance == 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_potential_that_is_not_finite_is_that_of_chance(value: float) -> None:
    broken = EvalMetrics(
        nll=value, calibrated_nll=value, accuracy=0.6, temperature=1.0, num_images=1
    )
    for name in ("calibrated_nll", "nll", "weighted"):
        potential = potential_of(name)
        assert potential.of(broken) == potential.at_chance


def test_a_weight_of_zero_reads_nothing() -> None:
    broken = EvalMetrics(
        nll=math.inf, calibrated_nll=0.5, accuracy=0.6, temperature=1.0, num_images=1
    )
    assert potential_of("weighted").of(broken) == pytest.approx(-0.25 + 1.2)


def test_gradient_similarity_is_paid_per_segment_and_highest_without_mixing(
    make_env: MakeEnv,
) -> None:
    def rewards(actions: Any) -> list[float]:
        env: MixingEnv = make_env(potential="gradient_similarity")
        env.reset()
        steps = [env.step(action) for action in actions]
        assert steps[-1][4]["potential"] == pytest.approx(sum(step[1] for step in steps))
        return [step[1] for step in steps]

    never = rewards([ACTIONS[0]] * 3)
    assert never == pytest.approx([1 / 3] * 3)
    mixed = rewards(ACTIONS)
    assert mixed[0] == pytest.approx(1 / 3)
    assert 0 < mixed[1] < 1 / 3
    assert 0 < mixed[2] < 1 / 3


def test_similarity_counts_the_fraction_of_batches_that_are_mixed(make_env: MakeEnv) -> None:
    similarities = []
    for probability in (0, 1):  # 0.5 and 1.0
        env = make_env(potential="gradient_similarity", observation=["progress"], probe_images=500)
        env.reset(options={"training_seed": 1})
        before = {name: value.clone() for name, value in env.trainer.model.state_dict().items()}
        probe = env.measurement._probe
        assert probe is not None
        decision = env._actions.decode(np.array([1, 1, probability]))
        assert isinstance(decision, Decision)
        function = env.config.segment_reward
        assert function is not None
        model = env.trainer.evaluated_model.eval()
        similarities.append(probe.segment_reward(function, model, decision))
        after = env.trainer.model.state_dict()
        assert all((after[name] == value).all() for name, value in before.items())
    assert similarities[0] == pytest.approx(0.5 * similarities[1] + 0.5)


def test_weights_are_asked_for_only_where_they_count() -> None:
    assert config_of("weighted").potential_weights == PotentialWeights.model_validate(WEIGHTS)
    with pytest.raises(ValueError, match="expected potential_weights above 0"):
        EnvironmentConfig(potential="weighted")
    with pytest.raises(ValueError, match="expected no potential_weights with potential nll"):
        EnvironmentConfig(potential="nll", potential_weights=PotentialWeights(accuracy=1.0))


def test_the_default_potential_reads_the_reward_split_only() -> None:
    assert potential_of("calibrated_nll").of(METRICS, segment_sum=5.0) == -0.8
