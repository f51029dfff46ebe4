"""RLlib, by its new API stack; needs the extra ``rllib``, which is large."""

from typing import Any

import gymnasium as gym
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.tune.registry import register_env

from automix.schedule import Schedule
from examples.rl.playing import DISCRETE, play, show

NUM_SEGMENTS = 3


def main(*, num_rollouts: int = 4) -> Schedule:
    """Learn from eight training runs per rollout; return the schedule of the learned policy."""
    # By name with the package: runners in other processes import what registers it.
    register_env("schedules", lambda fields: gym.make(f"envs:{DISCRETE}", **fields))
    config = (
        PPOConfig()
        .environment("schedules")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2, batch_mode="complete_episodes")
        .learners(num_learners=0)
        .training(
            gamma=1.0,
            lr=0.01,
            num_epochs=5,
            train_batch_size=8 * NUM_SEGMENTS,
            minibatch_size=8 * NUM_SEGMENTS,
        )
        .debugging(seed=0)
    )
    algorithm = config.build_algo()
    for _ in range(num_rollouts):
        algorithm.train()
    module = algorithm.get_module()

    def act(observation: Any) -> int:
        batch = {Columns.OBS: torch.as_tensor(observation)[None]}
        return int(module.forward_inference(batch)[Columns.ACTION_DIST_INPUTS].argmax())

    schedule = play(act, name=DISCRETE)
    algorithm.stop()
    return schedule


if __name__ == "__main__":
    show(main())
