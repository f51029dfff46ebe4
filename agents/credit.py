"""Credit for each decision: what all episodes together say it contributed to its return.

The return of an episode comes at its end, with the noise of a whole training, and says nothing
about which of its decisions earned it. An additive model of all episodes so far does, given the
state in which each was taken. Before each update, every decision is paid its estimated
contribution, and the last one what the model leaves unexplained: the sum is the return, so the best
policy stays the same (return decomposition, https://arxiv.org/abs/1806.07857). How far the
unexplained part reaches back is the trace decay of the advantage (`AgentConfig.gae_lambda`).
"""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback

from agents.additive import FEWEST_EPISODES, AdditiveFit, fit_additive
from agents.callbacks import Episode
from agents.returns import FinalReturn
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
    width = max(len(row) for episode in episodes for row in episode.observations or ((),))
    states = np.full((len(episodes), num_segments, width), np.nan)
    for number, episode in enumerate(episodes):
        if episode.observations:
            states[number, episode.observed_segments] = episode.observations
    return fit_additive(
        [episode.schedule for episode in episodes],
        [episode.potential for episode in episodes],
        choices,
        num_segments=num_segments,
        states=None if np.isnan(states).all() else states,
    )


class RedistributedReturns(BaseCallback):
    """Redistributes the returns of a rollout before the policy is updated with it."""

    def __init__(
        self, episodes: Sequence[Episode], codec: ActionCodec, *, num_segments: int
    ) -> None:
        """Learn contributions from ``episodes``, which others append to."""
        super().__init__()
        self._episodes = episodes
        self._codec = codec
        self._num_segments = num_segments
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
        env = self.training_env
        assert isinstance(buffer, RolloutBuffer)
        assert isinstance(env, FinalReturn)
        fit = fit_episodes(self._episodes, self._codec.decisions(), num_segments=self._num_segments)
        buffer.rewards += self._shift(fit, buffer) / env.deviation
        # Both are what the algorithm has just computed the advantages of the buffer with.
        buffer.compute_returns_and_advantage(self.locals["values"], self.locals["dones"])

    def _shift(self, fit: AdditiveFit, buffer: RolloutBuffer) -> Floats:
        """Return (steps, environments) amounts that move credit and sum to 0 over an episode.

        An episode that is not whole within the rollout is left as it is.
        """
        num_steps, num_envs = buffer.rewards.shape
        shift = np.zeros((num_steps, num_envs))
        for env in range(num_envs):
            starts = [*np.flatnonzero(buffer.episode_starts[:, env]), num_steps]
            for start, stop in itertools.pairwise(starts):
                if (end := self._ends.get((stop - 1, env))) is None:
                    continue
                actions = buffer.actions[start:stop, env].astype(np.int64)
                chosen = [self._index[self._codec.decode(action)] for action in actions]
                segments = np.arange(end - len(chosen), end)
                states = buffer.observations[start:stop, env].astype(np.float64)
                effects = fit.effects_in(segments, states)
                contributions = effects[np.arange(len(chosen)), chosen]
                shift[start:stop, env] += contributions
                shift[stop - 1, env] -= contributions.sum()
        return shift
