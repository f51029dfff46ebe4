"""In the style of CleanRL: PPO without a library, on actions of one integer.

Its own ``ppo.py`` runs as it is: ``python ppo.py --env-id envs:AutoMix/MixSchedule-Discrete-v0
--num-steps 32 --gamma 1``.
"""

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical

from automix.schedule import Schedule
from examples.rl.playing import DISCRETE, play, show

NUM_ENVS, NUM_SEGMENTS, CLIP = 4, 3, 0.2


def main(*, num_rollouts: int = 8) -> Schedule:
    """Learn from four training runs per rollout; return the schedule of the learned policy."""
    torch.manual_seed(0)
    vector = gym.make_vec(f"envs:{DISCRETE}", num_envs=NUM_ENVS, vectorization_mode="sync")
    width = gym.spaces.flatdim(vector.single_observation_space)
    num_actions = gym.spaces.flatdim(vector.single_action_space)
    actor = nn.Sequential(nn.Linear(width, 32), nn.Tanh(), nn.Linear(32, num_actions))
    critic = nn.Sequential(nn.Linear(width, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam([*actor.parameters(), *critic.parameters()], lr=0.01)
    for rollout in range(num_rollouts):
        # One episode of each environment: they end together, so nothing is bootstrapped.
        seen, taken, rewards = [], [], []
        observations, _ = vector.reset(seed=rollout * NUM_ENVS)
        for _ in range(NUM_SEGMENTS):
            seen.append(torch.as_tensor(observations))
            taken.append(Categorical(logits=actor(seen[-1])).sample())
            observations, gains, *_ = vector.step(taken[-1].numpy())
            rewards.append(gains)
        # The return of a decision, not discounted: all that the run gains from there on.
        returns = torch.as_tensor(np.cumsum(rewards[::-1], axis=0)[::-1].copy()).float().flatten()
        states, actions = torch.cat(seen), torch.cat(taken)
        with torch.no_grad():
            before = Categorical(logits=actor(states)).log_prob(actions)
            advantages = returns - critic(states).flatten()
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        for _ in range(5):
            policy = Categorical(logits=actor(states))
            ratio = (policy.log_prob(actions) - before).exp()
            gain = torch.minimum(ratio * advantages, ratio.clamp(1 - CLIP, 1 + CLIP) * advantages)
            error = (critic(states).flatten() - returns).square()
            loss = (0.5 * error - gain - 0.02 * policy.entropy()).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    vector.close()
    return play(lambda seen: int(actor(torch.as_tensor(seen)).argmax()), name=DISCRETE)


if __name__ == "__main__":
    show(main())
