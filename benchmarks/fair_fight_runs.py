"""Searches behind `benchmarks.fair_fight`: one budget and one selection for every searcher.

    python -m benchmarks.fair_fight_runs configs/tasks/digits-20.yaml --folder FOLDER \
        [--path IMAGES] [--search-seeds 5] [--runs 200] [--test-seeds 20] [--estimate]

Every search gets the same training runs. The searchers of one search seed have the same race, which
is trained once and copied; it counts for each of them. What a search found is trained with the same
test seeds for all. Resumes where it was stopped; ``--estimate`` trains nothing.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from automix.configuration.task import ComputeConfig
from automix.data.load import load_data
from automix.experiments.common.cost import estimate_cost
from automix.experiments.common.run_folder import finished_result, format_seconds
from automix.experiments.common.run_logs import Journal
from automix.experiments.common.training_pool import TrainingJob, train_all
from automix.experiments.compare.policies import PolicyLoops
from automix.experiments.config import CompareConfig, SearchConfig
from automix.experiments.search.estimate import count_runs
from automix.experiments.search.run import SCHEDULE_NAME, search
from automix.files import write_bytes
from automix.operator_info import Operator
from automix.random_streams import Stream, derived_seed
from automix.schedule import Decision, Schedule, constant_schedule
from automix.training.trainer import load_search_data
from benchmarks.portfolio_runs import task_config
from envs.config import EnvironmentConfig

RACE_ALONE = "race alone"
PPO = "race, PPO"
SEARCHERS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        RACE_ALONE: {"searcher": "race"},
        "race, random search": {"searcher": "random_search"},
        "race, additive fit": {"searcher": "additive"},
        PPO: {"searcher": "ppo"},
        "race, PPO without imitation": {
            "searcher": "ppo",
            "agent": {"warm_start": None, "race_start": False},
        },
        "race, PPO without credit": {"searcher": "ppo", "agent": {"credit": False}},
    }
)
"""What differs from one search to the other, by name."""

OUTCOMES_NAME = "outcomes.jsonl"
LOOPS_NAME = "loops.jsonl"
# As in configs/search/digits.yaml.
_ENVIRONMENT = EnvironmentConfig(num_strengths=2, probabilities=(1.0,))
TEST_SEED = 4  # no other study has it


def search_config(task: CompareConfig, name: str, *, seed: int, runs: int) -> SearchConfig:
    """Return the search of a searcher."""
    values: dict[str, Any] = {
        "seed": seed,
        "runs": runs,
        "task": task.task.model_dump(mode="json"),
        "environment": _ENVIRONMENT.model_dump(mode="json"),
        # Its processes would compete with what else runs here.
        "compute": {"workers": 1, "population": task.compute.population},
    }
    changed = dict(SEARCHERS[name])
    # In this process: several would load the data as often.
    agent = {"workers": "in_process"} | changed.pop("agent", {})
    return SearchConfig.from_mapping(values | changed | {"agent": agent}, source=name)


def folder_of(folder: Path, name: str, seed: int) -> Path:
    """Return where the search of a searcher lies."""
    return folder / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"


def search_all(task: CompareConfig, folder: Path, *, seed: int, runs: int) -> None:
    """Run the searches of one seed that are not finished."""
    raced: Path | None = None
    for name in SEARCHERS:
        output = folder_of(folder, name, seed)
        # A race alone is another one, of more rounds.
        if name != RACE_ALONE and raced is not None and not output.exists():
            write_bytes(output / "race.jsonl", (raced / "race.jsonl").read_bytes())
        search(search_config(task, name, seed=seed, runs=runs), output)
        if name != RACE_ALONE:
            raced = raced or output


def found_schedules(folder: Path, name: str, seed: int) -> dict[str, Schedule]:
    """Return the winner of all stages before the final, and what the search wrote."""
    output = folder_of(folder, name, seed)
    result = finished_result(output)
    if result is None:
        return {}
    winner = Schedule.from_plain(result["final"][0]["schedule"])
    return {"winner": winner, "written": Schedule.load(output / SCHEDULE_NAME)}


def scoring_jobs(
    schedules: Sequence[Schedule], *, num_seeds: int, seed: int = TEST_SEED
) -> list[TrainingJob]:
    """Return the training runs that score schedules, seed by seed."""
    return [
        TrainingJob(
            schedule=schedule,
            seed=derived_seed(seed, Stream.COMPARISON, step=index),
            splits=("test",),
        )
        for index in range(num_seeds)
        for schedule in schedules
    ]


def references() -> dict[str, Schedule]:
    """Return what needs no search."""
    shipped = Schedule.portfolio()
    first = next(iter(shipped))
    return {
        "none": constant_schedule(Decision(operator=Operator.NONE)),
        f"recommended: {first}": shipped[first],
    }


def score_all(task: CompareConfig, folder: Path, *, seed: int, num_seeds: int) -> None:
    """Train what the searches of one seed found with the test seeds."""
    compute = ComputeConfig(workers=1, population=task.compute.population)
    schedules = list(references().values())
    for name in SEARCHERS:
        schedules += found_schedules(folder, name, seed).values()
    journal = Journal(folder / OUTCOMES_NAME)
    for schedule in schedules:
        # One by one: which runs form a population must not depend on what others found.
        jobs = scoring_jobs([schedule], num_seeds=num_seeds)
        train_all(jobs, task.task, compute, journal=journal, title=f"test of search {seed}")
    config = task.model_copy(update={"seed": TEST_SEED, "num_seeds": num_seeds})
    loops = PolicyLoops(folder_of(folder, PPO, seed), config, load_data(task.task.data))
    loops.train_all(
        ("test",), journal=Journal(folder / LOOPS_NAME), title=f"closed loop of search {seed}"
    )


def estimate(task: CompareConfig, *, num_searches: int, runs: int, num_seeds: int) -> str:
    """Return what the study will cost, measured on a few steps."""
    counts = [
        sum(count_runs(search_config(task, name, seed=0, runs=runs)).values()) for name in SEARCHERS
    ]
    shared = count_runs(search_config(task, PPO, seed=0, runs=runs))["race"]
    # Schedules are at most two for each search; the closed loop.
    scored = num_seeds * (2 * len(SEARCHERS) + 1)
    total = num_searches * (sum(counts) - shared * (len(SEARCHERS) - 2) + scored)
    cost = estimate_cost(
        task.task,
        load_search_data(task.task.data),
        operators=_ENVIRONMENT.operators,
        num_runs=total,
        evaluations_per_run=2 * (_ENVIRONMENT.num_segments + 1),
        compute=ComputeConfig(workers=1, population=task.compute.population),
    )
    return f"{total} training runs, {format_seconds(cost.seconds)} in one process"


def main() -> None:
    """Run the searches of a task and score them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help="file of configs/tasks/")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--path", type=Path, help="folder of the images")
    parser.add_argument("--search-seeds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--test-seeds", type=int, default=20)
    parser.add_argument("--estimate", action="store_true", help="say what it will cost")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    task = task_config(flags.config, images=flags.path)
    if flags.estimate:
        print(
            estimate(
                task,
                num_searches=flags.search_seeds,
                runs=flags.runs,
                num_seeds=flags.test_seeds,
            )
        )
        return
    folder = flags.folder / flags.config.stem
    folder.mkdir(parents=True, exist_ok=True)
    # Seed by seed: whatever was finished when it is stopped is a whole table.
    for seed in range(flags.search_seeds):
        search_all(task, folder, seed=seed, runs=flags.runs)
        score_all(task, folder, seed=seed, num_seeds=flags.test_seeds)


if __name__ == "__main__":
    main()
