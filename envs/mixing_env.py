"""One episode is one training of a classifier; an action decides how its next segment is mixed."""

import copy
from typing import Any, TypedDict

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from automix.data.splits import SearchData
from automix.random_streams import Stream, derived_seed
from automix.reporting.canvas import rgb_array
from automix.reporting.figures.schedule import SchedulePanel, schedule_figure
from automix.schedule import Decision, Schedule, Segment
from automix.training.build import build_trainer, load_search_data
from automix.training.metrics import TrainMetrics
from automix.training.task import TaskConfig
from automix.training.trainer import ClassifierTrainer, TrainerState, segment_steps
from automix.vocabulary import Operator
from envs.actions import Action, ActionCodec
from envs.config import EnvironmentConfig
from envs.measurement import Measurement
from envs.observations import Observation, ObservationBuilder
from envs.rewards import diverged_potential, potential_of
from envs.snapshots import Snapshot

RESET_OPTIONS = ("training_seed",)


class EnvState(TypedDict):
    """What an episode continues from bit for bit: tensors and plain values.

    Before the first decision of an episode ``trainer`` is None: the training's seed says all.
    """

    seed: int
    episode: int
    training_seed: int
    seconds: float
    snapshots: list[dict[str, Any]]
    trainer: TrainerState | None


