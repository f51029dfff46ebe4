"""Credit from the additive model, and imitation of it as a warm start of PPO.

Both read the same fit of all finished episodes (`agents.additive`): f_s(d, x) is the estimated
effect of decision d in segment s, in the state x before it, on how the whole run ends.
"""

import itertools
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from torch import Tensor
from torch.distributions import Categorical

from agents.additive import FEWEST_EPISODES, AdditiveFit, AdditiveModel
from agents.config import AgentConfig
from agents.ppo import Episode, RolloutCallback, SchedulePPO, plan_learning
from automix.schedule import Mixing, Mixture
from envs.actions import ActionCodec
from envs.config import EnvironmentConfig
from envs.observations import random_observations

Floats = NDArray[np.float64]


def fit_episodes(
    episodes: Sequence[Episode],
    choices: Sequence[Mixing],
    *,
    num_segments: int,
    starts: Sequence[float] | None = None,
    race: Sequence[Episode] = (),
) -> AdditiveFit:
    """Fit the additive model to finished episodes and what was observed in them.

    See `EpisodesModel` for the arguments.

    Raises:
        ValueError: there are fewer than 8 episodes.
    """
    model = EpisodesModel(episodes, choices, num_segments=num_segments, starts=starts, race=race)
    return model.fit()


class EpisodesModel:
    """The additive model of a list of episodes that others append to."""

    def __init__(
        self,
        episodes: Sequence[Episode],
        choices: Sequence[Mixing],
        *,
        num_segments: int,
        starts: Sequence[float] | None = None,
        race: Sequence[Episode] = (),
    ) -> None:
        """Fit nothing yet.

        Args:
            episodes: whose segments are all among ``choices``.
            choices: the first ones of the fit. What ``race`` mixes beyond them comes after.
            num_segments: of an episode.
            starts: of the segments; None: they are of equal length.
            race: training runs that came before, of any schedules.
        """
        self._episodes = episodes
        self._num_segments = num_segments
        self._race = race
        starts = starts or [segment / num_segments for segment in range(num_segments)]
        # A dict keeps the order, so that the choices of the caller stay the first.
        every = dict.fromkeys(map(Mixture.of, choices))
        for episode in race:
            every |= dict.fromkeys(episode.schedule.averaged(starts))
        self._model = AdditiveModel(list(every), num_segments=num_segments, starts=starts)
        self._model.add(
            [episode.schedule for episode in race],
            [episode.potential for episode in race],
            _states(race, num_segments=num_segments),
        )

    @property
    def has_enough(self) -> bool:
        """Whether there are as many episodes as `fit` needs."""
        return len(self._race) + len(self._episodes) >= FEWEST_EPISODES

    def fit(self) -> AdditiveFit:
        """Take in the episodes that are new, and return the fit to all.

        Raises:
            ValueError: there are fewer than 8.
        """
        new = self._episodes[len(self._model) - len(self._race) :]
        self._model.add(
            [episode.schedule for episode in new],
            [episode.potential for episode in new],
            _states(new, num_segments=self._num_segments),
        )
        return self._model.fit()


def _states(episodes: Sequence[Episode], *, num_segments: int) -> Floats | None:
    """Return (E, S, F) observations before each decision, NaN where unknown; None if all are."""
    width = max((len(row) for episode in episodes for row in episode.observations), default=0)
    if not width:
        return None
    states = np.full((len(episodes), num_segments, width), np.nan)
    for number, episode in enumerate(episodes):
        if episode.observations:
            states[number, episode.observed_segments] = episode.observations
    return states


def teachers(
    config: AgentConfig,
    episodes: Sequence[Episode],
    environment: EnvironmentConfig,
    *,
    race: Sequence[Episode] = (),
) -> list[BaseCallback]:
    """Return what gives the agent credit for its decisions, and lets it imitate if it should.

    All read the finished ``episodes``, which others append to, and what was trained before them,
    the ``race``.
    """
    callbacks: list[BaseCallback] = []
    if config.credit:
        callbacks.append(RedistributedReturns(episodes, environment, race=race))
    # What was learned elsewhere would be forgotten.
    if config.start_from is not None:
        return callbacks
    if config.race_start and len(race) >= FEWEST_EPISODES:
        callbacks.append(RaceStart(race, environment))
    if config.warm_start is not None:
        # At a rollout boundary, where a search that resumes can stand.
        plan = plan_learning(config, num_segments=environment.num_segments)
        steps = plan.total_steps // plan.num_rollouts
        after_steps = round(config.warm_start * plan.num_rollouts) * steps
        callbacks.append(Imitation(episodes, environment, after_steps=after_steps, race=race))
    return callbacks


