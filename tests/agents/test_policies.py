"""Episodes of a policy."""

import numpy as np

from agents.learned import roll_out
from tests.agents.toy import NUM_SEGMENTS, SWITCH, BlindPolicy, ToyEnv


def test_roll_out_returns_what_was_applied_and_earned() -> None:
    env = ToyEnv(SWITCH, noise=0.1)
    policy = BlindPolicy(lambda: np.array([1, 2, 1]))
    schedule, total = roll_out(policy, env, training_seed=4)
    assert [segment.decision.label() for segment in schedule.segments] == ["mixup 2"] * NUM_SEGMENTS
    assert schedule == env.schedule()
    assert env.trainer.seed == 4
    assert total == 1 - env.trainer.evaluate(env.data.reward).nll
