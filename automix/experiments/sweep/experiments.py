"""Experiments as cells of a sweep: replay of a named schedule, search and comparison in one.

A cell is named by its configuration and by the decisions in the schedule files that it reads: a
file with other content makes another cell. Each ``identify`` function refuses, too, a schedule that
cannot be read or built.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from automix.configuration.base import Config
from automix.configuration.task import ReplayConfig
from automix.experiments.common.cost import CostEstimate
from automix.experiments.common.equal_schedules import names_of
from automix.experiments.common.summaries import METRICS
from automix.experiments.compare import run as comparison
from automix.experiments.compare.schedule_specs import (
    ScheduleEntry,
    build_schedule,
    parse_entries,
    schedule_files,
)
from automix.experiments.config import (
    BEST_CONSTANT,
    LEARNED,
    CompareConfig,
    ReplayOfConfig,
    SearchAndCompareConfig,
    SearchConfig,
)
from automix.experiments.replay import run as replays
from automix.experiments.replay.deciders import ScheduleSource
from automix.experiments.search.run import SCHEDULE_NAME, search
from automix.experiments.search.run import predict_cost as predict_search_cost
from automix.files import sha256_of
from automix.random_streams import Stream, derived_seed
from automix.schedule import Schedule, constant_decisions, constant_schedule
from envs.config import EnvironmentConfig

_SEARCH_FOLDER = "search"
_COMPARE_FOLDER = "compare"


def replay_named_schedule(config: ReplayOfConfig, output: Path) -> Mapping[str, Any]:
    """Replay the schedule that the configuration names."""
    return replays.replay(*_replay_arguments(config), output)


def predict_replay_cost(config: ReplayOfConfig) -> CostEstimate:
    """Return the cost of `replay_named_schedule`; nothing is written."""
    return replays.predict_cost(*_replay_arguments(config))


def _replay_arguments(config: ReplayOfConfig) -> tuple[ReplayConfig, ScheduleSource]:
    schedule = build_schedule(config.schedule, EnvironmentConfig(), seed=config.seed)
    replay_config = ReplayConfig(seed=config.seed, task=config.task, compute=config.compute)
    return replay_config, ScheduleSource(schedule)


def identify_replay(config: ReplayOfConfig) -> str:
    """Return a hash of a replay and its schedule file."""
    _replay_arguments(config)
    return _hash_with_files(config, schedule_files((config.schedule,)))


def identify_compare(config: CompareConfig) -> str:
    """Return a hash of a comparison and its schedule files."""
    parse_entries(config.schedules, config.environment, seed=config.seed)
    return _hash_with_files(config, schedule_files(config.schedules))


def identify_search_and_compare(config: SearchAndCompareConfig) -> str:
    """Return a hash of a search with its comparison, and of the schedule files of the latter."""
    _outcome_entries(config)
    names = (LEARNED, BEST_CONSTANT)
    return _hash_with_files(config, schedule_files(config.outcome.schedules, named=names))


def _hash_with_files(config: Config, files: Sequence[Path]) -> str:
    """Return the hash of a configuration, with the decisions of schedule files if there are any."""
    # Decisions, not bytes: provenance and spaces in a file make no other experiment.
    if not files:
        return config.content_hash()
    hashes = [config.content_hash(), *(Schedule.load(path).decision_hash() for path in files)]
    return sha256_of(*(text.encode() for text in hashes))[:16]


def search_and_compare(config: SearchAndCompareConfig, output: Path) -> dict[str, Any]:
    """Search in ``output/search``, compare in ``output/compare``, or resume there.

    The result holds, for each split and metric, the mean of every compared schedule
    (`means`) and `gain`: that of the learned one over the best constant, positive where it is
    better. The constant was chosen by the search, without these training runs.

    Raises:
        AutoMixError: configuration, data or folders do not fit.
    """
    outcome = search(_search_config(config), output / _SEARCH_FOLDER)
    named = {
        # Read back, so that the schedule that is compared is the one that users get.
        LEARNED: Schedule.load(output / _SEARCH_FOLDER / SCHEDULE_NAME),
        BEST_CONSTANT: _best_constant(config, outcome["standings"]),
    }
    compared = comparison.compare(_compare_config(config), output / _COMPARE_FOLDER, named=named)
    # By name, so that the measures of a sweep can name a schedule instead of its position.
    means = {split: _means(rows) for split, rows in compared["splits"].items()}
    return {
        "kind": "search_and_compare",
        "selected": outcome["selected"],
        "best_constant": named[BEST_CONSTANT].mixture_at(0.0).label(),
        "search_trainings": outcome["cost"]["trainings"],
        "means": means,
        "gain": {split: _gain(rows) for split, rows in means.items()},
    }


def predict_search_and_compare_cost(config: SearchAndCompareConfig) -> CostEstimate:
    """Return the cost of `search_and_compare`; nothing is written."""
    compare_cost = comparison.predict_cost(
        _compare_config(config), num_entries=len(_outcome_entries(config))
    )
    return predict_search_cost(_search_config(config)) + compare_cost


def _outcome_entries(config: SearchAndCompareConfig) -> list[ScheduleEntry]:
    """Return the entries of the comparison, with a placeholder for what the search will select.

    Raises:
        AutoMixError: a description or a file does not fit.
    """
    # Any schedule will do: names and number of the entries do not depend on it.
    placeholder = constant_schedule(constant_decisions(config.environment.operators)[0])
    return parse_entries(
        config.outcome.schedules,
        config.environment,
        seed=0,
        named={LEARNED: placeholder, BEST_CONSTANT: placeholder},
    )


def _search_config(config: SearchAndCompareConfig) -> SearchConfig:
    return SearchConfig.model_construct(
        **{name: getattr(config, name) for name in SearchConfig.model_fields}
    )


def _compare_config(config: SearchAndCompareConfig) -> CompareConfig:
    return CompareConfig(
        schedules=config.outcome.schedules,
        num_seeds=config.outcome.num_seeds,
        # Not the seed itself, which names the training runs of the search as well.
        seed=derived_seed(config.seed, Stream.COMPARISON),
        split=config.outcome.split,
        task=config.outcome.task or config.task,
        environment=config.environment,
        compute=config.compute,
    )


def _best_constant(
    config: SearchAndCompareConfig, standings: Sequence[Mapping[str, Any]]
) -> Schedule:
    """Return the constant that selection ranks first; it never lets go of the best one."""
    constants = {
        decision.label(): decision for decision in constant_decisions(config.environment.operators)
    }
    label = next(name for row in standings for name in names_of(row) if name in constants)
    return constant_schedule(constants[label])


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    # Equal schedules are one row: the learned one and the best constant may be the same.
    return {
        name: {metric: row[metric]["mean"] for metric in METRICS}
        for row in rows
        for name in names_of(row)
    }


def _gain(means: Mapping[str, Mapping[str, float | None]]) -> dict[str, float | None]:
    """Return by how much the learned schedule is better; empty unless both were compared."""
    learned, constant = means.get(LEARNED), means.get(BEST_CONSTANT)
    if learned is None or constant is None:
        return {}
    gains: dict[str, float | None] = {}
    for metric, (_, better) in METRICS.items():
        mean, reference = learned[metric], constant[metric]
        # sign * (learned - constant): positive where the learned schedule is better.
        gains[metric] = (
            None if mean is None or reference is None else better.sign * (mean - reference)
        )
    return gains