class RedistributedReturns(BaseCallback):
    """Redistributes the returns of a rollout before the policy is updated with it.

    The return R is paid at the end of an episode (`FinalReturn`). What decision d_s is expected to
    have contributed, c_s = f_s(d_s, x_s), is paid at its own step instead, in units of the
    deviation sigma of returns:

        r_s = c_s / sigma,   r_end = (R - sum_s c_s) / sigma + its own c_s / sigma.

    The sum over an episode stays R, whatever the fit says (return decomposition as in RUDDER,
    https://arxiv.org/abs/1806.07857). What seed noise explains stays at the end, where a trace of
    lambda < 1 hardly brings it to early decisions.
    """

    def __init__(
        self,
        episodes: Sequence[Episode],
        environment: EnvironmentConfig,
        *,
        race: Sequence[Episode] = (),
    ) -> None:
        super().__init__()
        self._codec = ActionCodec(environment)
        choices = self._codec.choices()
        self._model = EpisodesModel(
            episodes,
            choices,
            num_segments=environment.num_segments,
            starts=environment.starts,
            race=race,
        )
        self._index = {choice: number for number, choice in enumerate(choices)}
        # Segments of the run at the end of an episode, by step and environment.
        self._ends: dict[tuple[int, int], int] = {}

    def _on_rollout_start(self) -> None:
        self._ends = {}

    def _on_step(self) -> bool:
        for env, info in enumerate(self.locals["infos"]):
            if "schedule" in info:
                self._ends[self.locals["n_steps"], env] = len(info["schedule"].segments)
        return True

    def _on_rollout_end(self) -> None:
        if not self._model.has_enough:
            return
        buffer = self.locals["rollout_buffer"]
        assert isinstance(buffer, RolloutBuffer)
        assert isinstance(self.model, SchedulePPO)
        buffer.rewards += self._shift(self._model.fit(), buffer) / self.model.returns.deviation
        # Both are what the algorithm has just computed the advantages of the buffer with.
        buffer.compute_returns_and_advantage(self.locals["values"], self.locals["dones"])

    def _shift(self, fit: AdditiveFit, buffer: RolloutBuffer) -> Floats:
        """Return (steps, environments) amounts that move credit and sum to 0 over an episode."""
        num_steps, num_envs = buffer.rewards.shape
        shift = np.zeros((num_steps, num_envs))
        for env in range(num_envs):
            starts = [*np.flatnonzero(buffer.episode_starts[:, env]), num_steps]
            for start, stop in itertools.pairwise(starts):
                # An episode that the rollout cuts has no end here, and keeps its rewards.
                if (end := self._ends.get((stop - 1, env))) is None:
                    continue
                actions = buffer.actions[start:stop, env].astype(np.int64)
                chosen = [self._index[self._codec.decode(action)] for action in actions]
                segments = np.arange(end - len(chosen), end)
                # An episode from a snapshot has fewer steps than segments: its last ones.
                states = buffer.observations[start:stop, env].astype(np.float64)
                effects = fit.effects_in(segments, states)
                contributions = effects[np.arange(len(chosen)), chosen]
                shift[start:stop, env] += contributions
                shift[stop - 1, env] -= contributions.sum()
        return shift


# tau: a decision is e times as probable as one that is worse by this fraction of the deviation of
# the returns.
_TEMPERATURE = 0.08
_STEPS = 200
_LEARNING_RATE = 0.01


class Imitation(RolloutCallback):
    """Teaches the policy once what an additive model of all episodes prefers.

    The target in state x before segment s is q(d) = softmax_d(f_s(d, x) / (tau sigma)), with sigma
    the deviation of the outcomes; the policy learns it by cross-entropy on all observed states.

    It acts before a rollout, after whatever saves the state there: a search that resumes from that
    state imitates the same again.
    """

    def __init__(
        self,
        episodes: Sequence[Episode],
        environment: EnvironmentConfig,
        *,
        after_steps: int,
        race: Sequence[Episode] = (),
    ) -> None:
        super().__init__()
        self._episodes = episodes
        self._environment = environment
        self._race = race
        # Not a number of episodes: those from snapshots are shorter, so that no rollout may end
        # with exactly that number.
        self._after_steps = after_steps

    def _on_rollout_start(self) -> None:
        is_due = self.model.num_timesteps == self._after_steps
        if not is_due or len(self._episodes) < FEWEST_EPISODES:
            return
        codec = ActionCodec(self._environment)
        fit = fit_episodes(
            self._episodes,
            codec.choices(),
            num_segments=self._environment.num_segments,
            starts=self._environment.starts,
            race=self._race,
        )
        states, effects = _observed_effects(self._episodes, fit)
        deviation = _deviation(self._episodes)
        _imitate_effects(self.model.policy, codec, states, effects, deviation=deviation)


