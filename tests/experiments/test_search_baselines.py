"""Every searcher yields a schedule by the same protocol, with the same number of training runs."""

import json
from pathlib import Path

import pytest

from automix.errors import ConfigError
from automix.experiments.common.run_logs import Journal
from automix.experiments.config import SearchConfig
from automix.experiments.search.estimate import count_runs
from automix.experiments.search.learning import LearningLog
from automix.experiments.search.run import PROPOSAL_NAME, search
from automix.schedule import Schedule
from tests.equality import untouched_generators
from tests.experiments.test_search_interrupted import Interruptions
from tests.experiments.tiny_search import TINY, metrics

SEARCHERS = ["random_search", "additive", "pbt", "tpe"]


def with_searcher(name: str) -> SearchConfig:
    return SearchConfig.from_mapping(
        TINY.model_dump(mode="json") | {"searcher": name}, source="test"
    )


# Random search and the additive fit are asked for schedules as TPE is; a population is the slowest.
@pytest.mark.parametrize(
    "name",
    [*(pytest.param(name, marks=pytest.mark.slow) for name in SEARCHERS[:3]), *SEARCHERS[3:]],
)
def test_interrupted_or_not_the_result_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config = with_searcher(name)
    with untouched_generators():
        result = search(config, tmp_path / "whole")
    learning = result["cost"]["trainings_by_stage"]
    assert learning["learning"] == count_runs(config)["learning"] == 12
    assert learning["greedy episodes"] == 0
    for place, calls in (("on_episode", (2, 7)), ("save", (1, 3))):
        stops = Interruptions(*calls)
        folder = tmp_path / place
        with monkeypatch.context() as patch:
            patch.setattr(
                LearningLog, place, stops.wrap(getattr(LearningLog, place), after=place == "save")
            )
            for _ in calls:
                with pytest.raises(KeyboardInterrupt):
                    search(config, folder)
            search(config, folder)
        assert metrics(folder) == metrics(tmp_path / "whole")
        for file in ("schedule.json", PROPOSAL_NAME):
            assert (folder / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_the_proposal_is_what_the_searcher_holds_to_be_best(
    finished_search: Path, tmp_path: Path
) -> None:
    assert "greedy" in Schedule.load(finished_search / PROPOSAL_NAME).provenance["origin"]
    result = search(with_searcher("random_search"), tmp_path / "random")
    best = max(result["episodes"], key=lambda episode: episode["potential"])
    proposal = Schedule.load(tmp_path / "random" / PROPOSAL_NAME)
    assert proposal.provenance["origin"] == f"episode {best['number']}, before selection"


@pytest.mark.slow
def test_random_search_and_additive_fit_see_the_same_episodes(tmp_path: Path) -> None:
    results = [search(with_searcher(name), tmp_path / name) for name in SEARCHERS[:2]]
    assert results[0]["episodes"] == results[1]["episodes"]
    origin = Schedule.load(tmp_path / "additive" / PROPOSAL_NAME).provenance["origin"]
    assert origin == "additive fit, before selection"


def test_what_is_not_known_of_a_finished_training_is_refused() -> None:
    values = TINY.model_dump(mode="json")
    values["environment"]["potential"] = "gradient_similarity"
    SearchConfig.from_mapping(values | {"searcher": "pbt"}, source="test")
    with pytest.raises(ConfigError, match="another potential than gradient_similarity"):
        SearchConfig.from_mapping(values | {"searcher": "tpe"}, source="test")


@pytest.mark.slow
def test_the_time_of_all_attempts_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stops = Interruptions(8)
        wrapped = stops.wrap(Journal.add, after=True)
        patch.setattr(Journal, "add", wrapped)
        with pytest.raises(KeyboardInterrupt):
            search(TINY, tmp_path / "run")
    lines = (tmp_path / "run" / "race.jsonl").read_text().splitlines()
    before = sum(json.loads(line)["waited_seconds"] for line in lines)
    result = search(TINY, tmp_path / "run")
    assert len(lines) == 8
    assert before > 0
    assert result["cost"]["seconds_by_stage"]["race"] > before
