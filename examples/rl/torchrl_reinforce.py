"""TorchRL: its environment, actor and REINFORCE loss."""

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.envs import GymEnv
from torchrl.modules import OneHotCategorical, ProbabilisticActor

from automix.schedule import Schedule
from examples.rl.playing import DISCRETE, play, show

NUM_SEGMENTS = 3


def main(*, num_episodes: int = 16) -> Schedule:
    """Learn from one training run per update; return the schedule of the learned policy."""
    torch.manual_seed(0)
    env = GymEnv(f"envs:{DISCRETE}")
    env.set_seed(0)
    width, num_actions = env.observation_spec["observation"].shape[-1], env.action_spec.shape[-1]
    logits = nn.Sequential(nn.Linear(width, 32), nn.Tanh(), nn.Linear(32, num_actions))
    actor = ProbabilisticActor(
        TensorDictModule(logits, in_keys=["observation"], out_keys=["logits"]),
        in_keys=["logits"],
        spec=env.action_spec,
        distribution_class=OneHotCategorical,
        return_log_prob=True,
    )
    optimizer = torch.optim.Adam(actor.parameters(), lr=0.01)
    mean_gain = 0.0
    for number in range(num_episodes):
        with torch.no_grad():
            episode = env.rollout(NUM_SEGMENTS, actor)
        # REINFORCE, against the mean gain of the runs so far: nothing is discounted.
        gain = float(episode["next", "reward"].sum())
        mean_gain += (gain - mean_gain) / (number + 1)
        policy = actor.get_dist(episode)
        loss = -(gain - mean_gain) * policy.log_prob(episode["action"]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    env.close()

    def act(observation: object) -> int:
        state = TensorDict({"observation": torch.as_tensor(observation)})
        return int(actor.get_dist(state).logits.argmax())

    return play(act, name=DISCRETE)


if __name__ == "__main__":
    show(main())
