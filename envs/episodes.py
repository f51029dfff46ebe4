"""Where episodes start: the states of runs, and those that are kept as snapshots."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from automix.random_streams import Stream, derived_seed
from automix.schedule import Decision, Schedule, Segment
from automix.training.trainer import TrainerState, segment_steps
from automix.vocabulary import Operator
from envs.config import EnvironmentConfig

_SEED_RANGE = 2.0**63


class RunState(TypedDict):
    """A training between two segments, from which any episode can start: the snapshot.

    Before the first decision ``trainer`` is None: the training's seed says all.
    """

    training_seed: int
    seconds: float
    readings: list[dict[str, Any]]
    trainer: TrainerState | None


class EnvState(RunState):
    """What an environment continues from bit for bit: tensors and plain values.

    Beyond the run in progress: the sequence of episodes (``seed``, ``episode``), the segment the
    episode started at, whether it belongs to the sequence (``explores``) or was asked for, whether
    it is over, and the snapshots that later episodes may start from. ``is_start`` is for whoever
    resumes: no decision was taken yet.
    """

    seed: int
    episode: int
    start_segment: int
    explores: bool
    is_over: bool
    is_start: bool
    kept: list[RunState]


def fresh_run(training_seed: int) -> RunState:
    """Return the state of a training before its first step."""
    return RunState(training_seed=training_seed, seconds=0.0, readings=[], trainer=None)


class KeptRuns:
    """A bounded buffer of snapshots: one of each episode, the oldest leave first.

    All draws are functions of (seed, episode), so that the buffer is part of the state and nothing
    else is.
    """

    def __init__(self, config: EnvironmentConfig) -> None:
        self._share = config.snapshot_share
        self._capacity = config.snapshot_capacity
        self._num_segments = config.num_segments
        self.runs: list[RunState] = []

    def choose(self, *, seed: int, episode: int) -> RunState | None:
        """Return the snapshot that an episode starts from; None: it starts a new training."""
        draw = derived_seed(seed, Stream.SNAPSHOT, step=episode) / _SEED_RANGE
        if not self.runs or draw >= self._share:
            return None
        return self.runs[derived_seed(seed, Stream.SNAPSHOT, rank=1, step=episode) % len(self.runs)]

    def is_due(self, segment: int, *, start: int, seed: int, episode: int) -> bool:
        """Return whether to keep an episode that began at ``start`` after ``segment`` segments.

        Every inner boundary of the episode is as probable as any other.
        """
        choices = self._num_segments - 1 - start
        if not self._share or choices < 1:
            return False
        draw = derived_seed(seed, Stream.SNAPSHOT, rank=2, step=episode)
        return segment == start + 1 + draw % choices

    def add(self, run: RunState) -> None:
        """Keep ``run``, which nobody may change."""
        self.runs = [*self.runs, run][-self._capacity :]


def asked_for(
    options: Mapping[str, Any], config: EnvironmentConfig, *, total_steps: int
) -> RunState | None:
    """Return the run that the options of a reset name; None if there are no options.

    Args:
        options: ``training_seed`` or ``snapshot``.
        config: of the environment.
        total_steps: optimiser steps of a training.

    Raises:
        ValueError: an option is unknown, both are given, or the snapshot is finished, has diverged,
            or has other segments.
    """
    if set(options) not in (set(), {"training_seed"}, {"snapshot"}):
        raise ValueError(
            f"expected options among one of 'training_seed' and 'snapshot', got {sorted(options)}"
        )
    if "snapshot" in options:
        run: RunState = options["snapshot"]
        _check_snapshot(run, config, total_steps=total_steps)
        return run
    seed = options.get("training_seed")
    return None if seed is None else fresh_run(int(seed))


def _check_snapshot(run: RunState, config: EnvironmentConfig, *, total_steps: int) -> None:
    if run["trainer"] is None:
        return
    taken = sum(values["decision"] is not None for values in run["readings"])
    if taken >= config.num_segments:
        raise ValueError("expected a snapshot between two segments, got a finished run")
    last = run["readings"][-1]["train"]
    if last is not None and not math.isfinite(last["loss"]):
        raise ValueError("expected a snapshot with a finite loss, got one that diverged")
    first_step, _ = segment_steps(total_steps, config.num_segments, taken)
    if run["trainer"]["step"] != first_step:
        raise ValueError(
            f"expected a snapshot at step {first_step} after {taken} segments, "
            f"got one at step {run['trainer']['step']}"
        )


def schedule_of(decisions: Sequence[Decision], *, num_segments: int) -> Schedule:
    """Return the schedule of the first decisions of a run; the last holds to the end."""
    return Schedule(
        segments=tuple(
            Segment(start=index / num_segments, decision=decision)
            for index, decision in enumerate(decisions or [Decision(operator=Operator.NONE)])
        )
    )
