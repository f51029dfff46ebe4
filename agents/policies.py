"""Policies behind one protocol: anything that turns an observation into an action."""

from typing import Protocol

from automix.schedule import Schedule
from envs.actions import Action
from envs.mixing_env import MixingEnv
from envs.observations import Observation


class Policy(Protocol):
    """Chooses how the next segment is mixed."""

    def act(self, observation: Observation) -> Action:
        """Return an action for one (F,) observation."""
        ...


def roll_out(policy: Policy, env: MixingEnv, *, training_seed: int) -> tuple[Schedule, float]:
    """Run one episode; return the schedule that was applied and the sum of its rewards."""
    observation, _ = env.reset(options={"training_seed": training_seed})
    total, terminated = 0.0, False
    while not terminated:
        observation, reward, terminated, _, _ = env.step(policy.act(observation))
        total += reward
    return env.schedule(), total
