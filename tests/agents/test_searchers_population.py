"""Populations: what is done to whom, and that the weak resume from the states of the strong."""

import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from agents.searchers import train_population
from automix.operator_info import Operator
from tests.agents.toy import NUM_SEGMENTS, STATIONARY, SWITCH, Toy, ToyEnv, toy_vec_env


def finals(toy: Toy, *, seed: int = 0, num_envs: int = 4, number: int = 0) -> list[float]:
    env = toy_vec_env(toy, noise=0.0, num_envs=num_envs)
    infos = train_population(env, size=16, num_segments=NUM_SEGMENTS, seed=seed, number=number)
    assert all(len(info["schedule"].segments) == NUM_SEGMENTS for info in infos)
    return [info["potential"] for info in infos]


def test_a_population_ends_better_than_members_alone() -> None:
    populations = [finals(STATIONARY, number=number) for number in range(6)]
    # A random constant is worth 0.5 on average; the loss of the toy is 1 minus the worth.
    assert np.mean([np.mean(members) for members in populations]) > -0.4
    assert np.mean([np.max(members) for members in populations]) > -0.25


def test_the_number_of_environments_does_not_matter() -> None:
    assert finals(SWITCH, num_envs=2) == finals(SWITCH, num_envs=8)
    assert finals(SWITCH) != finals(SWITCH, number=1)
    assert finals(SWITCH) != finals(SWITCH, seed=1)


def test_the_schedule_of_a_lineage_explains_its_potential() -> None:
    env = toy_vec_env(STATIONARY, noise=0.0, num_envs=4)
    infos = train_population(env, size=8, num_segments=NUM_SEGMENTS, seed=3, number=0)
    for info in infos:
        worth = [
            STATIONARY.worth(info["schedule"].at(index / NUM_SEGMENTS), index / NUM_SEGMENTS)
            for index in range(NUM_SEGMENTS)
        ]
        assert info["potential"] == pytest.approx(np.mean(worth) - 1)


def test_members_that_diverge_are_replaced_and_a_lost_population_ends() -> None:
    def diverging(operators: set[Operator]) -> Toy:
        return Toy(
            worth=STATIONARY.worth,
            harm=STATIONARY.harm,
            diverges=lambda decision: decision.operator in operators,
        )

    some = diverging({Operator.MIXUP})
    env = toy_vec_env(some, noise=0.0, num_envs=4)
    infos = train_population(env, size=16, num_segments=NUM_SEGMENTS, seed=0, number=0)
    assert sum(info["diverged"] for info in infos) < 4
    every = DummyVecEnv([lambda: ToyEnv(diverging(set(Operator)), noise=0.0)] * 2)
    infos = train_population(every, size=4, num_segments=NUM_SEGMENTS, seed=0, number=0)
    assert all(info["diverged"] for info in infos)
