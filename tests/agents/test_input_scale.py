"""Standardization of observations, folded into the first layers of a policy."""

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from agents.input_scale import scale_inputs
from agents.learned import make_network


def first_layers(network: ActorCriticPolicy) -> list[nn.Linear]:
    extractor = network.mlp_extractor
    layers = [net[0] for net in (extractor.policy_net, extractor.value_net)]
    return [layer for layer in layers if isinstance(layer, nn.Linear)]


def test_the_first_layers_see_standardized_features() -> None:
    box = spaces.Box(-10, 10, (3,), dtype=np.float32)
    network = make_network(box, spaces.MultiDiscrete([4]), (5,))
    generator = np.random.default_rng(0)
    # The last feature hardly varies: it is divided by 0.05 and no less.
    rows = generator.normal([1, -2, 3], [0.5, 2, 1e-6], size=(500, 3))
    layers = first_layers(network)
    before = [(layer.weight.detach().clone(), layer.bias.detach().clone()) for layer in layers]
    scale_inputs(network, rows)
    deviations = np.maximum(rows.std(axis=0), 0.05)
    standardized = torch.tensor((rows - rows.mean(axis=0)) / deviations, dtype=torch.float32)
    for layer, (weight, bias) in zip(layers, before, strict=True):
        seen = layer(torch.tensor(rows, dtype=torch.float32))
        expected = standardized @ weight.T + bias
        torch.testing.assert_close(seen, expected, rtol=1e-4, atol=1e-3)
