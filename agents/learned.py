"""Policies behind one protocol, and the learned policy with its files."""

import itertools
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Protocol, Self

import numpy as np
import safetensors.torch
import torch
from gymnasium import spaces
from pydantic import Field, model_validator
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor

from automix.configuration.base import Config
from automix.errors import CheckpointError
from automix.files import write_bytes, write_json
from automix.schedule import Schedule
from automix.tensor_files import read_weights
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


WEIGHTS_NAME = "policy.safetensors"
FACTS_NAME = "policy.json"
MAX_WEIGHTS_BYTES = 500_000_000

Width = Annotated[int, Field(ge=1, le=4096)]
Bounds = Annotated[tuple[float, ...], Field(min_length=1, max_length=4096)]


class PolicyFacts(Config):
    """Shapes that a network is rebuilt from; limits keep a hostile file from taking all memory."""

    format: Literal["automix-policy"] = "automix-policy"
    version: Literal[1] = 1

    hidden_sizes: Annotated[tuple[Width, ...], Field(max_length=16)]
    """Widths of the hidden layers of policy and critic."""

    observation_low: Bounds
    """Smallest value of each feature."""

    observation_high: Bounds
    """Largest value of each feature."""

    action_sizes: Annotated[tuple[Width, ...], Field(min_length=1, max_length=64)]
    """Number of choices of each part of an action."""

    # Files of version 1 that are around hold it as null, and must stay readable.
    lstm_size: None = None
    """Always null: recurrent networks are not supported."""

    @model_validator(mode="after")
    def _bounds_fit(self) -> Self:
        low, high = self.observation_low, self.observation_high
        if len(low) != len(high) or any(map(operator.gt, low, high)):
            raise ValueError("expected a lower and a higher bound for each feature, got others")
        return self


class LearnedPolicy:
    """The greedy policy of an actor-critic network, on the CPU."""

    def __init__(self, network: ActorCriticPolicy) -> None:
        self.network = network

    def act(self, observation: Observation) -> Action:
        """Return the most probable action."""
        action, _ = self.network.predict(observation, deterministic=True)
        return np.asarray(action, dtype=np.int64)

    @property
    def hidden_sizes(self) -> tuple[int, ...]:
        """Widths of the hidden layers of policy and critic."""
        return tuple(self.network.net_arch["pi"])  # type: ignore[call-overload]

    def save(self, folder: Path) -> None:
        """Write `policy.safetensors` and `policy.json` into ``folder``."""
        box, choices = self.network.observation_space, self.network.action_space
        assert isinstance(box, spaces.Box)
        assert isinstance(choices, spaces.MultiDiscrete)
        weights = {name: value.contiguous() for name, value in self.network.state_dict().items()}
        write_bytes(folder / WEIGHTS_NAME, safetensors.torch.save(weights))
        facts = PolicyFacts(
            hidden_sizes=self.hidden_sizes,
            observation_low=tuple(box.low.tolist()),
            observation_high=tuple(box.high.tolist()),
            action_sizes=tuple(choices.nvec.tolist()),
        )
        write_json(folder / FACTS_NAME, facts.model_dump(mode="json"))

    @classmethod
    def load(cls, folder: Path) -> "LearnedPolicy":
        """Read a policy that `save` wrote; nothing in the files is executed (no pickle).

        Raises:
            CheckpointError: a file is missing, or is not such a policy.
        """
        facts = PolicyFacts.from_json_file(folder / FACTS_NAME)
        path = folder / WEIGHTS_NAME
        # Before the network is built: at the limits of the facts it takes 2 GB.
        weights = read_weights(path, _tensors_of(facts), limit=MAX_WEIGHTS_BYTES)
        check_finite(path, weights)
        low = np.array(facts.observation_low, dtype=np.float32)
        high = np.array(facts.observation_high, dtype=np.float32)
        network = make_network(
            spaces.Box(low, high, dtype=np.float32),
            spaces.MultiDiscrete(list(facts.action_sizes)),
            facts.hidden_sizes,
        )
        network.load_state_dict(weights)
        return cls(network)


def check_finite(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not finite: NaN would choose the first action, silently.

    Raises:
        CheckpointError: there are some.
    """
    for name, value in weights.items():
        if not value.isfinite().all():
            raise CheckpointError(f"{path}: expected finite weights, got others in {name}")


def _tensors_of(facts: PolicyFacts) -> dict[str, Tensor]:
    """Return the state of the network of `make_network`, on the meta device."""
    widths = (len(facts.observation_low), *facts.hidden_sizes)
    layers = {"action_net": (sum(facts.action_sizes), widths[-1]), "value_net": (1, widths[-1])}
    for net in ("policy_net", "value_net"):
        # Every second module of these networks is an activation.
        for index, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            layers[f"mlp_extractor.{net}.{2 * index}"] = (outputs, inputs)
    tensors = {}
    for name, shape in layers.items():
        tensors[f"{name}.weight"] = torch.empty(shape, device="meta")
        tensors[f"{name}.bias"] = torch.empty(shape[:1], device="meta")
    return tensors


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
    # Its initialization draws from the global generator.
    with torch.random.fork_rng(devices=[]):
        return ActorCriticPolicy(
            observations,
            actions,
            lambda _: 0.0,
            **network_arguments(hidden_sizes),  # type: ignore[arg-type]
        )
