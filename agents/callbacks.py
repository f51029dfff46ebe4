"""What happens during learning: episodes are recorded, checkpoints written, progress shown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger

from agents.ppo import AgentState, capture
from automix.schedule import Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One training of the search.

    Attributes:
        number: position in the order in which episodes ended, from 0.
        schedule: how its batches were mixed.
        total_reward: sum of its rewards: the gain of the whole run.
        potential: the potential at its end; comparable between episodes.
        training_seed: names its initialisation, order and draws.
        seconds: wall-clock time spent training.
        observations: what was observed before each decision, if it is known.
    """

    number: int
    schedule: Schedule
    total_reward: float
    potential: float
    training_seed: int
    seconds: float
    observations: tuple[tuple[float, ...], ...] = ()

    @property
    def observed_segments(self) -> range:
        """Return the segments whose decisions `observations` were made before.

        An episode may go on from a snapshot: what was seen before it is not known.
        """
        last = len(self.schedule.segments)
        return range(last - len(self.observations), last)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; `from_dict` is the inverse."""
        return {
            "number": self.number,
            "schedule": self.schedule.model_dump(mode="json"),
            "total_reward": self.total_reward,
            "potential": self.potential,
            "training_seed": self.training_seed,
            "seconds": self.seconds,
            "observations": [list(row) for row in self.observations],
        }

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
            schedule=info["schedule"],
            total_reward=total_reward,
            potential=info["potential"],
            training_seed=info["training_seed"],
            seconds=info["seconds"],
            observations=tuple(tuple(map(float, row)) for row in observations),
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Episode":
        """Return the episode whose `to_dict` is ``values``."""
        return cls(
            **values
            | {
                "schedule": Schedule.model_validate(values["schedule"]),
                "observations": tuple(tuple(row) for row in values["observations"]),
            }
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
        # What an episode saw in an earlier rollout is forgotten: a search that is continued here
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


class RolloutCheckpoint(BaseCallback):
    """Hands the state out at every rollout boundary: after the update, before the next episode."""

    def __init__(self, save: Callable[[AgentState], None]) -> None:
        super().__init__()
        self._save = save

    def _on_rollout_start(self) -> None:
        self._save(capture(self.model))  # type: ignore[arg-type]

    def _on_step(self) -> bool:
        return True


class ForwardLogs(BaseCallback):
    """Forwards the numbers that Stable-Baselines3 logs at each update."""

    def __init__(self, write: Callable[[dict[str, float], int], None]) -> None:
        super().__init__()
        self._write = write

    def _on_training_start(self) -> None:
        self.model.set_logger(Logger(folder=None, output_formats=[_Forward(self._write)]))

    def _on_rollout_start(self) -> None:
        self.model.logger.dump(self.num_timesteps)

    def _on_training_end(self) -> None:
        self.model.logger.dump(self.num_timesteps)

    def _on_step(self) -> bool:
        return True


class _Forward(KVWriter):
    """A Stable-Baselines3 log format that calls a function."""

    def __init__(self, write: Callable[[dict[str, float], int], None]) -> None:
        self._write = write

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        """Forward the numbers among ``key_values``."""
        del key_excluded
        numbers = {
            key: float(value)
            for key, value in key_values.items()
            if isinstance(value, int | float | np.number)
        }
        if numbers:
            self._write(numbers, step)

    def close(self) -> None:
        """Nothing is open."""
