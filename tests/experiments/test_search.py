"""A whole search: what it writes, that it repeats itself, and what it does with what is there."""

import json
from pathlib import Path

import pytest

from automix.configuration.base import Config
from automix.errors import CheckpointError, ConfigError
from automix.experiments.common.run_folder import RunFolder
from automix.experiments.config import SearchConfig
from automix.experiments.search import learning
from automix.experiments.search.estimate import count_runs
from automix.experiments.search.run import SCHEDULE_NAME, search
from automix.operator_info import OPERATOR_FACTS
from automix.schedule import Schedule
from tests.equality import untouched_generators
from tests.experiments.tiny_search import TINY, outputs


def changed(config: SearchConfig, **sections: dict[str, object]) -> SearchConfig:
    values = {
        name: getattr(config, name).model_copy(update=fields) for name, fields in sections.items()
    }
    return config.model_copy(update=values)


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_same_seed_same_files(finished_search: Path, tmp_path: Path) -> None:
    with untouched_generators():
        search(TINY, tmp_path / "again")
    assert outputs(tmp_path / "again") == outputs(finished_search)


@pytest.mark.slow
def test_another_seed_finds_other_episodes(finished_search: Path, tmp_path: Path) -> None:
    result = search(TINY.model_copy(update={"seed": 4}), tmp_path / "other")
    first = json.loads((finished_search / "result.json").read_text())
    assert result["episodes"] != first["episodes"]


@pytest.mark.slow
def test_worker_processes_change_nothing(finished_search: Path, tmp_path: Path) -> None:
    config = changed(TINY, agent={"workers": "subprocess"}, compute={"workers": 2})
    search(config, tmp_path / "workers")
    result, expected = outputs(tmp_path / "workers"), outputs(finished_search)
    schedules = [
        Schedule.load(folder / SCHEDULE_NAME) for folder in (tmp_path / "workers", finished_search)
    ]
    assert schedules[0].segments == schedules[1].segments
    # The configuration is part of the provenance.
    del result["schedule"], expected["schedule"]
    assert result == expected


@pytest.mark.parametrize("searcher", ["ppo", "pbt"])
@pytest.mark.slow
def test_classifiers_may_be_a_population(tmp_path: Path, searcher: str) -> None:
    config = changed(TINY, compute={"population": 2}).model_copy(update={"searcher": searcher})
    for name in ("one", "two"):
        search(config, tmp_path / name)
    first, second = (json.loads((tmp_path / n / "result.json").read_text()) for n in ("one", "two"))
    assert first["episodes"] == second["episodes"]
    assert len(first["episodes"]) == TINY.agent.episodes