# Random states that the policy is shown before each segment.
_STATES_PER_SEGMENT = 32
# Fraction of the probability that stays uniform: what the race did not try stays possible.
_UNIFORM = 0.5


class RaceStart(RolloutCallback):
    """Teaches the policy, before its first rollout, what an additive model of the race prefers.

    Where nothing was observed in the race, each segment is shown with random states, of which only
    what depends on its start alone is right: the policy learns to read that, and nothing else yet.
    The target is that of `Imitation`, (1 - u) q(d) + u / D, with a part u that stays uniform.

    As with `Imitation`, a search that resumes from the state before it does the same again.
    """

    def __init__(self, race: Sequence[Episode], environment: EnvironmentConfig) -> None:
        super().__init__()
        self._race = race
        self._environment = environment

    def _on_rollout_start(self) -> None:
        if self.model.num_timesteps:
            return
        codec, starts = ActionCodec(self._environment), self._environment.starts
        fit = fit_episodes(
            (), codec.choices(), num_segments=len(starts), starts=starts, race=self._race
        )
        states, effects = self._shown(fit)
        _imitate_effects(
            self.model.policy,
            codec,
            states,
            effects,
            deviation=_deviation(self._race),
            uniform=_UNIFORM,
        )

    def _shown(self, fit: AdditiveFit) -> tuple[Floats, Floats]:
        """Return (N, F) states and the (N, D) effects there."""
        if any(episode.observations for episode in self._race):
            return _observed_effects(self._race, fit)
        # Of their own: the generators of the search stay as they were.
        generator = np.random.default_rng(0)
        states = [
            random_observations(
                self._environment, start, count=_STATES_PER_SEGMENT, generator=generator
            )
            for start in self._environment.starts
        ]
        return np.concatenate(states), np.repeat(fit.effects, _STATES_PER_SEGMENT, axis=0)


def _observed_effects(episodes: Sequence[Episode], fit: AdditiveFit) -> tuple[Floats, Floats]:
    """Return the (N, F) states that were observed, and the (N, D) effects there."""
    states = np.array([row for episode in episodes for row in episode.observations])
    segments = np.concatenate([episode.observed_segments for episode in episodes])
    return states, fit.effects_in(segments, states)


def _deviation(episodes: Sequence[Episode]) -> float:
    return float(np.std([episode.potential for episode in episodes])) + 1e-12


def _imitate_effects(
    policy: BasePolicy,
    codec: ActionCodec,
    states: Floats,
    effects: Floats,
    *,
    deviation: float,
    uniform: float = 0.0,
) -> None:
    """Teach preferences by (N, D) effects, those of the codec first, in (N, F) states."""
    assert isinstance(policy, ActorCriticPolicy)
    choices = codec.choices()
    scaled = torch.tensor(effects[:, : len(choices)]) / (_TEMPERATURE * deviation)
    targets = (1 - uniform) * torch.softmax(scaled, dim=1) + uniform / len(choices)
    imitate(
        policy,
        torch.tensor(states, dtype=torch.float32),
        torch.tensor(np.array([codec.encode(choice) for choice in choices])),
        targets.float(),
    )


@torch.enable_grad()
def imitate(
    policy: ActorCriticPolicy, observations_NF: Tensor, actions_DP: Tensor, probabilities_ND: Tensor
) -> None:
    """Minimize - mean_n sum_d q_nd log pi(d | x_n), with D actions of P parts, in place."""
    # The critic learns from returns, which say nothing here.
    weights = [weight for name, weight in policy.named_parameters() if "value" not in name]
    optimizer = torch.optim.Adam(weights, lr=_LEARNING_RATE)
    for _ in range(_STEPS):
        parts = policy.get_distribution(observations_NF).distribution
        assert isinstance(parts, list)
        # Of all actions from one pass: log pi is the sum over the parts of an action.
        log_probabilities_ND = torch.stack(
            [
                cast("Categorical", part).logits[:, actions_D]
                for part, actions_D in zip(parts, actions_DP.T, strict=True)
            ]
        ).sum(dim=0)
        loss = -(probabilities_ND * log_probabilities_ND).sum(dim=1).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
