"""Experiments that can be cells of a sweep."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from automix.configuration.base import Config, did_you_mean
from automix.errors import ConfigError
from automix.experiments.common.config import ReplayConfig
from automix.experiments.common.cost import CostEstimate
from automix.experiments.compare.run import compare
from automix.experiments.compare.run import predict_cost as predict_compare_cost
from automix.experiments.compare.schedule_specs import build_schedule, parse_entries, schedule_files
from automix.experiments.config import (
    BEST_CONSTANT,
    LEARNED,
    CompareConfig,
    ReplayOfConfig,
    SearchAndCompareConfig,
    SearchConfig,
)
from automix.experiments.replay.run import ScheduleSource, replay
from automix.experiments.replay.run import predict_cost as predict_replay_cost
from automix.experiments.search.run import predict_cost as predict_search_cost
from automix.experiments.search.run import search
from automix.experiments.sweep.search_and_compare import parse_outcome, search_and_compare
from automix.experiments.sweep.search_and_compare import (
    predict_cost as predict_search_and_compare_cost,
)
from automix.experiments.sweep.spec import MeasureConfig
from automix.files import sha256_of
from automix.reporting.tables import Direction
from automix.schedule import Schedule
from envs.config import EnvironmentConfig

ConfigType = TypeVar("ConfigType", bound=Config)


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment(Generic[ConfigType]):
    """What a sweep can be made of.

    Attributes:
        config: its configuration.
        run: runs or continues it in a folder and returns its result; at the top level of a module.
        predict_cost: what a run will cost, measured on a few steps.
        identify: refuses a configuration for what is wrong with the schedules that it names, and
            returns a hash of it and of their files.
        measures: what the table of a sweep shows unless the sweep says.
    """

    config: type[ConfigType]
    run: Callable[[ConfigType, Path], Mapping[str, Any]]
    predict_cost: Callable[[ConfigType], CostEstimate]
    identify: Callable[[ConfigType], str]
    measures: Mapping[str, MeasureConfig]


def find_experiment(name: str, *, source: Path) -> Experiment[Any]:
    """Return the experiment called ``name`` in the sweep's file ``source``.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in EXPERIMENTS:
        raise ConfigError(
            f"{source}: experiment: expected one of {', '.join(EXPERIMENTS)}, got {name!r}"
            f"{did_you_mean(name, EXPERIMENTS)}"
        )
    return EXPERIMENTS[name]


def run_compare(config: CompareConfig, output: Path) -> Mapping[str, Any]:
    """Run a comparison of schedules that are files or descriptions."""
    return compare(config, output)


def run_replay(config: ReplayOfConfig, output: Path) -> Mapping[str, Any]:
    """Replay the schedule that the configuration names."""
    return replay(_replay_config(config), ScheduleSource(_schedule(config)), output)


def _predict_replay_cost(config: ReplayOfConfig) -> CostEstimate:
    return predict_replay_cost(_replay_config(config), ScheduleSource(_schedule(config)))


def _replay_config(config: ReplayOfConfig) -> ReplayConfig:
    return ReplayConfig(seed=config.seed, task=config.task, compute=config.compute)


def _schedule(config: ReplayOfConfig) -> Schedule:
    return build_schedule(config.schedule, EnvironmentConfig(), seed=config.seed)


def _identify_replay(config: ReplayOfConfig) -> str:
    _schedule(config)
    return _hash_with_files(config, schedule_files((config.schedule,)))


def _identify_compare(config: CompareConfig) -> str:
    parse_entries(config.schedules, config.environment, seed=config.seed)
    return _hash_with_files(config, schedule_files(config.schedules))


def _identify_search_and_compare(config: SearchAndCompareConfig) -> str:
    parse_outcome(config)
    names = (LEARNED, BEST_CONSTANT)
    return _hash_with_files(config, schedule_files(config.outcome.schedules, named=names))


def _hash_with_files(config: Config, files: Sequence[Path]) -> str:
    """Return the hash of a configuration, with the decisions of schedule files if there are any."""
    if not files:
        return config.content_hash()
    hashes = [Schedule.load(path).decision_hash() for path in files]
    return sha256_of(config.content_hash().encode(), *(each.encode() for each in hashes))[:16]


def _mean(split: str, name: str, metric: str, better: Direction) -> MeasureConfig:
    return MeasureConfig(key=("means", split, name, metric), better=better)


EXPERIMENTS: Mapping[str, Experiment[Any]] = MappingProxyType(
    {
        "search": Experiment(
            config=SearchConfig,
            run=search,
            predict_cost=predict_search_cost,
            identify=Config.content_hash,
            measures={
                "calibrated NLL of the selected schedule, selection split": MeasureConfig(
                    key="standings.0.mean_calibrated_nll"
                ),
            },
        ),
        "replay": Experiment(
            config=ReplayOfConfig,
            run=run_replay,
            predict_cost=_predict_replay_cost,
            identify=_identify_replay,
            measures={
                "test calibrated NLL": MeasureConfig(key="test.calibrated_nll"),
                "test accuracy": MeasureConfig(key="test.accuracy", better=Direction.HIGHER),
            },
        ),
        "compare": Experiment(
            config=CompareConfig,
            run=run_compare,
            predict_cost=predict_compare_cost,
            identify=_identify_compare,
            measures={},
        ),
        "search_and_compare": Experiment(
            config=SearchAndCompareConfig,
            run=search_and_compare,
            predict_cost=predict_search_and_compare_cost,
            identify=_identify_search_and_compare,
            measures={
                "test calibrated NLL of the learned schedule": _mean(
                    "test", "learned", "calibrated_nll", Direction.LOWER
                ),
                "gain over the best constant, test calibrated NLL": MeasureConfig(
                    key="gain.test.calibrated_nll", better=Direction.HIGHER
                ),
                "test accuracy of the learned schedule": _mean(
                    "test", "learned", "accuracy", Direction.HIGHER
                ),
            },
        ),
    }
)
"""Experiments by the name that a sweep calls them."""
