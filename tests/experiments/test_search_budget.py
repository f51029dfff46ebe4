"""Searches with a budget: stages, what is there at any moment, budgets that are refused."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automix.errors import CheckpointError, ConfigError
from automix.experiments.common.run_folder import RunFolder
from automix.experiments.common.run_logs import Journal
from automix.experiments.config import FEWEST, SearchConfig
from automix.experiments.report.finished_runs import FinishedRun
from automix.experiments.search import run as run_of_search
from automix.experiments.search.candidates import zero_search_candidates
from automix.experiments.search.estimate import count_runs
from automix.experiments.search.plan import FEWEST_TO_LEARN, plan_search, race_rounds
from automix.experiments.search.run import BUDGET_NAME, SCHEDULE_NAME, search
from automix.files import write_json
from automix.schedule import Schedule
from tests.experiments.test_search_interrupted import Interruptions
from tests.experiments.tiny_search import TINY, without_times


@given(st.integers(FEWEST, 5_000), st.integers(1, 40))
def test_a_plan_stays_within_its_budget(runs: int, num_candidates: int) -> None:
    plan = plan_search(TINY, num_candidates=num_candidates, runs=runs)
    # Rounded up: a rollout at least, and two seeds of each finalist.
    assert sum(plan.runs.values()) <= runs + TINY.agent.episodes_per_rollout
    assert bool(plan.episodes) == (runs >= FEWEST_TO_LEARN) == bool(plan.selection)
    racing = TINY.model_copy(update={"searcher": "race"})
    alone = plan_search(racing, num_candidates=num_candidates, runs=runs)
    assert (alone.episodes, alone.selection) == (0, ())
    assert alone.final == plan.final
    assert sum(alone.runs.values()) <= runs
    assert plan.final >= 8


@given(st.integers(FEWEST, 5_000))
def test_no_mixing_and_the_recommended_schedule_are_in_a_race_of_any_length(runs: int) -> None:
    candidates = zero_search_candidates(TINY.model_copy(update={"portfolio": True}))
    plan = plan_search(TINY, num_candidates=len(candidates), runs=runs)
    racing = candidates[: plan.race[0].num_candidates]
    assert [one.name for one in racing[:2]] == ["none", next(iter(Schedule.portfolio()))]


@given(st.integers(2, 1_000), st.integers(1, 60), st.integers(1, 8))
def test_rounds_halve_within_their_budget(budget: int, num_candidates: int, last: int) -> None:
    rounds = race_rounds(budget, num_candidates=num_candidates, last=last)
    assert 0.3 * budget <= sum(one.num_runs for one in rounds) <= budget
    assert rounds[0].num_candidates <= num_candidates
    counts = [one.num_candidates for one in rounds]
    assert counts == sorted(counts, reverse=True)
    # Seeds are numbered through: a later round has others.
    numbers = [number for one in rounds for number in one.seeds]
    assert numbers == list(range(len(numbers)))


def test_a_small_budget_is_a_race_and_a_final(tmp_path: Path) -> None:
    config = TINY.model_copy(update={"runs": 40})
    result = search(config, tmp_path / "run")
    assert result["episodes"] == []
    assert not (tmp_path / "run" / "policy").exists()
    assert 30 <= result["cost"]["trainings"] <= 40
    assert sum(count_runs(config).values()) <= 40
    assert result["standings"] == result["race"]


@pytest.mark.parametrize("stage", ["race", "final"])
def test_the_best_so_far_is_there_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    config = TINY.model_copy(update={"runs": 40})
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        stops = Interruptions(2 if stage == "race" else 26)
        patch.setattr(Journal, "add", stops.wrap(Journal.add, after=True))
        with pytest.raises(KeyboardInterrupt):
            search(config, folder)
    assert (folder / f"{stage}.jsonl").exists()
    result = json.loads((folder / "result.json").read_text())
    assert not result["is_finished"]
    if stage == "final":
        assert result["selected"] == result["standings"][0]["name"]
    Schedule.load(folder / SCHEDULE_NAME)
    with pytest.raises(CheckpointError, match="got one in progress"):
        FinishedRun(folder)
    # Interrupted once more before anything new is known, it still says the same.
    best = (folder / SCHEDULE_NAME).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", Interruptions(1).wrap(Journal.add, after=True))
        with pytest.raises(KeyboardInterrupt):
            search(config, folder)
    assert (folder / SCHEDULE_NAME).read_bytes() == best
    # And the search resumes to the same end.
    search(config, folder)
    search(config, tmp_path / "whole")
    assert without_times(json.loads((folder / "result.json").read_text())) == without_times(
        json.loads((tmp_path / "whole" / "result.json").read_text())
    )


def test_minutes_are_turned_into_training_runs_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TINY.model_copy(update={"minutes": 0.01})
    with RunFolder(tmp_path / "run", config):
        write_json(tmp_path / "run" / BUDGET_NAME, {"minutes": 0.01, "runs": 14})
    monkeypatch.setattr(run_of_search, "FEWEST", None)
    assert search(config, tmp_path / "run")["cost"]["trainings"] <= 14


def test_the_timed_training_runs_are_the_first_of_the_race(tmp_path: Path) -> None:
    # Less than the timing takes: the smallest budget there is.
    timed = search(TINY.model_copy(update={"minutes": 0.001}), tmp_path / "timed")
    counted = search(TINY.model_copy(update={"runs": FEWEST}), tmp_path / "counted")
    assert without_times(timed) == without_times(counted)
    for stage in ("race", "final"):
        journals = [Journal(tmp_path / name / f"{stage}.jsonl") for name in ("timed", "counted")]
        assert journals[0].results.keys() == journals[1].results.keys()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"runs": 5}, r"runs: expected at least 12 training runs, got 5"),
        ({"runs": 0}, r"runs: expected .* 1, got 0"),
        ({"minutes": -1}, r"minutes: expected greater than 0"),
        ({"runs": 20, "minutes": 3}, r"expected runs or minutes, got both: 20 runs, 3 minutes"),
    ],
)
def test_impossible_budgets_are_refused(
    fields: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        search(
            SearchConfig.from_mapping(TINY.model_dump(mode="json") | fields, source="test"),
            tmp_path / "run",
        )
    assert not (tmp_path / "run").exists()
