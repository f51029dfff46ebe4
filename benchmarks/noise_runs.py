"""The training runs behind `benchmarks.noise`: random schedules with the same seeds each."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agents.learned import roll_out
from automix.configuration.task import TaskConfig
from automix.data.splits import SearchData, Split
from automix.experiments.common.run_folder import ProgressBar
from automix.experiments.config import SearchConfig
from automix.files import atomic_writer
from automix.random_streams import Stream, derived_seed
from automix.training.trainer import ClassifierTrainer, build_trainer, load_search_data
from envs.actions import Action
from envs.config import EnvironmentConfig, ObservationGroup
from envs.mixing_env import MixingEnv
from envs.observations import Observation

Floats = NDArray[np.float64]
_PLAIN, _BLIND, _LAST = "plain", "blind", "last"
_LOOKS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """Results of M schedules with K seeds.

    Attributes:
        seen: (M, K) by name of what was looked at; higher is better.
        states: (M, K, S, F), what was observed before each of S decisions.
        reference: (K,), the plain return of training runs that mix nothing.
        seconds: processor time: of an episode as it is (plain), with the least that can be observed
            (blind), without averaged weights (last), and per image of the reward split (image).
        sizes: images of the reward split, and of those that can be added to it (extra).
    """

    seen: Mapping[str, Floats]
    states: Floats
    reference: Floats
    seconds: Mapping[str, float]
    sizes: tuple[int, int]


class _Script:
    """A policy that does what it was told, and remembers what it saw."""

    def __init__(self, actions: Sequence[Action]) -> None:
        self._actions = actions
        self.seen: list[Observation] = []

    def act(self, observation: Observation) -> Action:
        self.seen.append(observation)
        return self._actions[len(self.seen) - 1]


def train_all(
    config: SearchConfig, *, num_schedules: int, num_seeds: int, folder: Path | None
) -> Trained:
    """Train everything once, one after the other, with progress.

    Args:
        config: of the search that the returns belong to.
        num_schedules: M.
        num_seeds: K.
        folder: keeps what a seed came to; what is there is not trained again.
    """
    data = load_search_data(config.task.data)
    envs = _environments(config, data)
    generator = np.random.default_rng(derived_seed(config.seed, Stream.POLICY))
    sizes = envs[_PLAIN].action_space.nvec  # type: ignore[attr-defined]
    shape = (num_schedules, config.environment.num_segments, len(sizes))
    schedules = generator.integers(sizes, size=shape)
    columns = []
    with ProgressBar("noise", num_seeds * (num_schedules + 1)) as bar:
        for index in range(num_seeds):
            file = folder / f"{num_schedules}-schedules-seed-{index}.npz" if folder else None
            if file and file.exists():
                bar.skip(num_schedules + 1)
            else:
                seed = derived_seed(config.seed, Stream.PROBE, step=index)
                names = tuple(envs) if index == 0 else (_PLAIN,)
                column = _column({name: envs[name] for name in names}, schedules, seed, bar)
                if file:
                    with atomic_writer(file) as stream:
                        np.savez(stream, allow_pickle=False, **column)
                columns.append(column)
                continue
            columns.append(dict(np.load(file)))
    looks = [name for name in columns[0] if name.startswith("seen ")]
    return Trained(
        seen={name[5:]: np.stack([column[name] for column in columns], axis=1) for name in looks},
        states=np.stack([column["states"] for column in columns], axis=1),
        reference=np.array([float(column["reference"]) for column in columns]),
        seconds=_seconds(columns),
        sizes=(len(data.reward), len(_splits(data)["extra"])),
    )


def _column(
    envs: Mapping[str, MixingEnv],
    schedules: NDArray[np.int64],
    seed: int,
    bar: ProgressBar,
) -> dict[str, NDArray[Any]]:
    """Train all schedules with one seed; return named arrays of M rows, or of one number."""
    plain = envs[_PLAIN]
    splits = _splits(plain.data)
    # Averages do not change the weights that are averaged: one training run shows both.
    raw = build_trainer(_without_averages(plain.task), plain.data, seed=0)
    spent: dict[str, list[float]] = {name: [] for name in envs}
    rows, states = [], []
    _timed(plain, np.zeros_like(schedules[0]), seed)
    reference = -plain.trainer.evaluate(plain.data.reward).calibrated_nll
    bar.advance()
    for actions in schedules:
        # In turn, so that all are timed on a machine in the same mood.
        for name, env in envs.items():
            seconds, observations = _timed(env, actions, seed)
            spent[name].append(seconds)
            if name == _PLAIN:
                states.append(observations)
        rows.append(_looks(plain.trainer, raw, splits))
        bar.advance()
    per_image = _seconds_per_image(plain.trainer, plain.data.reward)
    return (
        {f"seen {name}": np.array([row[name] for row in rows]) for name in rows[0]}
        | {f"seconds {name}": np.array(times) for name, times in spent.items()}
        | {
            "states": np.array(states),
            "reference": np.array(reference),
            "per image": np.array((plain.config.num_segments + 1) * per_image),
        }
    )


def _splits(data: SearchData) -> dict[str, Split]:
    """Return parts of the reward split; half of another split to add to it; the rest as judge."""

    def every(split: Split, first: int, step: int) -> Split:
        return split.subset(torch.arange(first, len(split), step))

    return {
        "half": every(data.reward, 0, 2),
        "quarter": every(data.reward, 0, 4),
        "extra": every(data.selection, 0, 2),
        "judge": every(data.selection, 1, 2),
        _PLAIN: data.reward,
    }


def _environments(config: SearchConfig, data: SearchData) -> dict[str, MixingEnv]:
    groups = (ObservationGroup.PROGRESS, ObservationGroup.LAST_DECISION)
    blind = config.environment.model_copy(update={"observation": groups})

    def make(task: TaskConfig, environment: EnvironmentConfig) -> MixingEnv:
        return MixingEnv(task, environment, data=data)

    return {
        _PLAIN: make(config.task, config.environment),
        _BLIND: make(config.task, blind),
        _LAST: make(_without_averages(config.task), config.environment),
    }


def _without_averages(task: TaskConfig) -> TaskConfig:
    trainer = task.trainer.model_copy(update={"ema_decay": 0.0})
    return task.model_copy(update={"trainer": trainer})


def _timed(
    env: MixingEnv, actions: NDArray[np.int64], seed: int
) -> tuple[float, list[Observation]]:
    """Run an episode; return its processor time and what was observed."""
    script = _Script(list(actions))
    started = time.process_time()
    roll_out(script, env, training_seed=seed)
    return time.process_time() - started, script.seen


def _looks(
    trainer: ClassifierTrainer, raw: ClassifierTrainer, splits: Mapping[str, Split]
) -> dict[str, float]:
    """Return all that a finished training run is looked at by, higher is better."""
    metrics = {name: trainer.evaluate(split) for name, split in splits.items()}
    raw.model.load_state_dict(trainer.model.state_dict())
    seen = {name: -split_metrics.calibrated_nll for name, split_metrics in metrics.items()}
    return seen | {
        "nll": -metrics[_PLAIN].nll,
        "accuracy": metrics[_PLAIN].accuracy,
        _LAST: -raw.evaluate(splits[_PLAIN]).calibrated_nll,
    }


def _seconds(columns: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, float]:
    """Return mean times; the others' from their ratio to the plain ones of the same runs."""
    first = columns[0]
    mean = float(np.mean([column[f"seconds {_PLAIN}"] for column in columns]))
    ratios = {
        name: float(first[f"seconds {name}"].mean() / first[f"seconds {_PLAIN}"].mean())
        for name in (_PLAIN, _BLIND, _LAST)
    }
    per_image = float(np.mean([column["per image"] for column in columns]))
    return {name: mean * ratio for name, ratio in ratios.items()} | {"image": per_image}


def _seconds_per_image(trainer: ClassifierTrainer, split: Split) -> float:
    started = time.process_time()
    for _ in range(_LOOKS):
        trainer.evaluate(split)
    return (time.process_time() - started) / _LOOKS / len(split)
