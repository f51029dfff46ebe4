"""Proximal policy optimisation on whole trainings, resumable bit for bit at rollout boundaries."""

import contextlib
import copy
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv

from agents.config import AgentConfig
from agents.learned import LearnedPolicy, network_arguments
from agents.returns import FinalReturn, ReturnStatistics
from automix.errors import ConfigError
from automix.random_streams import Stream, derived_seed


class AgentState(TypedDict):
    """What learning continues from, at a rollout boundary: tensors and plain values only."""

    num_timesteps: int
    num_updates: int
    policy: dict[str, Any]
    optimizer: dict[str, Any]
    returns: ReturnStatistics
    unfinished: list[tuple[float, int]]
    environments: list[dict[str, Any]]
    torch_generator: torch.Tensor
    numpy_generator: list[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningPlan:
    """How many decisions are taken, derived from configuration.

    Attributes:
        steps_per_environment: decisions of one environment per rollout.
        minibatch_size: decisions per gradient step.
        num_rollouts: rollouts, each followed by an update.
        total_steps: decisions of all environments over all rollouts.
        total_episodes: trainings over all rollouts.
    """

    steps_per_environment: int
    minibatch_size: int
    num_rollouts: int
    total_steps: int
    total_episodes: int


def plan_learning(config: AgentConfig, *, num_segments: int) -> LearningPlan:
    """Cut the episodes into rollouts of whole episodes.

    At the end of such a rollout every environment stands at the start of an episode, unless a
    training diverged and ended early.

    Raises:
        ConfigError: the numbers do not divide.
    """
    per_rollout, num_environments = config.episodes_per_rollout, config.num_environments
    if per_rollout % num_environments:
        raise ConfigError(
            f"agent.episodes_per_rollout: expected a multiple of agent.num_environments "
            f"({num_environments}), got {per_rollout}"
        )
    decisions = per_rollout * num_segments
    minibatch_size = config.minibatch_size or decisions
    if decisions % minibatch_size:
        raise ConfigError(
            f"agent.minibatch_size: expected a divisor of the {decisions} decisions of a rollout "
            f"({per_rollout} episodes of {num_segments} segments), got {minibatch_size}"
        )
    num_rollouts = -(-config.episodes // per_rollout)
    return LearningPlan(
        steps_per_environment=decisions // num_environments,
        minibatch_size=minibatch_size,
        num_rollouts=num_rollouts,
        total_steps=num_rollouts * decisions,
        total_episodes=num_rollouts * per_rollout,
    )


def train_ppo(
    env: VecEnv,
    config: AgentConfig,
    *,
    num_segments: int,
    seed: int,
    callbacks: Sequence[BaseCallback] = (),
    state: AgentState | None = None,
) -> PPO:
    """Learn a schedule policy; the caller's global generators are left as they were.

    Args:
        env: environments whose episodes have ``num_segments`` decisions.
        config: how the policy learns.
        num_segments: decisions per episode.
        seed: names the initial policy and its exploration.
        callbacks: Stable-Baselines3 callbacks.
        state: continue from this state instead of starting; the environments are set to it.

    Raises:
        ConfigError: episodes, environments and minibatches do not divide.
    """
    plan = plan_learning(config, num_segments=num_segments)
    with isolated_generators():
        wrapped = FinalReturn(env)
        model = _make_ppo(wrapped, config, plan, seed=seed)
        remaining = plan.total_steps
        first = []
        if state is not None:
            _restore(model, wrapped, state)
            remaining -= state["num_timesteps"]
            first = [_RestoreAtFirstRollout(wrapped, state)]
        if remaining > 0:
            model.learn(
                remaining,
                callback=[*first, *callbacks],
                reset_num_timesteps=state is None,
                log_interval=None,  # type: ignore[arg-type]  # Stable-Baselines3 allows it
            )
    return model


def policy_of(model: PPO) -> LearnedPolicy:
    """Return the greedy policy of a learned model."""
    return LearnedPolicy(model.policy)


def capture(model: PPO) -> AgentState:
    """Return a copy of the state; call it at the start of a rollout, after the update."""
    env = model.get_env()
    assert isinstance(env, FinalReturn)
    kind, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    return AgentState(
        num_timesteps=model.num_timesteps,
        num_updates=model._n_updates,
        policy={name: value.clone() for name, value in model.policy.state_dict().items()},
        optimizer=copy.deepcopy(model.policy.optimizer.state_dict()),
        returns=env.statistics,
        unfinished=env.unfinished(),
        environments=env.env_method("get_state"),
        torch_generator=torch.get_rng_state(),
        numpy_generator=[kind, torch.from_numpy(np.array(keys)), position, has_gauss, gauss],
    )


@contextlib.contextmanager
def isolated_generators() -> Iterator[None]:
    """Put the global generators back afterwards: Stable-Baselines3 seeds and advances them."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)


class _RestoreAtFirstRollout(BaseCallback):
    """Puts environments and generators back, the generators after everything that may draw."""

    def __init__(self, env: FinalReturn, state: AgentState) -> None:
        super().__init__()
        self._env = env
        self._state: AgentState | None = state

    def _on_rollout_start(self) -> None:
        if self._state is not None:
            self._restore_environments(self._state)
            kind, keys, position, has_gauss, gauss = self._state["numpy_generator"]
            np.random.set_state((kind, keys.numpy(), position, has_gauss, gauss))  # noqa: NPY002
            torch.set_rng_state(self._state["torch_generator"])
            self._state = None

    def _restore_environments(self, state: AgentState) -> None:
        observations, starts = self.model._last_obs, self.model._last_episode_starts
        assert isinstance(observations, np.ndarray)
        assert starts is not None
        for index, env_state in enumerate(state["environments"]):
            observations[index] = self._env.env_method("set_state", env_state, indices=index)[0]
            starts[index] = env_state["is_start"]
        self._env.continue_episodes(state["unfinished"])

    def _on_step(self) -> bool:
        return True


def _make_ppo(env: FinalReturn, config: AgentConfig, plan: LearningPlan, *, seed: int) -> PPO:
    model = PPO(
        "MlpPolicy",
        env,
        # Not to 0: the update after the last rollout learns too, and one rollout learns something.
        learning_rate=LinearSchedule(
            config.learning_rate, config.learning_rate / plan.num_rollouts, 1.0
        ),
        n_steps=plan.steps_per_environment,
        batch_size=plan.minibatch_size,
        n_epochs=config.epochs_per_update,
        gamma=1.0,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip_range,
        ent_coef=config.entropy_coefficient,
        vf_coef=config.value_coefficient,
        policy_kwargs=network_arguments(config.hidden_sizes),
        # Stable-Baselines3 takes seeds below 2**32.
        seed=derived_seed(seed, Stream.POLICY) % 2**32,
        device="cpu",
    )
    # Without a logger of its own it would leave a folder in the system's temporary one.
    model.set_logger(Logger(folder=None, output_formats=[]))
    return model


def _restore(model: PPO, env: FinalReturn, state: AgentState) -> None:
    model.policy.load_state_dict(state["policy"])
    # Copied, because the optimiser would go on to update the caller's tensors in place.
    model.policy.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
    model.num_timesteps = state["num_timesteps"]
    model._n_updates = state["num_updates"]
    env.statistics = state["returns"]
