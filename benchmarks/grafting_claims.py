"""The claims of Saliency Grafting on photographs: corruption, occlusion, scarcity of labels.

    python -m benchmarks.grafting_claims IMAGES --folder FOLDER --num-seeds 10

Its paper claims that sampled saliency serves robustness and small datasets. Each schedule is
replayed with each number of labels per class, and the runs with ``--evaluated`` labels are
evaluated under corruptions and occlusion. Saliency is the gradient of the network. Finished parts
are not run again.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from automix.configuration.task import ReplayConfig, SaliencyConfig
from automix.evaluation.statistics import paired_difference
from automix.experiments.compare.schedule_specs import build_schedule
from automix.experiments.config import CompareConfig
from automix.experiments.evaluate.config import EvaluateConfig, EvaluationTask
from automix.experiments.evaluate.run import evaluate
from automix.experiments.replay.deciders import ScheduleSource
from automix.experiments.replay.run import replay
from envs.config import EnvironmentConfig

_TASK = Path(__file__).parents[1] / "configs" / "tasks" / "cifar10-16px-50.yaml"
# The first is what the others are compared with.
SCHEDULES = {
    "Saliency Grafting 0.2": "constant:saliency_grafting:0.2",
    "Saliency Grafting 0.5": "constant:saliency_grafting:0.5",
    "Bernoulli Grafting 1": "constant:bernoulli_grafting:1",
    "CutMix 1": "constant:cutmix:1",
    "Mixup 1": "constant:mixup:1",
    "SaliencyMix 1": "constant:saliencymix:1",
    "recommended": "portfolio:mixup-resizemix-off75",
    "none": "none",
}

Json = Mapping[str, Any]

# Each is better where it is larger.
MEASURES: Mapping[str, Callable[[Json], float]] = {
    "accuracy": lambda result: result["classification"]["top1"],
    "corrupted": lambda result: 1 - result["corruptions"]["unnormalized_mean_corruption_error"],
    "half hidden": lambda result: half(result["patch_occlusion"]),
    "salient half hidden": lambda result: half(result["object_occlusion"]),
}


def half(curve: Json) -> float:
    """Return the accuracy with half of the image hidden."""
    accuracy: float = curve["accuracies"][curve["fractions"].index(0.5)]
    return accuracy


def replayed(text: str, folder: Path, *, images: Path, labels: int, seed: int) -> Json:
    """Return the result of a replay on ``labels`` per class; a finished one is read."""
    task = CompareConfig.from_yaml(_TASK).task
    data = task.data.model_copy(
        update={"path": images, "labels_per_class": labels, "reward_size": 0}
    )
    # As many steps as with the labels of the file.
    epochs = max(1, round(task.trainer.epochs * 50 / labels))
    trainer = task.trainer.model_copy(update={"epochs": epochs})
    task = task.model_copy(update={"data": data, "trainer": trainer, "saliency": SaliencyConfig()})
    schedule = build_schedule(text, EnvironmentConfig(), seed=seed)
    return replay(ReplayConfig(seed=seed, task=task), ScheduleSource(schedule), folder)


def evaluated(run: Path, *, images: int) -> Json:
    """Return the result of an evaluation under corruptions and occlusion."""
    tasks = (
        EvaluationTask.CLASSIFICATION,
        EvaluationTask.CORRUPTIONS,
        EvaluationTask.PATCH_OCCLUSION,
        EvaluationTask.OBJECT_OCCLUSION,
    )
    return evaluate(EvaluateConfig(tasks=tasks, images=images), run, run / "evaluation")


def table(values: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    """Return rows: the mean of each column, and the paired difference to the first row."""
    columns = list(next(iter(values.values())))
    lines = [f"| schedule | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    reference = next(iter(values.values()))
    for name, row in values.items():
        cells = []
        for column in columns:
            mean = sum(row[column]) / len(row[column])
            cell = f"{mean:.2%}"
            if row is not reference and len(row[column]) > 1:
                gain = paired_difference(row[column], reference[column], seed=0)
                cell += f" ({100 * gain.estimate:+.2f} "
                cell += f"[{100 * gain.low:+.2f}, {100 * gain.high:+.2f}])"
            cells.append(cell)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Run what is missing, and print the table after each seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--num-seeds", type=int, default=10)
    parser.add_argument("--labels", type=int, nargs="+", default=(10, 20, 50, 100))
    parser.add_argument("--evaluated", type=int, default=50)
    parser.add_argument("--num-images", type=int, default=500)
    options = parser.parse_args()
    torch.set_num_threads(1)
    values: dict[str, dict[str, list[float]]] = {name: {} for name in SCHEDULES}
    for seed in range(options.num_seeds):
        for name, text in SCHEDULES.items():
            for labels in options.labels:
                run = options.folder / f"{text.replace(':', '-')}-{labels}-{seed}"
                result = replayed(text, run, images=options.images, labels=labels, seed=seed)
                row = values[name]
                row.setdefault(f"{labels} labels", []).append(result["test"]["accuracy"])
                if labels == options.evaluated:
                    scores = evaluated(run, images=options.num_images)
                    for measure, read in MEASURES.items():
                        row.setdefault(measure, []).append(read(scores))
        print(f"{seed + 1} seeds", *table(values), sep="\n", flush=True)


if __name__ == "__main__":
    main()
