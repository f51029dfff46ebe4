"""A trainer whose best schedule is known in closed form, inside the real environment.

A training is worth the mean over its segments of what each decision is worth there; the loss falls
from 1 to 1 - worth, plus noise. Three tasks:

* `STATIONARY`: one decision is the best throughout.
* `SWITCH`: strong Mixup is the best in the first half, no mixing in the second. Mixing also raises
  the loss right after the segment, so that who looks one segment ahead never mixes.
* `STATE`: Mixup is the best in one half of the training runs, CutMix in the other, and the loss
  shows from the start which half it is. No schedule is good in both.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from agents.config import AgentConfig
from agents.credit import teachers
from agents.ppo import Episode, EpisodeRecorder
from automix.configuration.task import TaskConfig
from automix.configuration.trainer import TrainerConfig
from automix.data.splits import ChannelStatistics, SearchData, Split
from automix.operator_info import OPERATOR_FACTS, Operator
from automix.random_streams import Stream, derived_seed
from automix.schedule import Decision, constant_decisions, constant_schedule
from automix.training.metrics import CleanMetrics, EvalMetrics, TrainMetrics
from automix.training.trainer import ClassifierTrainer
from envs.actions import Action, ActionCodec
from envs.config import EnvironmentConfig, ObservationGroup
from envs.mixing_env import MixingEnv
from envs.observations import Observation

NUM_SEGMENTS = 8
# Written out: what was measured on the toys is of these.
OPERATORS = (
    Operator.NONE,
    Operator.MIXUP,
    Operator.CUTMIX,
    Operator.SALIENCYMIX,
    Operator.SALIENCY_GRAFTING,
)
# There is no network to probe.
ENVIRONMENT = EnvironmentConfig(
    num_segments=NUM_SEGMENTS,
    operators=OPERATORS,
    observation=tuple(group for group in ObservationGroup if group is not ObservationGroup.PROBE),
)
TASK = TaskConfig(trainer=TrainerConfig(epochs=NUM_SEGMENTS, batch_size=10))


class BlindPolicy:
    """A policy that acts without looking at the observation."""

    def __init__(self, next_action: Callable[[], Action]) -> None:
        self._next_action = next_action

    def act(self, observation: Observation) -> Action:
        del observation
        return self._next_action()


@dataclass(frozen=True, slots=True, kw_only=True)
class Toy:
    """Worth of decisions.

    Attributes:
        worth: of a decision in the segment that begins at a progress; at most 1.
        harm: what a decision adds to the loss until the next segment is over.
        diverges: whether the loss is not finite after a decision.
        odd_worth: what decisions are worth in training runs of odd seeds, if not the same; their
            loss is higher by 0.5 throughout.
    """

    worth: Callable[[Decision, float], float]
    harm: Callable[[Decision], float]
    diverges: Callable[[Decision], bool] = lambda decision: False
    odd_worth: Callable[[Decision, float], float] | None = None


_QUALITY = {
    Operator.NONE: 0.2,
    Operator.MIXUP: 0.4,
    Operator.CUTMIX: 0.7,
    Operator.SALIENCYMIX: 0.5,
    Operator.SALIENCY_GRAFTING: 1.0,
}
_AMOUNT = {
    Operator.NONE: 0.0,
    Operator.MIXUP: 1.0,
    Operator.CUTMIX: 0.6,
    Operator.SALIENCYMIX: 0.6,
    Operator.SALIENCY_GRAFTING: 0.4,
}


def _level(decision: Decision) -> float:
    levels = OPERATOR_FACTS[decision.operator].strength.levels
    return levels.index(decision.strength) / max(1, len(levels) - 1)


def _stationary_worth(decision: Decision, progress: float) -> float:
    del progress
    return (
        _QUALITY[decision.operator]
        * (1 - 0.2 * _level(decision))
        * math.pow(decision.probability, 0.2)
    )


def amount(decision: Decision) -> float:
    """Return how much a decision mixes, in [0, 1]."""
    return _AMOUNT[decision.operator] * (1 + _level(decision)) / 2 * decision.probability


def _switching_worth(decision: Decision, progress: float) -> float:
    mixed = amount(decision)
    return 0.3 + 0.7 * mixed if progress < 0.5 else 1 - mixed


STATIONARY = Toy(worth=_stationary_worth, harm=lambda decision: 0.0)
SWITCH = Toy(worth=_switching_worth, harm=lambda decision: 1.5 * amount(decision) / NUM_SEGMENTS)


def _state_worth(best: Operator, other: Operator) -> Callable[[Decision, float], float]:
    quality = dict.fromkeys(Operator, 0.3) | {best: 1.0, other: 0.2}

    def worth(decision: Decision, progress: float) -> float:
        del progress
        return quality[decision.operator] * (1 - 0.2 * _level(decision)) * decision.probability

    return worth


STATE = Toy(
    worth=_state_worth(Operator.MIXUP, Operator.CUTMIX),
    odd_worth=_state_worth(Operator.CUTMIX, Operator.MIXUP),
    harm=lambda decision: 0.0,
)


class ToyTrainer:
    """Stands in for a `ClassifierTrainer` in the environment."""

    def __init__(self, toy: Toy, *, seed: int, noise: float) -> None:
        self.config, self.seed, self.step = TASK.trainer, seed, 0
        self.total_steps = NUM_SEGMENTS
        self._toy, self._noise = toy, noise
        self._worth = self._harm = 0.0
        odd = toy.odd_worth if seed % 2 else None
        self._worth_of, self._level = (odd, 0.5) if odd else (toy.worth, 0.0)

    @property
    def progress(self) -> float:
        return self.step / self.total_steps

    def train(self, decision: Decision, *, num_steps: int) -> TrainMetrics:
        assert num_steps == 1
        self._worth += self._worth_of(decision, self.progress) / NUM_SEGMENTS
        self._harm = self._toy.harm(decision)
        self.step += 1
        loss = math.nan if self._toy.diverges(decision) else self._loss
        return TrainMetrics(
            loss=loss,
            clean_accuracy=None,
            mixed_accuracy=0.5,
            mixed_fraction=1.0,
            num_images=1,
            seconds=0.0,
        )

    def evaluate(self, split: Split) -> EvalMetrics:
        del split
        loss = self._loss
        return EvalMetrics(
            nll=loss, calibrated_nll=loss, accuracy=0.5, temperature=1.0, num_images=1
        )

    def evaluate_both(
        self, split: Split, training: Split | None
    ) -> tuple[EvalMetrics, CleanMetrics | None]:
        metrics = self.evaluate(split)
        return metrics, None if training is None else CleanMetrics(nll=metrics.nll, accuracy=0.5)

    def state_dict(self) -> dict[str, float]:
        return {"step": self.step, "worth": self._worth, "harm": self._harm}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.step = int(state["step"])
        self._worth, self._harm = state["worth"], state["harm"]

    @property
    def _loss(self) -> float:
        seed = derived_seed(self.seed, Stream.PROBE, step=self.step)
        noise = self._noise * np.random.default_rng(seed).standard_normal() if self.step else 0.0
        return 1 + self._level - self._worth + self._harm + float(noise)


class ToyEnv(MixingEnv):
    """The real environment around a toy trainer."""

    def __init__(self, toy: Toy, *, noise: float, seed: int = 0) -> None:
        super().__init__(TASK, ENVIRONMENT, data=toy_data(), seed=seed)
        self._toy, self._noise = toy, noise

    def _restart_training(self, training_seed: int) -> None:
        trainer = ToyTrainer(self._toy, seed=training_seed, noise=self._noise)
        self._trainer = cast("ClassifierTrainer", trainer)


def toy_vec_env(toy: Toy, *, noise: float, num_envs: int, seed: int = 0) -> VecEnv:
    """Return toy environments in this process, with seeds of their own."""

    def maker(index: int) -> Callable[[], ToyEnv]:
        env_seed = derived_seed(seed, Stream.EPISODE, rank=index)
        return lambda: ToyEnv(toy, noise=noise, seed=env_seed)

    return DummyVecEnv([maker(index) for index in range(num_envs)])


def race_of_constants(toy: Toy, *, noise: float, seed: int, num_seeds: int = 2) -> list[Episode]:
    """Return training runs of every constant decision, with paired seeds, as a race leaves them."""
    episodes: list[Episode] = []
    for decision in constant_decisions(ENVIRONMENT.operators):
        for index in range(num_seeds):
            training_seed = derived_seed(seed, Stream.RACE, step=index)
            trainer = ToyTrainer(toy, seed=training_seed, noise=noise)
            for _ in range(NUM_SEGMENTS):
                trainer.train(decision, num_steps=1)
            episodes.append(
                Episode(
                    number=len(episodes),
                    schedule=constant_schedule(decision),
                    total_reward=0.0,
                    potential=-trainer.evaluate(toy_data().reward).calibrated_nll,
                    training_seed=training_seed,
                    seconds=0.0,
                )
            )
    return episodes


def best_return(toy: Toy) -> float:
    """Return the largest possible gain of a training run without noise.

    Segments add up, except for the harm of the last one.
    """
    choices = ActionCodec(ENVIRONMENT).decisions()
    total = 0.0
    for index in range(NUM_SEGMENTS):
        is_last = index == NUM_SEGMENTS - 1
        total += max(
            toy.worth(choice, index / NUM_SEGMENTS) / NUM_SEGMENTS
            - (toy.harm(choice) if is_last else 0.0)
            for choice in choices
        )
    return total


def toy_data() -> SearchData:
    split = Split(
        images=torch.zeros(10, 1, 1, 1, dtype=torch.uint8),
        labels=torch.arange(10),
        num_classes=10,
    )
    return SearchData(
        train=split,
        reward=split,
        selection=split,
        class_names=tuple("0123456789"),
        statistics=ChannelStatistics(mean=(0.0,), std=(1.0,)),
        fingerprint="toy",
    )


def whole_agent(
    config: AgentConfig, episodes: list[Episode], *, race: Sequence[Episode] = ()
) -> list[BaseCallback]:
    """Return what a search gives PPO: records of its ``episodes``, credit and imitation."""
    recorder = EpisodeRecorder(
        episodes,
        on_episode=lambda _: None,
        episodes_per_rollout=config.episodes_per_rollout,
        patience=None,
    )
    return [recorder, *teachers(config, episodes, ENVIRONMENT, race=race)]
