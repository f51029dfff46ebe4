"""Experiments as cells of a sweep: a replay of a schedule by name, and names that hash files.

A cell is named by its configuration and by the decisions in the schedule files that it reads: a
file with other content makes another cell. Each ``identify`` function refuses, too, a schedule that
cannot be read or built.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from automix.configuration.base import Config
from automix.experiments.common.config import ReplayConfig
from automix.experiments.common.cost import CostEstimate
from automix.experiments.compare.schedule_specs import build_schedule, parse_entries, schedule_files
from automix.experiments.config import (
    BEST_CONSTANT,
    LEARNED,
    CompareConfig,
    ReplayOfConfig,
    SearchAndCompareConfig,
)
from automix.experiments.replay.run import ScheduleSource, predict_cost, replay
from automix.experiments.sweep.search_and_compare import parse_outcome
from automix.files import sha256_of
from automix.schedule import Schedule
from envs.config import EnvironmentConfig


def replay_named_schedule(config: ReplayOfConfig, output: Path) -> Mapping[str, Any]:
    """Replay the schedule that the configuration names."""
    return replay(_replay_config(config), ScheduleSource(_schedule(config)), output)


def predict_replay_cost(config: ReplayOfConfig) -> CostEstimate:
    """Return the cost of `replay_named_schedule`; nothing is written."""
    return predict_cost(_replay_config(config), ScheduleSource(_schedule(config)))


def _replay_config(config: ReplayOfConfig) -> ReplayConfig:
    return ReplayConfig(seed=config.seed, task=config.task, compute=config.compute)


def _schedule(config: ReplayOfConfig) -> Schedule:
    return build_schedule(config.schedule, EnvironmentConfig(), seed=config.seed)


def identify_replay(config: ReplayOfConfig) -> str:
    """Return a hash of a replay and its schedule file."""
    _schedule(config)
    return _hash_with_files(config, schedule_files((config.schedule,)))


def identify_compare(config: CompareConfig) -> str:
    """Return a hash of a comparison and its schedule files."""
    parse_entries(config.schedules, config.environment, seed=config.seed)
    return _hash_with_files(config, schedule_files(config.schedules))


def identify_search_and_compare(config: SearchAndCompareConfig) -> str:
    """Return a hash of a search with its comparison, and of the schedule files of the latter."""
    parse_outcome(config)
    names = (LEARNED, BEST_CONSTANT)
    return _hash_with_files(config, schedule_files(config.outcome.schedules, named=names))


def _hash_with_files(config: Config, files: Sequence[Path]) -> str:
    """Return the hash of a configuration, with the decisions of schedule files if there are any."""
    if not files:
        return config.content_hash()
    hashes = [config.content_hash(), *(Schedule.load(path).decision_hash() for path in files)]
    return sha256_of(*(text.encode() for text in hashes))[:16]
