"""PPO on whole training runs: the update, what a rollout is paid, records, and resuming.

One step of `train_ppo` descends through Stable-Baselines3's `PPO.learn` and `collect_rollouts`
into `MixingEnv.step`, which trains one segment. Everything else hangs on callbacks, in this order:
`FinalReturn` rewrites the rewards of each step, what the caller passes records and saves, and
`agents.credit` moves credit between the steps of an episode before the update.
"""

import contextlib
import copy
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from agents.config import AgentConfig
from agents.learned import network_arguments
from automix.errors import ConfigError
from automix.files import check_fields
from automix.random_streams import Stream, derived_seed
from automix.readers import parsing
from automix.schedule import Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningPlan:
    """Numbers derived from configuration; a step is one decision of one environment."""

    # Per rollout; each of these is followed by an update.
    steps_per_environment: int
    minibatch_size: int
    num_rollouts: int
    total_steps: int
    total_episodes: int


def plan_learning(config: AgentConfig, *, num_segments: int) -> LearningPlan:
    """Cut the episodes into rollouts of whole episodes.

    At the end of such a rollout every environment stands at the start of an episode, unless a
    run diverged and ended early.

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


class SchedulePPO(PPO):
    """PPO whose rewards are whole returns, paid by ``returns``."""

    returns: "FinalReturn"


def train_ppo(
    env: VecEnv,
    config: AgentConfig,
    *,
    num_segments: int,
    seed: int,
    callbacks: Sequence[BaseCallback] = (),
    state: "AgentState | None" = None,
    start: Mapping[str, Tensor] | None = None,
) -> SchedulePPO:
    """Learn a schedule policy, or resume from ``state``, to which the environments are set.

    Episodes have ``num_segments`` decisions. Without a state, policy and critic begin with the
    weights ``start``, if there are any. The caller's global generators stay as they were.

    Raises:
        ConfigError: episodes, environments and minibatches do not divide.
    """
    plan = plan_learning(config, num_segments=num_segments)
    with isolated_generators():
        model = _make_ppo(env, config, plan, seed=seed)
        remaining = plan.total_steps
        # First, so that all others see the rewards that the policy is paid.
        first: list[BaseCallback] = [model.returns]
        if state is None and start is not None:
            model.policy.load_state_dict(dict(start))
        if state is not None:
            with parsing("checkpoint", "the state of an agent like this one"):
                _restore(model, state)
            remaining -= state["num_timesteps"]
            first.append(_RestoreAtFirstRollout(model.returns, state))
        if remaining > 0:
            model.learn(
                remaining,
                callback=[*first, *callbacks],
                reset_num_timesteps=state is None,
                log_interval=None,  # type: ignore[arg-type]  # Stable-Baselines3 allows it
            )
    return model


def _make_ppo(env: VecEnv, config: AgentConfig, plan: LearningPlan, *, seed: int) -> SchedulePPO:
    # The clipped objective of PPO (https://arxiv.org/abs/1707.06347): with r = pi / pi_old,
    #   mean min(r A, clip(r, 1 - clip_range, 1 + clip_range) A)
    #   + ent_coef * entropy - vf_coef * (V - R)^2,
    # and generalized advantages (GAE, https://arxiv.org/abs/1506.02438) with gamma = 1:
    #   A_t = sum_k lambda^k (r_{t+k} + V(s_{t+k+1}) - V(s_{t+k})),  R_t = A_t + V(s_t).
    model = SchedulePPO(
        "MlpPolicy",
        env,
        # Not to 0: the update after the last rollout learns too, and one rollout learns something.
        learning_rate=LinearSchedule(
            config.learning_rate, config.learning_rate / plan.num_rollouts, 1.0
        ),
        n_steps=plan.steps_per_environment,
        batch_size=plan.minibatch_size,
        n_epochs=config.n_epochs,
        gamma=1.0,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip_range,
        ent_coef=config.ent_coef,
        vf_coef=config.vf_coef,
        policy_kwargs=network_arguments(config.hidden_sizes),
        # Stable-Baselines3 takes seeds below 2**32.
        seed=derived_seed(seed, Stream.POLICY) % 2**32,
        device="cpu",
    )
    # Without a logger of its own it would leave a folder in the system's temporary one. This one
    # only collects what is recorded, for `ForwardLogs`.
    model.set_logger(Logger(folder=None, output_formats=[]))
    model.returns = FinalReturn(env)
    return model


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


class ReturnStatistics(TypedDict):
    """Count, mean and sum of squared deviations of all returns so far."""

    count: int
    mean: float
    squares: float


class FinalReturn(BaseCallback):
    """Pays the sum of an episode's rewards at its end, standardized by all returns so far.

    Rewards are gains of a potential, so without discounting the sum is the same and so is the
    best policy. But the gains of the first segments are a hundred times larger than what a
    decision changes about the end, and a critic would have to learn them first. Paid at the end,
    the return varies only by what matters.

    An episode that resumes from a snapshot is paid the gain of its whole run, what the run had
    gained before included, so that all returns are on one scale and a state is worth the same
    however it was reached.

    The raw return and its length stay in ``info["episode"]``.
    """

    def __init__(self, env: VecEnv) -> None:
        super().__init__()
        self.statistics = ReturnStatistics(count=0, mean=0.0, squares=0.0)
        self._env = env
        self._returns = np.zeros(env.num_envs)
        self._lengths = np.zeros(env.num_envs, dtype=np.int64)

    def _on_training_start(self) -> None:
        # The environments have just been reset: unfinished returns are forgotten.
        for index in range(self._env.num_envs):
            self._begin(index)

    def _on_step(self) -> bool:
        # In place: these arrays are what the rollout buffer takes in after the callbacks.
        self.pay(self.locals["rewards"], self.locals["dones"], self.locals["infos"])
        return True

    def pay(
        self, rewards: NDArray[np.floating], dones: NDArray[np.bool_], infos: list[dict[str, Any]]
    ) -> None:
        """Replace the rewards of one step of all environments: 0, and the return at the end."""
        self._returns += rewards
        self._lengths += 1
        rewards[:] = 0
        finished = np.flatnonzero(dones).tolist()
        # All returns of a step are taken in before any is standardized: the order of environments
        # does not matter.
        for index in finished:
            self._take_in(float(self._returns[index]))
        for index in finished:
            value = float(self._returns[index])
            rewards[index] = (value - self.statistics["mean"]) / self.deviation
            infos[index]["episode"] = {"r": value, "l": int(self._lengths[index]), "t": 0.0}
            self._begin(index)

    @property
    def deviation(self) -> float:
        """Standard deviation of all returns so far: one unit of what is paid."""
        if self.statistics["count"] < 2:
            return math.inf
        return math.sqrt(self.statistics["squares"] / (self.statistics["count"] - 1)) + 1e-8

    def unfinished(self) -> list[tuple[float, int]]:
        """Return the sum of rewards and the length of each episode in progress."""
        pairs = zip(self._returns, self._lengths, strict=True)
        return [(float(value), int(length)) for value, length in pairs]

    def resume_episodes(self, unfinished: list[tuple[float, int]]) -> None:
        """Put back what `unfinished` returned."""
        for index, (value, length) in enumerate(unfinished):
            self._returns[index], self._lengths[index] = value, length

    def _begin(self, index: int) -> None:
        """Start from what the run of a new episode had gained before, see `MixingEnv`."""
        self._returns[index] = self._env.reset_infos[index].get("gain_so_far", 0.0)
        self._lengths[index] = 0

    def _take_in(self, value: float) -> None:
        # Welford: with n returns, mean_n = mean_{n-1} + delta / n, and the sum of squared
        # deviations grows by delta (value - mean_n).
        count = self.statistics["count"] + 1
        delta = value - self.statistics["mean"]
        mean = self.statistics["mean"] + delta / count
        squares = self.statistics["squares"] + delta * (value - mean)
        self.statistics = ReturnStatistics(count=count, mean=mean, squares=squares)


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One training run of the search."""

    # In the order in which episodes ended, from 0.
    number: int
    schedule: Schedule
    # The gain of the whole run, from another start in each episode; the potential at the end can
    # be compared between episodes.
    total_reward: float
    potential: float
    training_seed: int
    seconds: float
    # Before each decision; empty if unknown.
    observations: tuple[tuple[float, ...], ...] = ()

    @property
    def observed_segments(self) -> range:
        """Segments whose decisions `observations` were made before."""
        # An episode may resume from a snapshot: what was seen before it is not known.
        last = len(self.schedule.segments)
        return range(last - len(self.observations), last)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; `from_dict` is the inverse."""
        return {name: getattr(self, name) for name in self.__slots__} | {
            "schedule": self.schedule.to_plain(),
            "observations": [list(row) for row in self.observations],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Episode":
        """Return the episode whose `to_dict` is ``values``."""
        return cls(
            **values
            | {
                "schedule": Schedule.from_plain(values["schedule"]),
                "observations": tuple(tuple(row) for row in values["observations"]),
            }
        )

    @classmethod
    def from_info(
        cls,
        info: dict[str, Any],
        *,
        number: int,
        total_reward: float,
        observations: Sequence[Sequence[float]] = (),
    ) -> "Episode":
        """Return the episode that the last ``info`` of an environment tells of."""
        return cls(
            number=number,
            total_reward=total_reward,
            observations=tuple(tuple(map(float, row)) for row in observations),
            **{name: info[name] for name in ("schedule", "potential", "training_seed", "seconds")},
        )


class EpisodeRecorder(BaseCallback):
    """Records every finished episode and stops early when the agent no longer improves."""

    def __init__(
        self,
        episodes: list[Episode],
        *,
        on_episode: Callable[[Episode], None],
        episodes_per_rollout: int,
        patience: int | None,
    ) -> None:
        """Append to ``episodes``; stop after ``patience`` rollouts without a better mean."""
        super().__init__()
        self._episodes = episodes
        self._on_episode = on_episode
        self._per_rollout = episodes_per_rollout
        self._patience = patience
        self._observations: list[list[Any]] = []

    def _on_rollout_start(self) -> None:
        # What an episode saw in an earlier rollout is forgotten: a search that is resumed here
        # does not know it. Episodes are cut by rollouts only after one that diverged.
        self._observations = [[] for _ in range(self.training_env.num_envs)]

    def _on_step(self) -> bool:
        for index, info in enumerate(self.locals["infos"]):
            self._observations[index].append(self.locals["obs_tensor"][index].tolist())
            if "episode" in info:
                episode = Episode.from_info(
                    info,
                    number=len(self._episodes),
                    total_reward=info["episode"]["r"],
                    observations=self._observations[index],
                )
                self._episodes.append(episode)
                self._on_episode(episode)
                self._observations[index] = []
        return not self._has_stalled()

    def _has_stalled(self) -> bool:
        count = len(self._episodes)
        if self._patience is None or not count or count % self._per_rollout:
            return False
        rewards = [episode.total_reward for episode in self._episodes]
        means = np.reshape(rewards, (-1, self._per_rollout)).mean(axis=1)
        return len(means) - 1 - int(means.argmax()) >= self._patience


class AgentState(TypedDict):
    """State that learning resumes from, at a rollout boundary: tensors and plain values only."""

    num_timesteps: int
    num_updates: int
    policy: dict[str, Any]
    optimizer: dict[str, Any]
    returns: ReturnStatistics
    unfinished: list[tuple[float, int]]
    environments: list[dict[str, Any]]
    torch_generator: torch.Tensor
    numpy_generator: list[Any]


class RolloutCallback(BaseCallback):
    """A callback that acts between rollouts, and lets every step pass."""

    def _on_step(self) -> bool:
        return True


class RolloutCheckpoint(RolloutCallback):
    """Hands the state out at every rollout boundary: after the update, before the next episode."""

    def __init__(self, save: Callable[[AgentState], None]) -> None:
        super().__init__()
        self._save = save

    def _on_rollout_start(self) -> None:
        model = self.model
        assert isinstance(model, SchedulePPO)
        kind, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
        self._save(
            AgentState(
                num_timesteps=model.num_timesteps,
                num_updates=model._n_updates,
                policy={name: value.clone() for name, value in model.policy.state_dict().items()},
                optimizer=copy.deepcopy(model.policy.optimizer.state_dict()),
                returns=model.returns.statistics,
                unfinished=model.returns.unfinished(),
                environments=self.training_env.env_method("get_state"),
                torch_generator=torch.get_rng_state(),
                numpy_generator=[
                    kind,
                    # Unsigned tensors are saved as storages of no type, which readers refuse.
                    torch.from_numpy(np.array(keys, dtype=np.int64)),
                    position,
                    has_gauss,
                    gauss,
                ],
            )
        )


def _restore(model: SchedulePPO, state: AgentState) -> None:
    counts = {"num_timesteps": (int,), "num_updates": (int,), "returns": (dict,)}
    check_fields(state, counts, source="checkpoint: agent")
    statistics = {"count": (int,), "mean": (float,), "squares": (float,)}
    check_fields(state["returns"], statistics, source="checkpoint: agent: returns")
    model.policy.load_state_dict(state["policy"])
    # Copied, because the optimizer would update the caller's tensors in place.
    model.policy.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
    model.num_timesteps = state["num_timesteps"]
    model._n_updates = state["num_updates"]
    model.returns.statistics = state["returns"]


class _RestoreAtFirstRollout(RolloutCallback):
    """Puts environments and generators back, after `learn` has reset the environments."""

    def __init__(self, returns: FinalReturn, state: AgentState) -> None:
        super().__init__()
        self._returns = returns
        self._state: AgentState | None = state

    def _on_rollout_start(self) -> None:
        if self._state is not None:
            with parsing("checkpoint", "the state of an agent like this one"):
                self._resume(self._state)
            self._state = None

    def _resume(self, agent: AgentState) -> None:
        observations, starts = self.model._last_obs, self.model._last_episode_starts
        assert isinstance(observations, np.ndarray)
        assert starts is not None
        for index, state in enumerate(agent["environments"]):
            observations[index] = self.training_env.env_method("set_state", state, indices=index)[0]
            starts[index] = state["is_start"]
        self._returns.resume_episodes(agent["unfinished"])
        # The generators last, after everything that may draw.
        kind, keys, position, has_gauss, gauss = agent["numpy_generator"]
        np.random.set_state(  # noqa: NPY002
            (kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss)
        )
        torch.set_rng_state(agent["torch_generator"])


class ForwardLogs(RolloutCallback):
    """Forwards the numbers that Stable-Baselines3 logs at each update."""

    def __init__(self, write: Callable[[dict[str, float], int], None]) -> None:
        super().__init__()
        self._write = write

    def _on_rollout_start(self) -> None:
        # What the update before this rollout recorded; there is none before the first.
        logger = self.model.logger
        numbers = {
            key: float(value)
            for key, value in logger.name_to_value.items()
            if isinstance(value, int | float | np.number)
        }
        if numbers:
            self._write(numbers, self.num_timesteps)
        # The logger has no outputs of its own: this only forgets what was recorded.
        logger.dump(self.num_timesteps)

    def _on_training_end(self) -> None:
        self._on_rollout_start()
