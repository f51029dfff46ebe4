"""RL-Mix's agent: a policy with the same weights for every image, learned by PPO.

The published network ties its weights to the place of an image in a batch of 100 and has 7.5
million of them. Here an image's percentile follows from what is seen of that image, so the batch
may have any size and order, and a policy learned on one size acts on another.

Shape suffixes: N steps, B batch, F features of an image, A percentiles.
"""

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import safetensors.torch
import torch
from gymnasium import Env, spaces
from pydantic import Field
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from agents.config import RLMixAgentConfig
from agents.learned import check_finite
from agents.ppo import isolated_generators
from automix.configuration.base import Config
from automix.files import write_bytes, write_json
from automix.random_streams import Stream, derived_seed
from automix.tensor_files import read_weights
from envs.rlmix.config import RLMixConfig
from envs.rlmix.env import NUM_PERCENTILES

WEIGHTS_NAME = "policy.safetensors"
FACTS_NAME = "policy.json"
Width = Annotated[int, Field(ge=1, le=4096)]


def image_features(parts: Mapping[str, Tensor], batch: int) -> Tensor:
    """Return what is observed of each image, (N, B, F), from N observations of `RLMixEnv`."""
    steps = len(parts["logits"])
    rows = {name: value.view(steps, batch, -1) for name, value in parts.items() if name != "grid"}
    # Maps sum to 1: times the number of cells, their mean is 1 at any resolution.
    features = [rows["saliency"] * rows["saliency"].shape[2], rows["logits"].exp()]
    if "grid" in parts:
        features.append(rows["partner_saliency"] * rows["partner_saliency"].shape[2])
        features.append(rows["lam"])
        features.append(parts["grid"].view(steps, 1, 1).expand(steps, batch, 1))
    return torch.cat(features, dim=2)


def num_features(config: RLMixConfig, num_classes: int) -> int:
    """Return F, the number of features of an image."""
    maps = config.cells**2
    return maps + num_classes + (maps + 2 if config.observe_draws else 0)


