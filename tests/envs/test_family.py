"""Families of tasks: draws, visits, and environments that go from task to task."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.vec_env import VecEnv

from automix.configuration.data import DataConfig
from automix.configuration.task import ComputeConfig
from automix.data.load import load_data
from automix.data.splits import SearchData
from automix.data.subsets import subset_of_classes
from automix.errors import ConfigError, DataError
from automix.experiments.config import PretrainConfig
from automix.operator_info import Operator
from automix.training.trainer import build_trainer
from envs.config import EnvironmentConfig, ObservationGroup
from envs.family import (
    FamilyEnv,
    FamilyPlan,
    Standing,
    data_of,
    draw_task,
    make_family_env,
    ordered_visits,
    shuffled_visits,
)
from envs.family_config import FamilyConfig
from envs.vector import stop_vec_env

FAMILY = FamilyConfig(
    num_tasks=4,
    models=("small_cnn:2", "small_cnn:3"),
    steps=(4, 8),
    num_classes=(2, 4),
    labels_per_class=(4, 8),
    reward_size=3,
)
ENVIRONMENT = EnvironmentConfig(
    num_segments=2,
    actions="mixtures",
    operators=(Operator.NONE, Operator.MIXUP, Operator.CUTMIX),
    observation=tuple(ObservationGroup),
    probe_images=20,
    probe_batch=8,
)
STANDINGS = tuple(Standing(mean=-0.5 * number, deviation=0.1 + number) for number in range(4))


def make(workers: int = 1, standings: tuple[Standing, ...] = ()) -> VecEnv:
    plan = FamilyPlan(
        family=FAMILY,
        environment=ENVIRONMENT,
        visits=np.array([[0, 1], [2, 3]]),
        group_size=2,
        seed=5,
        standings=standings,
    )
    return make_family_env(plan, ComputeConfig(workers=workers))


def play(env: VecEnv, steps: int) -> list[tuple[Any, ...]]:
    """Return what each step shows; actions are the same in every call."""
    generator = np.random.default_rng(0)
    sizes = env.action_space.nvec  # type: ignore[attr-defined]  # MultiDiscrete
    shown = []
    for _ in range(steps):
        actions = generator.integers(sizes, size=(env.num_envs, len(sizes)))
        observations, rewards, dones, infos = env.step(actions)
        shown.append((np.asarray(observations), rewards, dones, [it["potential"] for it in infos]))
    return shown


def assert_same(first: list[tuple[Any, ...]], second: list[tuple[Any, ...]]) -> None:
    for one, other in zip(first, second, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


@given(st.integers(0, 1000))
def test_a_task_is_within_the_ranges_and_depends_on_its_number_alone(number: int) -> None:
    drawn = draw_task(FAMILY, number, seed=1)
    assert drawn == draw_task(FAMILY, number, seed=1)
    assert 2 <= len(set(drawn.classes)) == len(drawn.classes) <= 4
    assert 4 <= drawn.labels_per_class <= 8
    data = data_of(FAMILY, drawn, seed=1)
    assert len(data.train) == len(drawn.classes) * drawn.labels_per_class
    assert len(data.reward) == 3 * len(drawn.classes)
    per_epoch = data_steps(drawn.task.trainer.batch_size, len(data.train))
    assert 4 - per_epoch <= drawn.task.trainer.total_steps(len(data.train)) <= 8 + per_epoch


def data_steps(batch_size: int, num_images: int) -> int:
    return num_images // min(batch_size, num_images)


def test_tasks_differ() -> None:
    tasks = [draw_task(FAMILY, number, seed=1) for number in range(8)]
    assert len({(task.classes, task.task.trainer.learning_rate) for task in tasks}) == 8


def test_classes_of_a_subset_are_numbered_in_their_order() -> None:
    whole = load_data(DataConfig(reward_size=5, selection_size=2)).for_search()
    generator = torch.Generator().manual_seed(0)
    data = subset_of_classes(whole, [7, 1], labels_per_class=5, generator=generator)
    assert data.class_names == (whole.class_names[7], whole.class_names[1])
    for split, of_whole, count in (
        (data.reward, whole.reward, 5),
        (data.selection, whole.selection, 2),
    ):
        for label, before in enumerate((7, 1)):
            images = split.images[split.labels == label]
            assert torch.equal(images, of_whole.images[of_whole.labels == before])
            assert len(images) == count
    assert data.train.labels.bincount().tolist() == [5, 5]
    assert data.fingerprint != whole.fingerprint


@given(st.integers(1, 9), st.integers(1, 6), st.integers(1, 4), st.integers(0, 3))
def test_shuffled_visits_come_equally_often(
    num_tasks: int, positions: int, groups: int, seed: int
) -> None:
    visits = shuffled_visits(num_tasks, positions=positions, groups=groups, seed=seed)
    counts = np.bincount(visits.ravel(), minlength=num_tasks)
    assert visits.shape == (positions, groups)
    assert counts.max() - counts.min() <= 1


@given(st.integers(1, 9), st.integers(1, 3), st.integers(1, 4))
def test_ordered_visits_hold_every_task(num_tasks: int, repeats: int, groups: int) -> None:
    visits = ordered_visits(range(3, 3 + num_tasks), repeats=repeats, groups=groups).ravel()
    expected = np.repeat(np.arange(3, 3 + num_tasks), repeats)
    assert list(visits[: len(expected)]) == list(expected)
    assert set(visits[len(expected) :]) <= {num_tasks + 2}


def test_processes_do_not_change_the_bits() -> None:
    here = make()
    first, shown = here.reset(), play(here, 3)
    env = make(workers=2)
    try:
        np.testing.assert_array_equal(np.asarray(env.reset()), np.asarray(first))
        assert_same(play(env, 3), shown)
    finally:
        stop_vec_env(env)


@pytest.mark.parametrize("steps", [2, 3])
def test_states_resume_between_tasks_and_within_one(steps: int) -> None:
    env = make()
    env.reset()
    play(env, steps)
    states = env.env_method("get_state")
    expected = play(env, 4 - steps)
    other = make()
    other.reset()
    seen = [
        other.env_method("set_state", state, indices=index)[0] for index, state in enumerate(states)
    ]
    assert len(seen) == 4
    assert_same(play(other, 4 - steps), expected)


def test_returns_are_deviations_above_random_schedules() -> None:
    raw = make()
    raw.reset()
    potentials = play(raw, 2)[-1][3]
    env = make(standings=STANDINGS)
    env.reset()
    gained = np.array([info["gain_so_far"] for info in env.reset_infos])
    shown = play(env, 2)
    for _, rewards, _, _ in shown:
        gained += rewards
    expected = [STANDINGS[index // 2].of(value) for index, value in enumerate(potentials)]
    assert gained == pytest.approx(expected, rel=1e-4)
    assert shown[-1][3] == pytest.approx(expected)


def small_task() -> tuple[Any, SearchData]:
    drawn = draw_task(FAMILY, 0, seed=5)
    return drawn.task, data_of(FAMILY, drawn, seed=5)


def test_a_run_that_diverged_goes_on_at_chance() -> None:
    task, data = small_task()
    env = FamilyEnv(task, ENVIRONMENT, data=data, seed=0, standing=Standing())
    env.reset()
    with torch.no_grad():
        for weight in env.trainer.model.parameters():
            weight.fill_(float("nan"))
    action = np.zeros(1, dtype=np.int64)
    _, _, terminated, _, info = env.step(action)
    assert not terminated
    assert info["diverged"]
    _, reward, terminated, _, info = env.step(action)
    assert terminated
    assert reward == 0
    assert info["potential"] == pytest.approx(-np.log(data.num_classes))


def test_a_drawn_task_can_be_trained() -> None:
    task, data = small_task()
    trainer = build_trainer(task, data, seed=0)
    assert trainer.total_steps >= ENVIRONMENT.num_segments


def test_fewer_classes_than_the_family_asks_for_are_refused() -> None:
    family = FamilyConfig(num_classes=(11, 12))
    with pytest.raises(DataError, match=r"family.num_classes: expected at most the 10 classes"):
        draw_task(family, 0, seed=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"family": {"sources": ["photos"]}}, "expected 'digits' or NAME=FOLDER, got 'photos'"),
        ({"family": {"sources": ["=photos"]}}, "expected 'digits' or NAME=FOLDER"),
        ({"family": {"sources": ["digits", "digits"]}}, "expected each source once"),
        ({"family": {"sources": []}}, "sources"),
        ({"family": {"flipped": ["hands"]}}, "expected flipped among digits, got 'hands'"),
        ({"family": {"num_classes": [5, 4]}}, "expected the smaller number first"),
        ({"family": {"num_classes": [1, 4]}}, "expected at least 2 classes"),
        ({"family": {"models": ["small_cnn:x"]}}, "expected NAME or NAME:WIDTH"),
        ({"family": {"models": ["small_cn"]}}, "small_cnn"),
        ({"family": {"learning_rate": [0, 1]}}, "learning_rate"),
        ({"group_size": 7}, "one multiple of group_size 7, got 64 and 64"),
        ({"random_runs": 12}, "expected random_runs to be a multiple of group_size 8, got 12"),
        ({"compute": {"population": 8}}, "expected no compute.population beside group_size"),
        (
            {"environment": {"snapshot_fraction": 0.5}},
            "expected environment.snapshot_fraction 0",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        PretrainConfig.from_mapping(values, source=str(tmp_path / "family.yaml"))
    assert "\n" not in str(caught.value)
