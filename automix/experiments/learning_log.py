"""What the learning stage of a search has so far: recorded, logged, saved, continued."""

import time
from pathlib import Path

import numpy as np

from agents.callbacks import Episode
from agents.ppo import AgentState
from automix.checkpoints import load_checkpoint, save_checkpoint
from automix.experiments.progress import ProgressBar
from automix.experiments.runs import RunFolder

_CHECKPOINT_NAME = "checkpoint.bin"
_NUM_RECENT = 32


class LearningLog:
    """Finished episodes of a search in a run folder; an interrupted one goes on from here.

    Attributes:
        episodes: finished trainings in the order in which they ended.
        agent: the state of the agent at the last rollout boundary, if it has one.
        is_learned: whether learning is over.
    """

    def __init__(self, run: RunFolder) -> None:
        """Read what is there, and drop what was logged after it."""
        self._run = run
        self._bar: ProgressBar | None = None
        self._path: Path = run.path / _CHECKPOINT_NAME
        state = load_checkpoint(self._path)
        run.cut_metrics(state["metrics_size"] if state else 0)
        self.episodes: list[Episode] = [
            Episode.from_dict(values) for values in (state["episodes"] if state else ())
        ]
        self.agent: AgentState | None = state["agent"] if state else None
        self.is_learned: bool = state["is_learned"] if state else False
        self._seconds_before: float = state["seconds"] if state else 0.0
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of learning, over all attempts up to the last save and this one."""
        if self.is_learned:
            return self._seconds_before
        return self._seconds_before + time.perf_counter() - self._started

    def show_on(self, bar: ProgressBar) -> None:
        """Advance ``bar`` with every episode from now on."""
        self._bar = bar

    def add(self, episode: Episode) -> None:
        """Take in an episode."""
        self.episodes.append(episode)
        self.on_episode(episode)

    def on_episode(self, episode: Episode) -> None:
        """Log an episode that has been taken in."""
        self._run.log(
            episode.number,
            {
                "episode/total_reward": episode.total_reward,
                "episode/potential": episode.potential,
                "episode/seconds": episode.seconds,
                "episode/schedule": " | ".join(
                    segment.decision.label() for segment in episode.schedule.segments
                ),
            },
        )
        recent = [other.potential for other in self.episodes[-_NUM_RECENT:]]
        if self._bar is not None:
            note = f"mean potential of the last {len(recent)}: {np.mean(recent):.4f}"
            self._bar.advance(note=note)

    def save(self, agent: AgentState | None = None) -> None:
        """Save everything: between two rollouts, or batches of trainings."""
        self.agent = agent
        save_checkpoint(
            self._path,
            {
                "episodes": [episode.to_dict() for episode in self.episodes],
                "seconds": self.seconds,
                "agent": agent,
                "is_learned": self.is_learned,
                "metrics_size": self._run.metrics_size,
            },
        )

    def finish(self) -> None:
        """Save that learning is over."""
        self._seconds_before = self.seconds
        self.is_learned = True
        self.save()