def perceptron(inputs: int, hidden_sizes: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Return linear layers with a tanh between any two."""
    widths = (inputs, *hidden_sizes, outputs)
    layers = [
        layer for pair in itertools.pairwise(widths) for layer in (nn.Linear(*pair), nn.Tanh())
    ]
    return nn.Sequential(*layers[:-1])


class _Features(BaseFeaturesExtractor):
    """Cuts an observation into images."""

    def __init__(self, observation_space: spaces.Dict, *, batch: int) -> None:
        super().__init__(observation_space, features_dim=1)
        self._batch = batch

    def forward(self, parts: dict[str, Tensor]) -> Tensor:
        return image_features(parts, self._batch)


class _ActorAndCritic(nn.Module):
    """The two networks; the critic's value of a batch is the mean over its images."""

    latent_dim_pi = latent_dim_vf = 1

    def __init__(self, inputs: int, hidden_sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.actor = perceptron(inputs, hidden_sizes, NUM_PERCENTILES)
        self.critic = perceptron(inputs, hidden_sizes, 1)

    def forward(self, features_NBF: Tensor) -> tuple[Tensor, Tensor]:
        return self.forward_actor(features_NBF), self.forward_critic(features_NBF)

    def forward_actor(self, features_NBF: Tensor) -> Tensor:
        return self.actor(features_NBF)  # type: ignore[no-any-return]

    def forward_critic(self, features_NBF: Tensor) -> Tensor:
        return self.critic(features_NBF).mean(dim=1)  # type: ignore[no-any-return]


class _Percentiles(Distribution):
    """Independent categorical distributions, one per image, as one tensor."""

    _logits: Tensor

    def proba_distribution_net(self, *args: Any, **kwargs: Any) -> nn.Module:
        return nn.Identity()

    def proba_distribution(self, action_logits: Tensor) -> "_Percentiles":
        self._logits = action_logits.log_softmax(dim=2)
        return self

    def log_prob(self, actions: Tensor) -> Tensor:
        # The mean over images, not the sum: PPO clips the ratio of joint probabilities, and with
        # 50 images a change of 0.4% of each would leave its range of 20%.
        chosen_NB1 = actions.long().view(*self._logits.shape[:2], 1)
        return self._logits.gather(2, chosen_NB1).mean(dim=(1, 2))

    def entropy(self) -> Tensor:
        return -(self._logits.exp() * self._logits).sum(dim=2).mean(dim=1)

    def sample(self) -> Tensor:
        return sampled(self._logits)

    def mode(self) -> Tensor:
        return self._logits.argmax(dim=2)

    def actions_from_params(self, action_logits: Tensor, deterministic: bool = False) -> Tensor:
        return self.proba_distribution(action_logits).get_actions(deterministic=deterministic)

    def log_prob_from_params(self, action_logits: Tensor) -> tuple[Tensor, Tensor]:
        actions = self.actions_from_params(action_logits)
        return actions, self.log_prob(actions)


def sampled(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return an index along the last dimension for every row, drawn by its logits."""
    rows = logits.flatten(0, -2).softmax(dim=1)
    return torch.multinomial(rows, 1, generator=generator).view(logits.shape[:-1])


class ImagewisePolicy(ActorCriticPolicy):
    """Stable-Baselines3's policy with shared weights."""

    def __init__(
        self, *args: Any, inputs: int, hidden_sizes: tuple[int, ...], **kwargs: Any
    ) -> None:
        self._sizes = inputs, hidden_sizes
        super().__init__(*args, **kwargs)

    def _build(self, lr_schedule: Callable[[float], float]) -> None:
        networks = _ActorAndCritic(*self._sizes)
        self.mlp_extractor, self.action_dist = networks, _Percentiles()  # type: ignore[assignment,no-untyped-call]
        # Both networks end in what is asked for.
        self.action_net, self.value_net = nn.Identity(), nn.Identity()  # type: ignore[assignment]
        # Percentiles are nearly equally likely at first.
        with torch.no_grad():
            networks.actor[-1].weight.mul_(0.01)  # type: ignore[operator]
        self.optimizer = torch.optim.Adam(networks.parameters(), lr=lr_schedule(1), eps=1e-5)

    def _get_action_dist_from_latent(self, latent_pi: Tensor) -> Distribution:
        return self.action_dist.proba_distribution(latent_pi)


class _AfterEpisodes(BaseCallback):
    """Reports the last `info` of each episode, and stops after enough of them."""

    def __init__(self, report: Callable[[dict[str, Any]], None], *, episodes: int) -> None:
        super().__init__()
        self._report, self._remaining = report, episodes

    def _on_step(self) -> bool:
        for info, done in zip(self.locals["infos"], self.locals["dones"], strict=True):
            if done:
                self._report(info)
                self._remaining -= 1
        return self._remaining > 0


def train_rlmix(
    env: Env[Any, Any],
    config: RLMixAgentConfig,
    *,
    inputs: int,
    seed: int,
    report: Callable[[dict[str, Any]], None] = lambda info: None,
) -> nn.Module:
    """Learn from whole episodes of an environment with `RLMixEnv`'s spaces; return the actor.

    The actor maps (..., F) features to (..., A) logits of the percentiles. The caller's global
    generators stay as they were.

    Args:
        env: the environment, to which nothing else belongs.
        config: hyperparameters of PPO.
        inputs: F, see `num_features`.
        seed: of weights, actions and minibatches; that of the episodes is the environment's.
        report: takes the last ``info`` of each episode.
    """
    assert isinstance(env.action_space, spaces.MultiDiscrete)
    batch = len(env.action_space.nvec)
    with isolated_generators():
        model = PPO(
            ImagewisePolicy,
            env,
            learning_rate=config.learning_rate,
            n_steps=config.n_steps,
            batch_size=config.minibatch_size,
            n_epochs=config.n_epochs,
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
            clip_range=config.clip_range,
            ent_coef=config.ent_coef,
            policy_kwargs={
                "inputs": inputs,
                "hidden_sizes": config.hidden_sizes,
                "features_extractor_class": _Features,
                "features_extractor_kwargs": {"batch": batch},
            },
            # Stable-Baselines3 takes seeds below 2**32.
            seed=derived_seed(seed, Stream.POLICY) % 2**32,
            device="cpu",
        )
        model.set_logger(Logger(folder=None, output_formats=[]))
        # Episodes may end early, so their number ends the learning, not that of the steps.
        callback = _AfterEpisodes(report, episodes=config.episodes)
        model.learn(2**62, callback=callback, log_interval=None)  # type: ignore[arg-type]
    actor = model.policy.mlp_extractor.actor
    assert isinstance(actor, nn.Module)
    return actor.eval().requires_grad_(False)


class RLMixFacts(Config):
    """Shapes that the network of a saved policy is rebuilt from."""

    format: Literal["automix-rlmix"] = "automix-rlmix"
    version: Literal[1] = 1

    rlmix: RLMixConfig
    """The environment it was learned in."""

    num_classes: Width
    """Classes of its logits."""

    hidden_sizes: Annotated[tuple[Width, ...], Field(max_length=16)]
    """Widths of the hidden layers."""


def save_actor(actor: nn.Module, facts: RLMixFacts, folder: Path) -> None:
    """Write `policy.safetensors`, then `policy.json`, into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.contiguous() for name, value in actor.state_dict().items()}
    write_bytes(folder / WEIGHTS_NAME, safetensors.torch.save(weights))
    write_json(folder / FACTS_NAME, facts.model_dump(mode="json"))


def load_actor(folder: Path) -> tuple[nn.Module, RLMixFacts]:
    """Read what `save_actor` wrote; nothing in the files is executed.

    Raises:
        AutoMixError: a file is missing, or is not such a policy.
    """
    facts = RLMixFacts.from_json_file(folder / FACTS_NAME)
    inputs = num_features(facts.rlmix, facts.num_classes)
    with torch.device("meta"):
        actor = perceptron(inputs, facts.hidden_sizes, NUM_PERCENTILES)
    path = folder / WEIGHTS_NAME
    weights = read_weights(path, actor.state_dict())
    check_finite(path, weights)
    actor.load_state_dict(weights, assign=True)
    return actor.eval().requires_grad_(False), facts
