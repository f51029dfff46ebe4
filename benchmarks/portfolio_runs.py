"""Training runs behind `benchmarks.portfolio`: schedules that begin alike share their beginning.

    python -m benchmarks.portfolio_runs configs/tasks/digits-20.yaml --seeds 20 --folder FOLDER \
        [--path IMAGES]

A run that mixes until 7/8 and one that mixes until 3/4 are one run until 3/4. It is trained once
and resumed from a copy of its state, with the bits of whole runs. Resumes where it was stopped.
"""

import argparse
import copy
import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from automix.experiments.common.run_folder import ProgressBar
from automix.experiments.common.run_logs import Journal
from automix.experiments.config import CompareConfig
from automix.mixture import Mixture
from automix.random_streams import Stream, derived_seed
from automix.schedule import Schedule
from automix.training.metrics import RunningSums
from automix.training.trainer import ClassifierTrainer, build_trainer, load_search_data
from benchmarks.portfolio_candidates import every_schedule

# Seeds of the training runs that choose. Comparisons have 1000, so what is claimed is not chosen.
CHOOSING_SEED = 1
JOURNAL_NAME = "outcomes.jsonl"


def train_sharing(
    trainer: ClassifierTrainer,
    schedules: Mapping[str, Schedule],
    *,
    seed: int,
    finished: Callable[[str], None],
) -> int:
    """Train with every schedule and one seed; return the number of steps that it took.

    Args:
        trainer: has the trained weights whenever ``finished`` is called.
        schedules: by name.
        seed: of the initialization, the order of the images and all draws.
        finished: called with the name of each schedule.
    """
    trainer.reset(seed)
    plans = {name: it.mixtures(trainer.total_steps) for name, it in schedules.items()}
    return _branch(trainer, plans, finished)


def _branch(
    trainer: ClassifierTrainer,
    plans: Mapping[str, list[Mixture]],
    finished: Callable[[str], None],
) -> int:
    """Train on with plans that are equal up to where ``trainer`` is."""
    first = next(iter(plans.values()))
    num_steps = 0
    while trainer.step < trainer.total_steps:
        groups: dict[str, list[str]] = {}
        for name, plan in plans.items():
            groups.setdefault(plan[trainer.step].model_dump_json(), []).append(name)
        if len(groups) > 1:
            state = copy.deepcopy(trainer.state_dict())
            for names in groups.values():
                trainer.load_state_dict(copy.deepcopy(state))
                num_steps += _branch(trainer, {name: plans[name] for name in names}, finished)
            return num_steps
        # Nobody reads the training loss.
        trainer.train(first[trainer.step], num_steps=1, sums=RunningSums(trainer.device))
        num_steps += 1
    for name in plans:
        finished(name)
    return num_steps


def train_task(
    config: CompareConfig, schedules: Mapping[str, Schedule], *, num_seeds: int, folder: Path
) -> None:
    """Append the outcomes of a task to the journal in ``folder``, seed by seed."""
    data = load_search_data(config.task.data)
    trainer = build_trainer(config.task, data, seed=0)
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder / JOURNAL_NAME)
    with ProgressBar(folder.name, num_seeds * len(schedules)) as bar:
        for index in range(num_seeds):
            missing = {
                name: schedule
                for name, schedule in schedules.items()
                if journal.get(f"{index}/{name}") is None
            }
            bar.skip(len(schedules) - len(missing))
            if not missing:
                continue
            started = time.process_time()

            def record(name: str, index: int = index, started: float = started) -> None:
                metrics = trainer.evaluate(data.selection)
                outcome = dataclasses.asdict(metrics) | {
                    "hash": schedules[name].decision_hash(),
                    "diverged": math.isnan(metrics.nll),
                    "processor_seconds": time.process_time() - started,
                }
                journal.add(f"{index}/{name}", outcome)
                bar.advance()

            seed = derived_seed(CHOOSING_SEED, Stream.COMPARISON, step=index)
            train_sharing(trainer, missing, seed=seed, finished=record)


def task_config(file: Path, *, images: Path | None) -> CompareConfig:
    """Return a file of configs/tasks/, whose images lie in ``images`` if that is given."""
    config = CompareConfig.from_yaml(file)
    if images is None:
        return config
    source = config.task.data.model_copy(update={"path": images})
    task = config.task.model_copy(update={"data": source})
    return config.model_copy(update={"task": task})


def main() -> None:
    """Train a task's schedules."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help="file of configs/tasks/")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--path", type=Path, help="folder of the images")
    parser.add_argument("--schedules", nargs="*", default=[], help="names; default: all")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    config = task_config(flags.config, images=flags.path)
    schedules = every_schedule(flags.schedules)
    train_task(config, schedules, num_seeds=flags.seeds, folder=flags.folder)


if __name__ == "__main__":
    main()
