"""Gymnasium alone: random decisions in a vector of environments; the best run's schedule."""

import gymnasium as gym

from automix.schedule import Schedule
from examples.rl.playing import ENVIRONMENT, show

NUM_ENVS = 2


def main(*, num_rounds: int = 8) -> Schedule:
    """Train ``NUM_ENVS`` runs per round; return the schedule with the highest potential."""
    # In processes of their own with "async" and `vector_kwargs={"context": "spawn"}`.
    vector = gym.make_vec(f"envs:{ENVIRONMENT}", num_envs=NUM_ENVS, vectorization_mode="sync")
    vector.action_space.seed(0)
    runs: list[tuple[float, Schedule]] = []
    for number in range(num_rounds):
        vector.reset(seed=number)
        is_over = False
        while not is_over:
            _, _, terminated, _, info = vector.step(vector.action_space.sample())
            # Episodes have the same number of segments: they end together.
            is_over = bool(terminated.all())
        runs += zip(info["potential"], info["schedule"], strict=True)
    vector.close()
    return max(runs, key=lambda run: run[0])[1]


if __name__ == "__main__":
    show(main())
