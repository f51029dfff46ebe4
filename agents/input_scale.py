"""Standardization of what a policy observes, folded into its first layers."""

from collections.abc import Sequence

import numpy as np
import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from agents.ppo import Episode, RolloutCallback

# Of a feature that hardly varies: a new task must not be 1,000 deviations away.
_SMALLEST_DEVIATION = 0.05


class ScaledInputs(RolloutCallback):
    """Lets the first layers of policy and critic see standardized features, from the start on.

    With mean m and deviation s of each feature in what was observed before, W (x - m) / s + b is
    the layer W' x + b' with W' = W / s and b' = b - W' m: the network has the same form, and its
    files the same format.

    It acts before the first rollout, after whatever saves the state there, and before others teach
    the policy.
    """

    def __init__(self, episodes: Sequence[Episode]) -> None:
        """Read the observations of ``episodes``; without any, nothing is scaled."""
        super().__init__()
        self._rows = [row for episode in episodes for row in episode.observations]

    def _on_rollout_start(self) -> None:
        if self._rows and not self.model.num_timesteps:
            policy = self.model.policy
            assert isinstance(policy, ActorCriticPolicy)
            scale_inputs(policy, np.array(self._rows))


@torch.no_grad()
def scale_inputs(
    policy: ActorCriticPolicy, observations: "np.ndarray[tuple[int, int], np.dtype[np.float64]]"
) -> None:
    """Fold the standardization of (N, F) observations into the first layers, in place."""
    mean = torch.tensor(observations.mean(axis=0), dtype=torch.float32)
    deviation = torch.tensor(observations.std(axis=0), dtype=torch.float32)
    extractor = policy.mlp_extractor
    for layers in (extractor.policy_net, extractor.value_net):
        first = layers[0]
        assert isinstance(first, nn.Linear)
        first.weight.div_(deviation.clamp(min=_SMALLEST_DEVIATION))
        first.bias.sub_(first.weight @ mean)
