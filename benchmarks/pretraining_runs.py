"""Training runs behind `benchmarks.pretraining`: what other tasks teach about one.

    python -m benchmarks.pretraining_runs left-out digits --folder FOLDER \
        --sources digits hands=IMAGES cifar10=IMAGES [--episodes 4096]
    python -m benchmarks.pretraining_runs budget digits --folder FOLDER --sources ...
    python -m benchmarks.pretraining_runs races configs/tasks/digits-20.yaml --folder FOLDER \
        [--path IMAGES] [--pretrained default]

``left-out`` pretrains without a source and lets the policy decide in four tasks of it, beside the
prior, the schedule that ships first, the constants and no mixing. ``budget`` races in one of these
tasks with 16 to 256 training runs, with and without what was pretrained. ``races`` does so with 64
runs in a development task. Everything is scored on test images with seeds that nothing else has.
Resumes where it was stopped.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from agents.outcomes import OutcomeTable
from agents.prior import Prior
from automix.configuration.task import ComputeConfig
from automix.data.load import load_data
from automix.experiments.common.run_folder import finished_result
from automix.experiments.common.run_logs import Journal
from automix.experiments.common.training_pool import train_all
from automix.experiments.compare.policies import PolicyLoops
from automix.experiments.compare.schedule_specs import build_schedule
from automix.experiments.config import CompareConfig, PretrainConfig, SearchConfig
from automix.experiments.pretrain.run import pretrain
from automix.experiments.replay.policy import policy_folder
from automix.experiments.search.run import SCHEDULE_NAME, search
from automix.files import write_json
from automix.schedule import Schedule
from automix.training.trainer import load_search_data
from benchmarks.fair_fight_runs import references, scoring_jobs
from benchmarks.portfolio_runs import task_config
from envs.config import EnvironmentConfig
from envs.observations import TaskFacts

NAMES_NAME = "schedules.json"
"""Schedules that were scored, by name."""

OUTCOMES_NAME = "outcomes.jsonl"
LOOPS_NAME = "loops.jsonl"
CONSTANTS = (
    "mixup:0.2",
    "mixup:1",
    "mixup:2",
    "cutmix:0.2",
    "cutmix:1",
    "resizemix:0.8",
    "saliency_grafting:0.2",
    "saliency_grafting:0.5",
)
POLICY = "policy"
PRIOR = "prior"
BUDGETS = (16, 32, 64, 128, 256)
SEARCH_SEEDS = 3
TEST_SEEDS = 20
TEST_SEED = 5  # no other study has it
_CONFIGS = Path(__file__).parents[1] / "configs"
_FILES = {"digits": "digits-20", "hands": "sign-digits-20", "cifar10": "cifar10-16px-50"}
# Labels per class, pixels (the digits have 8), width and epochs: 120 to 200 steps.
_SIZES = ((10, 12, 8, 60), (20, 16, 8, 40), (40, 12, 12, 25), (20, 10, 6, 50))


def tasks_of(source: str, images: Path | None) -> Iterator[tuple[str, CompareConfig]]:
    """Yield four tasks of a source, with their names."""
    base = task_config(_CONFIGS / "tasks" / f"{_FILES[source]}.yaml", images=images)
    for labels, side, width, epochs in _SIZES:
        values = base.model_dump(mode="json")
        values["task"]["data"] |= {"labels_per_class": labels}
        if source != "digits":
            values["task"]["data"] |= {"image_size": side, "test_size": 100, "reward_size": 40}
        values["task"]["model"] |= {"width": width}
        values["task"]["trainer"] |= {"epochs": epochs}
        values["compute"] |= {"population": 8}
        yield f"{source}-{labels}-{width}", CompareConfig.from_mapping(values, source=source)


def pretrained_without(source: str, sources: Sequence[str], folder: Path, *, episodes: int) -> Path:
    """Pretrain on the other sources, and return the folder of the policy."""
    config = PretrainConfig.from_yaml(_CONFIGS / "pretrain" / "default.yaml")
    values = config.model_dump(mode="json")
    others = {one.partition("=")[0]: one for one in sources if one.partition("=")[0] != source}
    values["family"]["sources"] = list(others.values())
    values["family"]["flipped"] = [one for one in config.family.flipped if one in others]
    values["agent"]["episodes"] = episodes
    # The tasks of the source itself are the validation.
    values["validation_tasks"] = 0
    output = folder / f"without-{source}"
    pretrain(PretrainConfig.from_mapping(values, source="left-out"), output)
    return output


def score(
    task: CompareConfig,
    folder: Path,
    schedules: Mapping[str, Schedule],
    policies: Mapping[str, Path],
) -> None:
    """Train what is not trained yet, with the test seeds."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / NAMES_NAME, {name: one.to_plain() for name, one in schedules.items()})
    compute = ComputeConfig(workers=1, population=task.compute.population)
    journal = Journal(folder / OUTCOMES_NAME)
    for name, schedule in schedules.items():
        # One by one: which runs form a population must not depend on the others.
        jobs = scoring_jobs([schedule], num_seeds=TEST_SEEDS, seed=TEST_SEED)
        train_all(jobs, task.task, compute, journal=journal, title=f"test of {name}")
    config = task.model_copy(update={"seed": TEST_SEED, "num_seeds": TEST_SEEDS})
    for name, policy in policies.items():
        loops = PolicyLoops(policy, config, load_data(task.task.data))
        loops.train_all(("test",), journal=Journal(folder / LOOPS_NAME), title=f"test of {name}")


