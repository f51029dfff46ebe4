"""MixSchedule-v0: an episode is a training run, an action decides how its next segment is mixed."""

import copy
import math
from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from automix.configuration.task import TaskConfig
from automix.data.splits import SearchData
from automix.models.pretrained import images_of
from automix.operator_info import Operator
from automix.random_streams import Stream, derived_seed
from automix.schedule import Decision, Mixing, Mixture, Schedule, Segment
from automix.training.metrics import TrainMetrics
from automix.training.trainer import (
    ClassifierTrainer,
    TrainerState,
    build_trainer,
    load_search_data,
    segment_steps,
)
from envs.actions import Action, ActionCodec
from envs.config import EnvironmentConfig
from envs.measurement import Measurement, Reading
from envs.observations import Observation, ObservationBuilder, TaskFacts
from envs.resumable import ResumableEnv, with_gradients
from envs.rewards import Potential, check_rewards

Transition = tuple[Observation, float, bool, bool, dict[str, Any]]
SegmentOutcome = tuple[TrainMetrics, Reading]
"""Means over the steps of a segment, and what was measured after it."""


class RunState(TypedDict):
    """Snapshot of a training run between two segments, from which any episode can start.

    Before the first decision ``trainer`` is None: the seed of the run says all.
    """

    training_seed: int
    seconds: float
    readings: list[dict[str, Any]]
    trainer: TrainerState | None


class EnvState(RunState):
    """State that an environment resumes from bit for bit: tensors and plain values."""

    # The sequence of episodes, and the segment that this one started at.
    seed: int
    episode: int
    start_segment: int
    # Whether it belongs to the sequence, or was requested by the options of `reset`.
    explores: bool
    is_over: bool
    # Whether it is at its first decision, for the agent that resumes.
    is_start: bool
    # Snapshots that later episodes may start from.
    kept: list[RunState]


