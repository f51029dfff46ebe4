"""A learned policy as a file: weights as safetensors, everything else as JSON. No pickle."""

import json
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from gymnasium import spaces
from safetensors import SafetensorError
from stable_baselines3.common.policies import ActorCriticPolicy

from automix.errors import CheckpointError
from automix.files import write_bytes, write_json
from envs.actions import Action
from envs.observations import Observation

FORMAT = "automix-policy"
WEIGHTS_NAME = "policy.safetensors"
FACTS_NAME = "policy.json"


class LearnedPolicy:
    """The greedy policy of an actor-critic network, on the CPU."""

    def __init__(self, network: ActorCriticPolicy) -> None:
        self.network = network

    def act(self, observation: Observation) -> Action:
        """Return the most probable action."""
        action, _ = self.network.predict(observation, deterministic=True)
        return np.asarray(action, dtype=np.int64)

    def save(self, folder: Path) -> None:
        """Write `policy.safetensors` and `policy.json` into ``folder``."""
        box, choices = self.network.observation_space, self.network.action_space
        assert isinstance(box, spaces.Box)
        assert isinstance(choices, spaces.MultiDiscrete)
        weights = {name: value.contiguous() for name, value in self.network.state_dict().items()}
        write_bytes(folder / WEIGHTS_NAME, safetensors.torch.save(weights))
        facts = {
            "format": FORMAT,
            "version": 1,
            "hidden_sizes": list(self.network.net_arch["pi"]),  # type: ignore[call-overload]
            "observation_low": box.low.tolist(),
            "observation_high": box.high.tolist(),
            "action_sizes": choices.nvec.tolist(),
        }
        write_json(folder / FACTS_NAME, facts)

    @classmethod
    def load(cls, folder: Path) -> "LearnedPolicy":
        """Read a policy that `save` wrote; nothing in the files is executed.

        Raises:
            CheckpointError: a file is missing, or is not such a policy.
        """
        try:
            facts = json.loads((folder / FACTS_NAME).read_text(encoding="utf-8"))
            if facts.get("format") != FORMAT or facts.get("version") != 1:
                raise ValueError(f"format {facts.get('format')!r} {facts.get('version')!r}")
            low = np.array(facts["observation_low"], dtype=np.float32)
            high = np.array(facts["observation_high"], dtype=np.float32)
            network = make_network(
                spaces.Box(low, high, dtype=np.float32),
                spaces.MultiDiscrete(facts["action_sizes"]),
                tuple(facts["hidden_sizes"]),
            )
            weights = safetensors.torch.load((folder / WEIGHTS_NAME).read_bytes())
            network.load_state_dict(weights)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"{folder}: expected a saved policy, got: {reason}") from None
        return cls(network)


def network_arguments(hidden_sizes: tuple[int, ...]) -> dict[str, object]:
    """Return the arguments that give policy and critic networks of their own."""
    return {
        "net_arch": {"pi": list(hidden_sizes), "vf": list(hidden_sizes)},
        "activation_fn": torch.nn.Tanh,
    }


def make_network(
    observations: spaces.Box, actions: spaces.MultiDiscrete, hidden_sizes: tuple[int, ...]
) -> ActorCriticPolicy:
    """Return an untrained network; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        return ActorCriticPolicy(
            observations,
            actions,
            lambda _: 0.0,
            **network_arguments(hidden_sizes),  # type: ignore[arg-type]
        )
