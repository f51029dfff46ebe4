"""RL-Mix's agent: shared weights, and learning where the right percentile is known."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents.config import RLMixAgentConfig
from agents.rlmix import (
    RLMixFacts,
    image_features,
    load_actor,
    num_features,
    perceptron,
    save_actor,
    train_rlmix,
)
from automix.errors import CheckpointError
from envs.rlmix.config import RLMixConfig
from envs.rlmix.env import RLMixEnv
from envs.smoke import SMOKE_TASK

BATCH, CELLS, CLASSES, STEPS = 6, 2, 3, 16
CONFIG = RLMixConfig(cells=CELLS)
INPUTS = num_features(CONFIG, CLASSES)
AGENT = RLMixAgentConfig(
    episodes=30, n_steps=64, minibatch_size=64, n_epochs=8, learning_rate=0.02, gamma=0.0
)


class Toy(gym.Env[dict[str, Any], Any]):
    """Pays for a high percentile where the first cell is salient, and for a low one elsewhere."""

    def __init__(self, *, sign: float = 1.0, seed: int = 0) -> None:
        self.observation_space = spaces.Dict(
            saliency=spaces.Box(0, 1, (BATCH * CELLS**2,), np.float32),
            logits=spaces.Box(-16, 0, (BATCH * CLASSES,), np.float32),
        )
        self.action_space = spaces.MultiDiscrete([10] * BATCH)
        self._sign, self._random = sign, np.random.default_rng(seed)

    def reset(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        self._step = 0
        return self._see(), {}

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self._step += 1
        reward = self._sign * score(action, self._peaked)
        return self._see(), reward, self._step == STEPS, False, {}

    def _see(self) -> dict[str, Any]:
        self._peaked = self._random.random(BATCH) < 0.5
        maps = np.where(self._peaked[:, None], [0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7])
        logs = np.log(self._random.dirichlet(np.ones(CLASSES), BATCH)).clip(-16, 0)
        return {"saliency": maps.ravel().astype("f4"), "logits": logs.ravel().astype("f4")}


def score(action: Any, peaked: Any) -> float:
    """1 where every percentile is the best, 1/2 for random ones."""
    return 1 - float(np.mean(np.abs(action - np.where(peaked, 9, 0)))) / 9


def expected_score(actor: torch.nn.Module) -> float:
    toy = Toy(seed=1)
    parts = {name: torch.from_numpy(value)[None] for name, value in toy._see().items()}
    levels = actor(image_features(parts, BATCH))[0].softmax(dim=1) @ torch.arange(10.0)
    return score(levels.numpy(), toy._peaked)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in range(1, 4))]
)
def test_it_learns_the_percentile_of_each_image_and_the_wrong_sign_does_not(seed: int) -> None:
    right = train_rlmix(Toy(seed=seed), AGENT, inputs=INPUTS, seed=seed)
    wrong = train_rlmix(Toy(seed=seed, sign=-1.0), AGENT, inputs=INPUTS, seed=seed)
    assert expected_score(right) > 0.9
    assert expected_score(wrong) < 0.1


def random_actor(*, observe_draws: bool = False) -> tuple[torch.nn.Module, RLMixFacts]:
    config = RLMixConfig(cells=CELLS, observe_draws=observe_draws)
    torch.manual_seed(0)
    actor = perceptron(num_features(config, CLASSES), (5,), 10).requires_grad_(False)
    return actor, RLMixFacts(rlmix=config, num_classes=CLASSES, hidden_sizes=(5,))


def parts_of(batch: int, *, observe_draws: bool) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(batch)
    sizes = {"saliency": CELLS**2, "logits": CLASSES}
    if observe_draws:
        sizes |= {"partner_saliency": CELLS**2, "lam": 1}
    parts = {name: torch.rand(2, batch * size, generator=generator) for name, size in sizes.items()}
    return parts | ({"grid": torch.tensor([[2.0], [4.0]])} if observe_draws else {})


@pytest.mark.parametrize("observe_draws", [False, True])
def test_an_image_gets_the_same_percentiles_wherever_it_stands(observe_draws: bool) -> None:
    actor, _ = random_actor(observe_draws=observe_draws)
    parts = parts_of(7, observe_draws=observe_draws)
    logits = actor(image_features(parts, 7))
    order = torch.tensor([3, 0, 6])
    fewer = {
        name: value if name == "grid" else value.view(2, 7, -1)[:, order].flatten(1)
        for name, value in parts.items()
    }
    torch.testing.assert_close(actor(image_features(fewer, 3)), logits[:, order])


def test_a_saved_agent_is_the_same_and_a_damaged_one_is_one_line(tmp_path: Path) -> None:
    actor, facts = random_actor()
    save_actor(actor, facts, tmp_path)
    loaded, read = load_actor(tmp_path)
    assert read == facts
    features = torch.rand(3, INPUTS)
    assert torch.equal(loaded(features), actor(features))
    actor[0].weight[0, 0] = torch.nan  # type: ignore[index]
    save_actor(actor, facts, tmp_path)
    with pytest.raises(CheckpointError, match="expected finite weights"):
        load_actor(tmp_path)
    save_actor(actor, facts.model_copy(update={"num_classes": 4}), tmp_path)
    with pytest.raises(CheckpointError, match="expected weights that fit"):
        load_actor(tmp_path)


def test_the_environment_trains_it_with_the_generators_left_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    env = RLMixEnv(SMOKE_TASK, CONFIG, seed=0)
    inputs = num_features(CONFIG, env.data.num_classes)
    config = RLMixAgentConfig(episodes=2, n_steps=4, minibatch_size=4)
    infos: list[dict[str, Any]] = []
    actor = train_rlmix(env, config, inputs=inputs, seed=0, report=infos.append)
    assert [info["potential"] < 0 for info in infos] == [True, True]
    assert actor(torch.zeros(inputs)).shape == (10,)
    assert torch.equal(torch.get_rng_state(), before)
