"""Credit from the additive model, and imitation of it as a warm start of PPO.

Both read the same fit of all finished episodes (`agents.additive`): f_s(d, x) is the estimated
effect of decision d in segment s, in the state x before it, on how the whole run ends.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor

from agents.additive import FEWEST_EPISODES, AdditiveFit, AdditiveModel
from agents.config import AgentConfig
from agents.ppo import Episode, RolloutCallback, SchedulePPO, plan_learning
from automix.schedule import Decision
from envs.actions import ActionCodec

Floats = NDArray[np.float64]


def fit_episodes(
    episodes: Sequence[Episode], choices: Sequence[Decision], *, num_segments: int
) -> AdditiveFit:
    """Fit the additive model to finished episodes and what was observed in them.

    Raises:
        ValueError: there are fewer than 8 episodes.
    """
    return EpisodesModel(episodes, choices, num_segments=num_segments).fit()


class EpisodesModel:
    """The additive model of a list of episodes that others append to."""

    def __init__(
        self, episodes: Sequence[Episode], choices: Sequence[Decision], *, num_segments: int
    ) -> None:
        """Fit nothing yet."""
        self._episodes = episodes
        self._num_segments = num_segments
        self._model = AdditiveModel(choices, num_segments=num_segments)

    def fit(self) -> AdditiveFit:
        """Take in the episodes that are new, and return the fit to all.

        Raises:
            ValueError: there are fewer than 8.
        """
        new = self._episodes[len(self._model) :]
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
    config: AgentConfig, episodes: Sequence[Episode], codec: ActionCodec, *, num_segments: int
) -> list[BaseCallback]:
    """Return what gives the agent credit for its decisions, and lets it imitate if it should.

    Both read the finished ``episodes``, which others append to.
    """
    credit = RedistributedReturns(episodes, codec, num_segments=num_segments)
    if config.warm_start is None:
        return [credit]
    # At a rollout boundary, where a search that resumes can stand.
    plan = plan_learning(config, num_segments=num_segments)
    steps = plan.total_steps // plan.num_rollouts
    after_steps = round(config.warm_start * plan.num_rollouts) * steps
    return [credit, Imitation(episodes, codec, num_segments=num_segments, after_steps=after_steps)]


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
        self, episodes: Sequence[Episode], codec: ActionCodec, *, num_segments: int
    ) -> None:
        super().__init__()
        self._episodes = episodes
        self._codec = codec
        self._model = EpisodesModel(episodes, codec.decisions(), num_segments=num_segments)
        self._index = {decision: number for number, decision in enumerate(codec.decisions())}
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
        if len(self._episodes) < FEWEST_EPISODES:
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
        codec: ActionCodec,
        *,
        num_segments: int,
        after_steps: int,
    ) -> None:
        super().__init__()
        self._episodes = episodes
        self._codec = codec
        self._num_segments = num_segments
        # Not a number of episodes: those from snapshots are shorter, so that no rollout may end
        # with exactly that number.
        self._after_steps = after_steps

    def _on_rollout_start(self) -> None:
        is_due = self.model.num_timesteps == self._after_steps
        if is_due and len(self._episodes) >= FEWEST_EPISODES:
            policy = self.model.policy
            assert isinstance(policy, ActorCriticPolicy)
            imitate(policy, *self._targets())

    def _targets(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return observations (N, F), actions (D, parts) and their probabilities (N, D)."""
        choices = self._codec.decisions()
        fit = fit_episodes(self._episodes, choices, num_segments=self._num_segments)
        states = np.array([row for episode in self._episodes for row in episode.observations])
        segments = np.concatenate([episode.observed_segments for episode in self._episodes])
        deviation = float(np.std([episode.potential for episode in self._episodes])) + 1e-12
        effects = torch.tensor(fit.effects_in(segments, states))
        return (
            torch.tensor(states, dtype=torch.float32),
            torch.tensor(np.array([self._codec.encode(choice) for choice in choices])),
            torch.softmax(effects / (_TEMPERATURE * deviation), dim=1).float(),
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
        distribution = policy.get_distribution(observations_NF)
        rows = [action.expand(len(observations_NF), -1) for action in actions_DP]
        log_probabilities_ND = torch.stack([distribution.log_prob(row) for row in rows], dim=1)
        loss = -(probabilities_ND * log_probabilities_ND).sum(dim=1).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
