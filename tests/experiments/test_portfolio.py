"""Schedules that ship: in the package, on the command line, in comparisons and in loops."""

from pathlib import Path

import pytest
import torch

from automix.errors import ConfigError
from automix.experiments.compare.schedule_specs import parse_entries
from automix.experiments.config import SearchConfig
from automix.experiments.schedule_files import recommend
from automix.experiments.search.candidates import zero_search_candidates
from automix.integrations.scheduled_mix import ScheduledMix
from automix.operator_info import OPERATOR_FACTS, Operator
from automix.schedule import Schedule
from envs.smoke import SMOKE_ENVIRONMENT
from tests.experiments.tiny_search import TINY

SHIPPED = Schedule.portfolio()


def test_at_most_ten_ship_and_each_says_where_it_comes_from() -> None:
    assert 1 <= len(SHIPPED) <= 10
    assert all(schedule.provenance["origin"] for schedule in SHIPPED.values())
    assert len({schedule.decision_hash() for schedule in SHIPPED.values()}) == len(SHIPPED)
    assert all(name == name.lower() and " " not in name for name in SHIPPED)


def test_the_recommended_schedule_is_the_first(tmp_path: Path) -> None:
    first = next(iter(SHIPPED))
    lines = list(recommend(tmp_path / "schedule.json"))
    assert Schedule.load(tmp_path / "schedule.json") == SHIPPED[first] == Schedule.recommended()
    assert first in lines[0]
    assert all(any(name in line for line in lines) for name in SHIPPED)


def test_the_recommended_mix_is_ready_to_use() -> None:
    needs_saliency = any(
        OPERATOR_FACTS[name].needs_saliency for name in Schedule.recommended().operators
    )
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64, 10))
    mix = ScheduledMix.recommended(
        num_classes=10, total_steps=4, model=model if needs_saliency else None
    )
    images, targets = mix(torch.rand(6, 3, 8, 8), torch.arange(6))
    assert images.shape == (6, 3, 8, 8)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(6))


def test_comparisons_name_one_or_all() -> None:
    entries = parse_entries(("portfolio",), SMOKE_ENVIRONMENT, seed=0)
    assert [entry.name for entry in entries] == list(SHIPPED)
    last = list(SHIPPED)[-1]
    (one,) = parse_entries((f"portfolio:{last}",), SMOKE_ENVIRONMENT, seed=0)
    assert one.schedule_for(0) == SHIPPED[last]
    with pytest.raises(ConfigError, match=r"expected portfolio or portfolio:NAME of .*got 'portf"):
        parse_entries(("portfolio:mixup",), SMOKE_ENVIRONMENT, seed=0)


def test_finalists_are_those_of_the_search(finished_search: Path, tmp_path: Path) -> None:
    entries = parse_entries((f"finalists:{finished_search}",), SMOKE_ENVIRONMENT, seed=0)
    selected = Schedule.load(finished_search / "schedule.json")
    assert entries[0].schedule_for(0).segments == selected.segments
    assert {"none"} <= {entry.name for entry in entries}
    with pytest.raises(ConfigError, match="expected finalists:FOLDER of a finished search"):
        parse_entries((f"finalists:{tmp_path}",), SMOKE_ENVIRONMENT, seed=0)


def test_a_race_without_the_portfolio_has_the_operators_of_the_environment_only() -> None:
    config = SearchConfig.from_mapping(
        TINY.model_dump(mode="json") | {"portfolio": False}, source="test"
    )
    candidates = zero_search_candidates(config)
    allowed = {Operator.NONE, *config.environment.operators}
    assert all(allowed.issuperset(one.schedule.operators) for one in candidates)
    assert {one.origin for one in candidates} == {"none", "constant"}
    assert {one.origin for one in zero_search_candidates(TINY)} == {
        "none",
        "constant",
        "zero-search",
    }