def rivals(task: CompareConfig, pretrained: Path) -> dict[str, Schedule]:
    """Return what costs no training run in the task: the prior, what ships first, constants."""
    table = OutcomeTable.load(pretrained)
    prior = Prior.of(table, TaskFacts.of(task.task, load_search_data(task.task.data)))
    constants = {
        one: build_schedule(f"constant:{one}", EnvironmentConfig(), seed=0) for one in CONSTANTS
    }
    return references() | {PRIOR: prior.best_schedule()} | constants


def raced(
    task: CompareConfig, folder: Path, *, seed: int, runs: int, pretrained: Path | str | None
) -> Schedule:
    """Return what a search with a budget writes."""
    values: dict[str, Any] = {
        "seed": seed,
        "runs": runs,
        "task": task.task.model_dump(mode="json"),
        "pretrained": None if pretrained is None else str(pretrained),
        "agent": {"workers": "in_process"},
        "compute": {"workers": 1, "population": task.compute.population},
    }
    output = folder / f"{'with' if pretrained else 'without'}-{runs}-{seed}"
    if finished_result(output) is None:
        search(SearchConfig.from_mapping(values, source="races"), output)
    return Schedule.load(output / SCHEDULE_NAME)


def races(
    task: CompareConfig, folder: Path, pretrained: Path | str, budgets: Sequence[int]
) -> dict[str, Schedule]:
    """Return what searches with and without other tasks write, for each budget and seed."""
    return {
        f"{name}, {runs} runs, search {seed}": raced(
            task, folder, seed=seed, runs=runs, pretrained=used
        )
        for runs in budgets
        for seed in range(SEARCH_SEEDS)
        for name, used in (("with", pretrained), ("without", None))
    }


def main() -> None:
    """Run a study, or what is missing of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=("left-out", "budget", "races"))
    parser.add_argument("name", help="source that is left out, or file of configs/tasks/")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--sources", nargs="+", default=("digits",))
    parser.add_argument("--episodes", type=int, default=4096)
    parser.add_argument("--budgets", type=int, nargs="+", default=BUDGETS)
    parser.add_argument("--path", type=Path, help="folder of the images of a development task")
    parser.add_argument("--pretrained", default="default")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    if flags.study == "races":
        task = task_config(Path(flags.name), images=flags.path)
        folder = flags.folder / "races" / Path(flags.name).stem
        written = races(task, folder, flags.pretrained, (64,))
        score(task, folder, references() | written, {POLICY: policy_folder(Path(flags.pretrained))})
        return
    images = dict(one.partition("=")[::2] for one in flags.sources).get(flags.name)
    policy = pretrained_without(flags.name, flags.sources, flags.folder, episodes=flags.episodes)
    every = tasks_of(flags.name, Path(images) if images else None)
    for name, task in every:
        folder = flags.folder / flags.study / name
        if flags.study == "left-out":
            score(task, folder, rivals(task, policy), {POLICY: policy})
            continue
        score(task, folder, references() | races(task, folder, policy, flags.budgets), {})
        # In the first task alone: a curve costs 3,000 training runs.
        break


if __name__ == "__main__":
    main()
