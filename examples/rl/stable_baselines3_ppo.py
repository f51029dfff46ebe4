"""Stable-Baselines3: its PPO as it is, without what `automix search` adds to it."""

from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

from automix.schedule import Schedule
from examples.rl.playing import ENVIRONMENT, play, show

NUM_SEGMENTS = 3


def main(*, num_rollouts: int = 8) -> Schedule:
    """Learn from four training runs per rollout; return the schedule of the learned policy."""
    env = make_vec_env(ENVIRONMENT, n_envs=4, seed=0)
    # Rollouts of whole episodes, and no discount: the return is the gain of the whole run.
    steps = NUM_SEGMENTS * env.num_envs
    agent = PPO(
        "MlpPolicy",
        env,
        n_steps=NUM_SEGMENTS,
        batch_size=steps,
        n_epochs=5,
        learning_rate=0.01,
        gamma=1.0,
        seed=0,
        device="cpu",
    )
    agent.learn(num_rollouts * steps)
    env.close()
    return play(lambda observation: agent.predict(observation, deterministic=True)[0])


if __name__ == "__main__":
    show(main())