class MixingEnv(gym.Env[Observation, Action]):
    """Learn which images to mix, how strongly and when, over one training of a classifier.

    ## Action Space
    `MultiDiscrete([operators, strengths, probabilities])`: which operator mixes the batches of
    the next segment, at which of its levels (weak to strong), and which share of the batches.

    ## Observation Space
    A float32 `Box` of named features that mean the same for any data set, in groups that are
    switched by configuration: progress and learning rate; losses over log K and accuracies;
    generalisation gap; slopes; the loss on a small batch mixed by each operator; the last
    decision. Names, bounds and meanings are in `observation_features`.

    ## Rewards
    The validation gain of the segment: the difference of a potential (by default the negative
    temperature-calibrated NLL of the averaged weights) on the reward split. Rewards sum to the
    gain of the whole run, so an agent should not discount (gamma 1).

    ## Starting State
    A freshly initialised classifier. `reset(seed=s)` starts a reproducible sequence of episodes;
    `reset(options={"training_seed": s})` sets the seed of this one training.

    ## Episode End
    Terminates after the last segment, because the training is over. A run whose loss is not
    finite terminates at once; its potential is then that of a classifier at chance. Never
    truncates.

    ## Information
    `info["decision"]` after each step, `info["metrics"]` (reward-split metrics), and at the end
    `info["schedule"]`, the whole episode as a `Schedule`, `info["potential"]`,
    `info["training_seed"]` and `info["seconds"]`.

    ## Version History
    * v0: initial version
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 - declared so by Gymnasium
        "render_modes": ["rgb_array"],
        "render_fps": 1,
    }

    def __init__(
        self,
        task: TaskConfig | None = None,
        config: EnvironmentConfig | None = None,
        *,
        data: SearchData | None = None,
        seed: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        """Prepare the data and the classifier once; episodes re-initialise it in place.

        Args:
            task: data, model and training; the digits by default.
            config: segments, choices and reward.
            data: splits to use instead of loading those of ``task``.
            seed: seed of the sequence of episodes, until `reset` is given another.
            render_mode: None or "rgb_array".

        Raises:
            AutoMixError: the data cannot be loaded, or a training is too short for its segments.
        """
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"expected render_mode None or 'rgb_array', got {render_mode!r}")
        self.task = task or TaskConfig()
        self.config = config or EnvironmentConfig()
        self.data = data or load_search_data(self.task.data)
        self.config.check_length(self.task.trainer.total_steps(len(self.data.train)))
        self.render_mode = render_mode
        self._actions = ActionCodec(self.config)
        self._observations = ObservationBuilder(self.config, num_classes=self.data.num_classes)
        self.observation_features = self._observations.features
        self.action_space = self._actions.space
        self.observation_space = self._observations.space
        self._seed = seed
        self._episode = -1
        self._trainer: ClassifierTrainer | None = None
        self._measurement = Measurement(self.task, self.config, self.data)
        self._snapshots: list[Snapshot] = []
        self._seconds = 0.0

    @property
    def trainer(self) -> ClassifierTrainer:
        """The training in progress; it exists from the first `reset` on."""
        if self._trainer is None:
            raise RuntimeError("expected reset() before anything else, got none yet")
        return self._trainer

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start a new training; see the class docstring for seeds and options."""
        super().reset(seed=seed)
        unknown = set(options or ()) - set(RESET_OPTIONS)
        if unknown:
            raise ValueError(f"expected options among {RESET_OPTIONS}, got {sorted(unknown)}")
        self._advance_episode(seed)
        training_seed = (options or {}).get("training_seed")
        if training_seed is None:
            assert self._seed is not None
            training_seed = derived_seed(self._seed, Stream.EPISODE, step=self._episode)
        self._restart_training(int(training_seed))
        self._seconds = 0.0
        self._snapshots = []
        self._measure(None, None)
        return self._observe(), {"training_seed": self.trainer.seed}

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Train one segment as the action says."""
        if len(self._decisions) >= self.config.num_segments:
            raise RuntimeError("expected reset() after the end of an episode, got step()")
        decision = self._actions.decode(action)
        start, stop = self._segment_steps(len(self._decisions))
        train = self.trainer.train(decision, num_steps=stop - start)
        before = self._potential()
        self._seconds += train.seconds
        self._measure(train, decision)
        diverged = not np.isfinite(train.loss)
        reward = (self._diverged_potential() if diverged else self._potential()) - before
        terminated = diverged or len(self._decisions) == self.config.num_segments
        info = {"decision": decision, "metrics": self._snapshots[-1].reward, "diverged": diverged}
        if terminated:
            info |= self._summary(diverged=diverged)
        return self._observe(), float(reward), terminated, False, info

    def get_state(self) -> EnvState:
        """Return a copy of the state of the episode in progress."""
        assert self._seed is not None, "reset() sets the seed"
        return EnvState(
            seed=self._seed,
            episode=self._episode,
            training_seed=self.trainer.seed,
            seconds=self._seconds,
            snapshots=[snapshot.to_plain() for snapshot in self._snapshots],
            trainer=copy.deepcopy(self.trainer.state_dict()) if self._decisions else None,
        )

    def set_state(self, state: EnvState) -> Observation:
        """Continue the episode that `get_state` captured; return its last observation."""
        self._seed = state["seed"]
        self.skip_to_episode(state["episode"])
        observation, _ = self.reset(options={"training_seed": state["training_seed"]})
        if state["trainer"] is not None:
            self.trainer.load_state_dict(state["trainer"])
            self._seconds = state["seconds"]
            self._snapshots = [Snapshot.from_plain(values) for values in state["snapshots"]]
            observation = self._observe()
        return observation

    def render(self) -> NDArray[np.uint8] | None:
        """Return the decisions so far as an (H, W, 3) picture, or None without a render mode."""
        if self.render_mode is None:
            return None
        panel = SchedulePanel(
            title=f"training {self.trainer.seed}: {-self._potential():.4f}",
            schedules=(self.schedule(),),
            until=self.trainer.progress,
        )
        return rgb_array(schedule_figure([panel]))

    def schedule(self) -> Schedule:
        """Return the decisions of the episode so far as a schedule.

        If the run diverged, its last decision holds to the end; before the first decision nothing
        is mixed.
        """
        count = self.config.num_segments
        decisions = self._decisions or [Decision(operator=Operator.NONE)]
        return Schedule(
            segments=tuple(
                Segment(start=index / count, decision=decision)
                for index, decision in enumerate(decisions)
            )
        )

    @property
    def episode(self) -> int:
        """How many episodes came before this one since the seed was set."""
        return self._episode

    def skip_to_episode(self, episode: int) -> None:
        """Make the next `reset` start the episode of that number, as if the others had been run."""
        self._episode = episode - 1

    @property
    def _decisions(self) -> list[Decision]:
        return [snapshot.decision for snapshot in self._snapshots if snapshot.decision]

    def _advance_episode(self, seed: int | None) -> None:
        if seed is not None:
            self._seed, self._episode = seed, -1
        elif self._seed is None:
            self._seed = int(self.np_random.integers(2**31))
        self._episode += 1

    def _restart_training(self, training_seed: int) -> None:
        if self._trainer is None:
            self._trainer = build_trainer(self.task, self.data, seed=training_seed)
        else:
            self._trainer.reset(training_seed)

    def _segment_steps(self, index: int) -> tuple[int, int]:
        return segment_steps(self.trainer.total_steps, self.config.num_segments, index)

    def _measure(self, train: TrainMetrics | None, decision: Decision | None) -> None:
        before = self._snapshots[-1] if self._snapshots else None
        self._snapshots.append(
            self._measurement.snapshot(self.trainer, train=train, decision=decision, before=before)
        )

    def _observe(self) -> Observation:
        before = self._snapshots[-2] if len(self._snapshots) > 1 else None
        return self._observations.build(self._snapshots[-1], before)

    def _potential(self) -> float:
        return potential_of(self._snapshots[-1], self.config, num_classes=self.data.num_classes)

    def _diverged_potential(self) -> float:
        return diverged_potential(self.config, num_classes=self.data.num_classes)

    def _summary(self, *, diverged: bool) -> dict[str, Any]:
        return {
            "schedule": self.schedule(),
            "potential": self._diverged_potential() if diverged else self._potential(),
            "training_seed": self.trainer.seed,
            "seconds": self._seconds,
        }