@pytest.mark.slow
def test_automatic_workers_give_the_bits_of_this_machine(
    finished_search: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = changed(TINY, agent={"workers": "auto"})
    monkeypatch.setattr(learning, "choose_kind", lambda count: ("in_process", "as the test says"))
    search(config, tmp_path / "auto")
    assert outputs(tmp_path / "auto")["policy"] == outputs(finished_search)["policy"]


def test_a_run_folder_is_complete(finished_search: Path) -> None:
    names = {path.name for path in finished_search.iterdir()}
    assert {
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "policy",
        "result.json",
        "schedule.json",
        "tensorboard",
    } <= names
    assert not [name for name in names if name.endswith(".tmp")]
    assert SearchConfig.from_yaml(finished_search / "config.yaml") == TINY
    schedule = Schedule.load(finished_search / SCHEDULE_NAME)
    assert schedule.provenance["seed"] == "3"
    assert schedule.provenance["config"] == TINY.content_hash()
    assert {"torch", "data", "origin"} <= schedule.provenance.keys()


def test_the_result_says_what_was_done(finished_search: Path) -> None:
    result = json.loads((finished_search / "result.json").read_text())
    assert result["is_finished"]
    assert [episode["number"] for episode in result["episodes"]] == list(range(12))
    # The race: no mixing, each operator at each strength, and what ships with these operators.
    operators = TINY.environment.operators
    constants = {row["name"] for row in result["race"] if row["is_constant"]}
    assert len(constants) == sum(len(OPERATOR_FACTS[name].strength.levels) for name in operators)
    shipped = {row["name"] for row in result["race"] if row["origin"] == "zero-search"}
    assert shipped == set(Schedule.portfolio())
    assert len(result["race"]) == len(constants) + len(shipped)
    # The selection: what was learned against the best of the race.
    learned = [row for row in result["standings"] if row["origin"] == "learned"]
    assert 1 <= len(learned) <= TINY.selection.learned_candidates
    assert {"none", "constant", "zero-search"} <= {row["origin"] for row in result["standings"]}
    planned = sum(count_runs(TINY).values())
    assert 0.7 * planned <= result["cost"]["trainings"] <= 1.3 * planned


def test_the_final_is_of_the_leader_and_of_what_needs_no_search(finished_search: Path) -> None:
    result = json.loads((finished_search / "result.json").read_text())
    names = [row["name"] for row in result["final"]]
    assert names[0] == result["standings"][0]["name"]
    best = [
        next(row["name"] for row in result["standings"] if row["origin"] == origin)
        for origin in ("zero-search", "constant", "none")
    ]
    assert set(names) == {names[0], *best}
    assert result["selected"] == result["verdict"]["selected"]
    assert result["selected"] in names
    # Seeds and images that chose nothing.
    journals = [
        [
            json.loads(line)["key"].split("/")
            for line in (finished_search / f"{stage}.jsonl").read_text().splitlines()
        ]
        for stage in ("race", "selection", "final")
    ]
    seeds = [{seed for _, seed, _ in keys} for keys in journals]
    assert not seeds[2] & (seeds[0] | seeds[1])
    splits = [{split for _, _, split in keys} for keys in journals]
    assert splits == [{"reward"}, {"reward"}, {"selection"}]


def test_no_candidate_is_trained_twice(finished_search: Path) -> None:
    for stage in ("race", "selection", "final"):
        lines = (finished_search / f"{stage}.jsonl").read_text().splitlines()
        keys = [json.loads(line)["key"] for line in lines]
        assert len(keys) == len(set(keys))
    standings = json.loads((finished_search / "result.json").read_text())["standings"]
    assert len({row["name"] for row in standings}) == len(standings)


def test_a_finished_run_is_recognized_and_left_alone(finished_search: Path) -> None:
    before = files(finished_search)
    result = search(TINY, finished_search)
    assert result == json.loads((finished_search / "result.json").read_text())
    assert files(finished_search) == before


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_folder_of_another_configuration_is_refused(
    finished_search: Path, tmp_path: Path, is_finished: bool
) -> None:
    folder = finished_search
    if not is_finished:
        folder = tmp_path / "begun"
        with RunFolder(folder, TINY):
            pass
    before = files(folder)
    other = TINY.model_copy(update={"seed": 99})
    with pytest.raises(CheckpointError, match=r"expected an empty folder or a run of the same"):
        search(other, folder)
    assert files(folder) == before


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path / "run", TINY),
        pytest.raises(CheckpointError, match="got one in use by another process"),
    ):
        search(TINY, tmp_path / "run")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            changed(TINY, environment={"num_segments": 13}),
            r"environment\.num_segments: expected at most 12",
        ),
        (
            changed(TINY, agent={"minibatch_size": 5}),
            r"agent\.minibatch_size: expected a divisor of the 12 decisions",
        ),
        (
            changed(TINY, agent={"num_environments": 3}),
            r"agent\.episodes_per_rollout: expected a multiple",
        ),
    ],
)
def test_numbers_that_do_not_fit_are_refused_before_anything_is_written(
    config: Config, message: str, tmp_path: Path
) -> None:
    assert isinstance(config, SearchConfig)
    with pytest.raises(ConfigError, match=message):
        search(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_diverging_runs_do_not_end_a_search(tmp_path: Path) -> None:
    trainer = TINY.task.trainer.model_copy(update={"learning_rate": 1e30})
    config = changed(TINY, task={"trainer": trainer})
    result = search(config, tmp_path / "run")
    assert all(standing["mean_calibrated_nll"] is None for standing in result["standings"])
    assert len(result["episodes"]) >= 12
    Schedule.load(tmp_path / "run" / SCHEDULE_NAME)


def test_patience_ends_learning_early_and_selection_follows(tmp_path: Path) -> None:
    config = changed(
        TINY, agent={"episodes": 400, "patience": 1, "learning_rate": 1e-9, "num_environments": 4}
    )
    result = search(config, tmp_path / "run")
    assert len(result["episodes"]) < 400
    assert result["selected"]
