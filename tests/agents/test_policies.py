"""Baselines behind the protocol of policies."""

import numpy as np
from gymnasium import spaces

from agents.policies import ConstantPolicy, Policy, RandomPolicy, roll_out
from tests.agents.toy import NUM_SEGMENTS, SWITCH, ToyEnv

OBSERVATION = np.zeros(3, dtype=np.float32)
SPACE = spaces.MultiDiscrete([5, 3, 2])


def test_a_constant_policy_hands_out_copies() -> None:
    policy: Policy = ConstantPolicy(np.array([1, 2, 0]))
    policy.act(OBSERVATION)[:] = 0
    assert policy.act(OBSERVATION).tolist() == [1, 2, 0]


def test_a_random_policy_is_uniform_and_named_by_its_seed() -> None:
    def draw(seed: int) -> list[tuple[int, ...]]:
        policy: Policy = RandomPolicy(SPACE, seed=seed)
        return [tuple(policy.act(OBSERVATION).tolist()) for _ in range(3000)]

    actions = draw(0)
    assert actions == draw(0)
    assert actions != draw(1)
    assert all(SPACE.contains(np.array(action)) for action in actions)
    counts = np.bincount([np.ravel_multi_index(action, (5, 3, 2)) for action in actions])
    assert len(counts) == 30
    # Five standard deviations of a binomial count.
    assert np.abs(counts - 100).max() < 5 * np.sqrt(100 * 29 / 30)


def test_roll_out_returns_what_was_applied_and_earned() -> None:
    env = ToyEnv(SWITCH, noise=0.1)
    schedule, total = roll_out(ConstantPolicy(np.array([1, 2, 1])), env, training_seed=4)
    assert [segment.decision.label() for segment in schedule.segments] == ["mixup 2"] * NUM_SEGMENTS
    assert schedule == env.schedule()
    assert env.trainer.seed == 4
    assert total == 1 - env.trainer.evaluate(env.data.reward).nll
