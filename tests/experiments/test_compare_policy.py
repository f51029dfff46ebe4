"""Policies beside schedules in a comparison: the same seeds, their own schedule in each run."""

from pathlib import Path

import pytest

from agents.learned import LearnedPolicy, roll_out
from automix.configuration.task import ComputeConfig
from automix.errors import CheckpointError, ConfigError
from automix.experiments.compare.run import LOOPS_NAME, compare, format_table
from automix.experiments.config import CompareConfig
from automix.random_streams import Stream, derived_seed
from automix.schedule import Schedule
from envs.mixing_env import MixingEnv
from envs.smoke import SMOKE_ENVIRONMENT, SMOKE_TASK
from tests.experiments.tiny_search import without_times


def config_of(folder: Path) -> CompareConfig:
    return CompareConfig(
        schedules=("none", f"policy:{folder}"),
        num_seeds=2,
        split="both",
        task=SMOKE_TASK,
        environment=SMOKE_ENVIRONMENT,
        compute=ComputeConfig(workers=1, population=1),
    )


def test_a_policy_decides_on_the_paired_seeds_and_resumes(
    finished_search: Path, tmp_path: Path
) -> None:
    config = config_of(finished_search)
    result = compare(config, tmp_path / "whole")
    name = config.schedules[1]
    assert [row["name"] for row in result["splits"]["test"]] == ["none", name]
    assert result["splits"]["test"][1]["seconds_per_training"] > 0
    assert name in format_table(result)
    policy = LearnedPolicy.load(finished_search / "policy")
    env = MixingEnv(SMOKE_TASK, SMOKE_ENVIRONMENT, seed=0)
    decided = [Schedule.from_plain(values) for values in result["decided"][name]]
    for index, schedule in enumerate(decided):
        seed = derived_seed(config.seed, Stream.COMPARISON, step=index)
        assert schedule.segments == roll_out(policy, env, training_seed=seed)[0].segments
    # The runs are those of the schedules that it decided on.
    files = []
    for index, schedule in enumerate(decided):
        schedule.save(tmp_path / f"{index}.json")
        files.append(str(tmp_path / f"{index}.json"))
    replayed = compare(config.model_copy(update={"schedules": tuple(files)}), tmp_path / "replayed")
    rows = replayed["splits"]["test"]
    values = result["splits"]["test"][1]["calibrated_nll"]["values"]
    for index, value in enumerate(values):
        assert rows[min(index, len(rows) - 1)]["calibrated_nll"]["values"][index] == value
    # Interrupted after the first closed loop.
    (tmp_path / "whole" / "result.json").unlink()
    journal = tmp_path / "whole" / LOOPS_NAME
    journal.write_text(journal.read_text().splitlines(keepends=True)[0])
    assert without_times(compare(config, tmp_path / "whole")) == without_times(result)


def test_what_is_no_policy_is_one_line(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    with pytest.raises(CheckpointError, match="expected the folder of a search"):
        compare(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="expected policy:FOLDER of a search, got no folder"):
        compare(config.model_copy(update={"schedules": ("policy:",)}), tmp_path / "run")
