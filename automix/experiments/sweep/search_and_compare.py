"""Search, then a comparison of what it found on fresh seeds: the outcome of an ablation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from automix.data.load import load_data
from automix.experiments.common.cost import CostEstimate, estimate_cost
from automix.experiments.compare.run import METRICS, compare, splits_of
from automix.experiments.compare.schedule_specs import Entry, parse_entries
from automix.experiments.config import (
    BEST_CONSTANT,
    LEARNED,
    CompareConfig,
    SearchAndCompareConfig,
    SearchConfig,
)
from automix.experiments.search.run import SCHEDULE_NAME, search
from automix.experiments.search.run import predict_cost as predict_search_cost
from automix.random_streams import Stream, derived_seed
from automix.schedule import Schedule, constant_decisions, constant_schedule

_SEARCH_FOLDER = "search"
_COMPARE_FOLDER = "compare"


def search_and_compare(config: SearchAndCompareConfig, output: Path) -> dict[str, Any]:
    """Search in ``output/search``, compare in ``output/compare``, or continue there.

    The result holds, for each split and metric, the mean of every compared schedule
    (`means`) and `gain`: that of the learned one over the best constant, positive where it is
    better. The constant was chosen by the search, without these training runs.

    Raises:
        AutoMixError: configuration, data or folders do not fit.
    """
    found = search(_search_config(config), output / _SEARCH_FOLDER)
    named = {
        LEARNED: Schedule.load(output / _SEARCH_FOLDER / SCHEDULE_NAME),
        BEST_CONSTANT: _best_constant(config, found["standings"]),
    }
    compared = compare(_compare_config(config), output / _COMPARE_FOLDER, named=named)
    means = {split: _means(rows) for split, rows in compared["splits"].items()}
    return {
        "kind": "search_and_compare",
        "selected": found["selected"],
        "best_constant": named[BEST_CONSTANT].at(0.0).label(),
        "search_trainings": found["cost"]["trainings"],
        "means": means,
        "gain": {split: _gain(rows) for split, rows in means.items()},
    }


def predict_cost(config: SearchAndCompareConfig) -> CostEstimate:
    """Return what `search_and_compare` will cost; nothing is written."""
    comparison = _compare_config(config)
    outcome = estimate_cost(
        comparison.task,
        load_data(comparison.task.data).for_search(),
        operators=config.environment.operators,
        num_trainings=len(parse_outcome(config)) * comparison.num_seeds,
        evaluations_per_training=len(splits_of(comparison)),
        compute=config.compute,
    )
    return predict_search_cost(_search_config(config)) + outcome


def parse_outcome(config: SearchAndCompareConfig) -> list[Entry]:
    """Return what will be compared, with a placeholder where the search has to be waited for.

    Raises:
        AutoMixError: a description or a file does not fit.
    """
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
    by_label = {each.label(): each for each in constant_decisions(config.environment.operators)}
    label = next(each["name"] for each in standings if each["name"] in by_label)
    return constant_schedule(by_label[label])


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    return {row["name"]: {metric: row[metric]["mean"] for metric in METRICS} for row in rows}


def _gain(means: Mapping[str, Mapping[str, float | None]]) -> dict[str, float | None]:
    """Return by how much the learned schedule is better; empty unless both were compared."""
    learned, constant = means.get(LEARNED), means.get(BEST_CONSTANT)
    if learned is None or constant is None:
        return {}
    gains: dict[str, float | None] = {}
    for metric, (_, better) in METRICS.items():
        own, other = learned[metric], constant[metric]
        gains[metric] = None if own is None or other is None else better.sign * (own - other)
    return gains