class MixingEnv(ResumableEnv[Observation, Action]):
    """Learn which images to mix, how strongly and when, over one training run of a classifier.

    ## Action Space
    `MultiDiscrete([operators, strengths, probabilities])`: the operator that mixes the batches of
    the next segment, its level (weak to strong), and the probability that a batch is mixed. With
    `actions: mixtures`, `MultiDiscrete([choices])`: one of these decisions, or two or three
    operators of which each batch draws one (`ActionCodec.choices`).

    ## Observation Space
    A float32 `Box` of named features that mean the same for any dataset, in groups that are
    switched by configuration: progress and learning rate; losses over log K and accuracies;
    generalization gap; slopes; the loss on a small batch mixed by each operator; the last
    decision. Names, bounds and meanings are in `observation_features`.

    ## Rewards
    The validation gain of the segment: the difference of a potential (by default the negative
    temperature-calibrated NLL of the averaged weights) on the reward split. Rewards sum to the
    gain of the whole run, so an agent should not discount (gamma 1).

    ## Starting State
    A freshly initialized classifier. `reset(seed=s)` starts a reproducible sequence of episodes;
    `reset(options={"training_seed": s})` sets the seed of this one training run;
    `reset(options={"snapshot": state})` resumes from a state that `get_state` returned between two
    segments. With `snapshot_fraction` above 0, that fraction of the sequence starts from snapshots
    that the environment kept of its own earlier episodes. `info["start_segment"]` says how many
    segments were over, and `info["gain_so_far"]` what the run had gained: its rewards and this sum
    to the gain of the whole run.

    ## Episode End
    Terminates after the last segment, because the training run is over. A run whose loss is not
    finite terminates at once; its potential is then that of a classifier at chance. Never
    truncates.

    ## Information
    After each step `info["decision"]`, `info["metrics"]` (reward-split metrics),
    `info["potential"]` and `info["diverged"]`; at the end also `info["schedule"]`, all decisions
    of the run as a `Schedule`, `info["training_seed"]` and `info["seconds"]` of training.

    ## Example
    Three segments on a few digits, each with Mixup at its lowest strength on every batch:

    ```pycon
    >>> import envs, gymnasium
    >>> env = gymnasium.make("AutoMix/MixSchedule-Smoke-v0")
    >>> observation, info = env.reset(seed=0)
    >>> terminated, gain = False, 0.0
    >>> while not terminated:
    ...     observation, reward, terminated, truncated, info = env.step([1, 0, 1])
    ...     gain += reward
    >>> [segment.decision.label() for segment in info["schedule"].segments]
    ['mixup 0.2', 'mixup 0.2', 'mixup 0.2']
    >>> gain > 0, info["diverged"]
    (True, False)

    ```

    ## Version History
    * v0: initial version
    """

    # False: a run that diverged continues, worth as much as chance, so that runs side by side end
    # together.
    _ends_at_divergence = True

    @with_gradients
    def __init__(
        self,
        task: TaskConfig | None = None,
        config: EnvironmentConfig | None = None,
        *,
        data: SearchData | None = None,
        seed: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        """Prepare the data and the classifier once; episodes re-initialize it in place.

        The default task is the digits; ``data`` are used instead of loading those of the task.

        Raises:
            AutoMixError: the data cannot be loaded, or a training run is too short for its
                segments.
        """
        self._check_render_mode(render_mode)
        self.task = task or TaskConfig()
        self.config = config or EnvironmentConfig()
        self.data = data or load_search_data(images_of(self.task))
        self.render_mode = render_mode
        self._total_steps = self.task.trainer.total_steps(len(self.data.train))
        self.config.check_length(self._total_steps)

        num_classes = self.data.num_alternatives
        check_rewards(self.config.reward_weights, has_label_rows=self.data.has_label_rows)
        self._actions = ActionCodec(self.config)
        self._observations = ObservationBuilder(self.config, TaskFacts.of(self.task, self.data))
        self.measurement = Measurement(self.task, self.config, self.data)
        self._potential = Potential(
            self.config.reward_weights,
            num_classes=num_classes,
            num_segments=self.config.num_segments,
        )
        self.action_space = self._actions.space
        self.observation_space = self._observations.space
        self.observation_features = self._observations.features

        # Everything drawn in the sequence of episodes is a function of these two numbers.
        self._seed = seed
        self._episode = -1
        self._snapshots = Snapshots(self.config)
        # The run in progress. One trainer serves all episodes: nothing is compiled again.
        self._trainer: ClassifierTrainer | None = None
        self._readings: list[Reading] = []
        self._seconds = 0.0
        self._start = 0
        self._explores = True
        self._is_over = False

    @with_gradients
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start a new training run, or resume from a snapshot; see the class docstring.

        Raises:
            ValueError: an option is unknown, two are present, or the snapshot does not fit.
        """
        super().reset(seed=seed)
        # Checked first: a reset that is refused leaves the episode in progress as it was.
        requested = _requested_run(options or {}, self.config, total_steps=self._total_steps)
        if seed is not None:
            self._seed, self._episode = seed, -1
            self._snapshots = Snapshots(self.config)
        elif self._seed is None:
            self._seed = int(self.np_random.integers(2**31))
        self._episode += 1

        # The options come first, then a snapshot by lot, then a fresh run.
        run = (
            requested
            or self._snapshots.draw(seed=self._seed, episode=self._episode)
            or fresh_run(derived_seed(self._seed, Stream.EPISODE, step=self._episode))
        )
        self._start_run(run)
        self._start, self._explores = len(self._decisions), requested is None
        first, last = (self._potential_of(self._readings[index]) for index in (0, -1))
        return self._observe(), {
            "training_seed": self.trainer.seed,
            "start_segment": self._start,
            "gain_so_far": last - first,
        }

    @with_gradients
    def step(self, action: Action, *, outcome: SegmentOutcome | None = None) -> Transition:
        """Train one segment as the action says, and measure it.

        Whoever trains several environments at once passes the ``outcome`` instead, of the segment
        that `plan_segment` says.

        Raises:
            RuntimeError: the episode is over.
            ValueError: the action is not within `action_space`.
        """
        decision, num_steps = self.plan_segment(action)
        before = self._potential_of(self._readings[-1])

        # Train and measure: evaluation passes, and the probe of what each operator would ask for
        # now. A `PopulationVecEnv` has done it for all environments at once.
        if outcome is None:
            trained = self.trainer.train(decision, num_steps=num_steps)
            self._measure(trained, decision)
        else:
            trained, reading = outcome
            self._readings.append(reading)
        self._seconds += trained.seconds

        # Reward: the gain of the potential. A loss that is not finite has ruined the weights.
        diverged = not math.isfinite(trained.loss)
        potential = self._potential_of(self._readings[-1])
        if diverged:
            potential = self._potential.at_chance
        reward = potential - before

        # End, or keep this boundary as a start for later episodes.
        is_last = len(self._decisions) == self.config.num_segments
        self._is_over = is_last or (diverged and self._ends_at_divergence)
        if not self._is_over:
            self._keep_if_due()
        info: dict[str, Any] = {
            "decision": decision,
            "metrics": self._readings[-1].reward,
            "potential": potential,
            "diverged": diverged,
        }
        if self._is_over:
            info |= {
                "schedule": self.schedule(),
                "training_seed": self.trainer.seed,
                "seconds": self._seconds,
            }
        return self._observe(), reward, self._is_over, False, info

    def plan_segment(self, action: Action) -> tuple[Mixing, int]:
        """Return the decision of an action, and the optimizer steps of the next segment."""
        if self._is_over:
            raise RuntimeError("expected reset() after the end of an episode, got step()")
        decision = self._actions.decode(action)
        # Segments of one run may differ by a step: the boundaries are rounded as in a replay.
        segment, starts = len(self._decisions), self.config.starts
        start, stop = segment_steps(self.trainer.total_steps, starts, segment)
        return decision, stop - start

    def get_state(self) -> EnvState:
        """Return a copy of the state of the episode in progress; as a snapshot, a start for any."""
        assert self._seed is not None, "reset() sets the seed"
        return EnvState(
            **self._run_state(),
            seed=self._seed,
            episode=self._episode,
            start_segment=self._start,
            explores=self._explores,
            is_over=self._is_over,
            is_start=len(self._decisions) == self._start,
            kept=list(self._snapshots.runs),
        )

    @with_gradients
    def set_state(self, state: EnvState) -> Observation:
        """Resume the episode that `get_state` captured; return its last observation."""
        self._seed, self._episode = state["seed"], state["episode"]
        self._start_run(state)
        self._start, self._explores = state["start_segment"], state["explores"]
        self._is_over = state["is_over"]
        self._snapshots.runs = list(state["kept"])
        return self._observe()

    def render(self) -> NDArray[np.uint8] | None:
        """Return the decisions so far as an (H, W, 3) picture, or None without a render mode."""
        if self.render_mode is None:
            return None
        # Imported here: Matplotlib takes as long to load as everything else together.
        from automix.reporting.canvas import rgb_array  # noqa: PLC0415
        from automix.reporting.figures import schedule as figures  # noqa: PLC0415

        panel = figures.SchedulePanel(
            title=f"training {self.trainer.seed}: {-self._potential_of(self._readings[-1]):.4f}",
            schedules=(self.schedule(),),
            until=self.trainer.progress,
        )
        return rgb_array(figures.schedule_figure([panel]))

    def schedule(self) -> Schedule:
        """Return the decisions of the run so far as a schedule.

        If it diverged, its last decision holds to the end; before the first decision nothing is
        mixed.
        """
        decisions = self._decisions or [Decision(operator=Operator.NONE)]
        return Schedule(
            segments=tuple(
                Segment(start=start, mixture=Mixture.of(decision))
                # A run in progress has begun only some of its segments.
                for start, decision in zip(self.config.starts, decisions, strict=False)
            )
        )

    @property
    def trainer(self) -> ClassifierTrainer:
        """Trainer of the run in progress; it exists from the first `reset` on."""
        if self._trainer is None:
            raise RuntimeError("expected reset() before anything else, got none yet")
        return self._trainer

    @property
    def last_reading(self) -> Reading:
        """The newest measurement of the run in progress."""
        return self._readings[-1]

    @property
    def _decisions(self) -> list[Mixing]:
        return [reading.decision for reading in self._readings if reading.decision]

    def _start_run(self, run: RunState) -> None:
        self._restart_training(run["training_seed"])
        self._seconds, self._is_over = run["seconds"], False
        if run["trainer"] is None:
            self._readings = []
            self._measure(None, None)
        else:
            self._readings = [Reading.from_plain(values) for values in run["readings"]]
            self.trainer.load_state_dict(run["trainer"])

    def _restart_training(self, training_seed: int) -> None:
        if self._trainer is None:
            self._trainer = build_trainer(self.task, self.data, seed=training_seed)
        else:
            self._trainer.reset(training_seed)

    def _run_state(self) -> RunState:
        return RunState(
            training_seed=self.trainer.seed,
            seconds=self._seconds,
            readings=[reading.to_plain() for reading in self._readings],
            # A copy, because training continues in place; none before the first step, when the seed
            # says all and a snapshot would hold a whole network for nothing.
            trainer=copy.deepcopy(self.trainer.state_dict()) if self._decisions else None,
        )

    def _keep_if_due(self) -> None:
        assert self._seed is not None
        # Requested episodes are not kept: evaluations must not change what is learned from.
        if self._explores and self._snapshots.is_due(
            len(self._decisions), start=self._start, seed=self._seed, episode=self._episode
        ):
            self._snapshots.add(self._run_state())

    def _measure(self, train: TrainMetrics | None, decision: Mixing | None) -> None:
        before = self._readings[-1] if self._readings else None
        self._readings.append(
            self.measurement.reading(self.trainer, train=train, decision=decision, before=before)
        )

    def _potential_of(self, reading: Reading) -> float:
        return self._potential.of(reading.reward, segment_sum=reading.segment_sum)

    def _observe(self) -> Observation:
        before = self._readings[-2] if len(self._readings) > 1 else None
        return self._observations.build(self._readings[-1], before)


class Snapshots:
    """A bounded buffer of snapshots: one of each episode, the oldest leave first.

    All draws are functions of (seed, episode), so that the buffer is part of the state and nothing
    else is.
    """

    def __init__(self, config: EnvironmentConfig) -> None:
        self._fraction = config.snapshot_fraction
        self._capacity = config.snapshot_capacity
        self._num_segments = config.num_segments
        self.runs: list[RunState] = []

    def draw(self, *, seed: int, episode: int) -> RunState | None:
        """Return the snapshot that an episode starts from; None: it starts a new run."""
        # A seed has 63 bits: divided by 2**63, it is uniform in [0, 1).
        uniform = derived_seed(seed, Stream.SNAPSHOT, step=episode) / 2.0**63
        if not self.runs or uniform >= self._fraction:
            return None
        return self.runs[derived_seed(seed, Stream.SNAPSHOT, rank=1, step=episode) % len(self.runs)]

    def is_due(self, segment: int, *, start: int, seed: int, episode: int) -> bool:
        """Return whether to keep an episode that began at ``start`` after ``segment`` segments."""
        # Every inner boundary of the episode is as probable as any other.
        num_boundaries = self._num_segments - 1 - start
        if not self._fraction or num_boundaries < 1:
            return False
        number = derived_seed(seed, Stream.SNAPSHOT, rank=2, step=episode)
        return segment == start + 1 + number % num_boundaries

    def add(self, run: RunState) -> None:
        """Keep ``run``, which nobody may change."""
        self.runs = [*self.runs, run][-self._capacity :]


def fresh_run(training_seed: int) -> RunState:
    """Return the state of a training run before its first step."""
    return RunState(training_seed=training_seed, seconds=0.0, readings=[], trainer=None)


def _requested_run(
    options: Mapping[str, Any], config: EnvironmentConfig, *, total_steps: int
) -> RunState | None:
    """Return the run that the options of a reset name; None if there are no options."""
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
    num_decisions = sum(values["decision"] is not None for values in run["readings"])
    if num_decisions >= config.num_segments:
        raise ValueError("expected a snapshot between two segments, got a finished run")
    last = run["readings"][-1]["train"]
    if last is not None and not math.isfinite(last["loss"]):
        raise ValueError("expected a snapshot with a finite loss, got one that diverged")
    first_step, _ = segment_steps(total_steps, config.starts, num_decisions)
    if run["trainer"]["step"] != first_step:
        raise ValueError(
            f"expected a snapshot at step {first_step} after {num_decisions} segments, "
            f"got one at step {run['trainer']['step']}"
        )
