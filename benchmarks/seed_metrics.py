"""Bias on colored digits, and saliency checks on plain ones, over seeds: rows for docs/results.md.

    python -m benchmarks.seed_metrics colored --num-seeds 20
    python -m benchmarks.seed_metrics saliency --num-seeds 10

Colored: a digit of the training split has the color of its class, but with probability
``--conflicts`` that of another, as in Colored MNIST (https://arxiv.org/abs/1907.02893). Test digits
are shown twice: in
the color of their class (aligned), and in that of another (conflicting). What a network reads off
the color it loses on the latter.

Shape suffixes: N images, C channels, H rows, W columns, P cells.
"""

import argparse
import colorsys
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from automix.configuration.data import Normalization
from automix.data.load import load_data
from automix.data.splits import Dataset, SearchData, Split, channel_statistics
from automix.evaluation.attribution import RemovalCurves, map_agreement, removal_curves
from automix.evaluation.classifier import macro_std
from automix.evaluation.inference import EvaluationImages
from automix.evaluation.statistics import Interval, paired_difference, student_interval
from automix.experiments.compare.schedule_specs import build_schedule
from automix.experiments.config import CompareConfig
from automix.operators.sampling import pool_cells
from automix.random_streams import Stream, stream_generator
from automix.saliency.gradient import input_gradient, reduced_gradient
from automix.saliency.sources import SaliencySource, spectral_residual
from automix.schedule import Schedule
from automix.training.population import Population, group_sizes
from automix.training.trainer import ClassifierTrainer, build_trainer
from envs.config import EnvironmentConfig

_TASK = Path(__file__).parents[1] / "configs" / "tasks" / "digits-20.yaml"
_AT_ONCE = 8
_SCHEDULES = (
    "none",
    "constant:mixup:1",
    "constant:cutmix:1",
    "constant:manifold_mixup:2",
    "constant:saliency_grafting:0.2",
    "recommended",
)
_SOURCES: dict[str, SaliencySource] = {
    "input_gradient": input_gradient,
    "reduced_gradient": reduced_gradient,
    "spectral_residual": lambda model, images, targets: spectral_residual(images),
}
_GRID = 4


def colored(split: Split, colors_N: Tensor) -> Split:
    """Return gray images in one of 10 hues, by number: (N, 3, H, W) uint8."""
    hues = torch.tensor([colorsys.hsv_to_rgb(number / 10, 1, 1) for number in range(10)])
    pixels = split.images.float() * hues[colors_N][:, :, None, None]
    return dataclasses.replace(split, images=pixels.round().to(torch.uint8))


def other_colors(labels_N: Tensor, generator: torch.Generator) -> Tensor:
    """Return for each image the number of a class that is not its own."""
    return (labels_N + torch.randint(1, 10, labels_N.shape, generator=generator)) % 10


def biased(data: SearchData, *, conflicts: float, seed: int) -> SearchData:
    """Return the data with training images in the color of their class, but for ``conflicts``."""
    train = data.train
    assert isinstance(train, Split)
    generator = stream_generator(seed, Stream.CORRUPTION)
    other_N = other_colors(train.labels, generator)
    is_other_N = torch.rand(len(train), generator=generator) < conflicts
    images = colored(train, torch.where(is_other_N, other_N, train.labels))
    return dataclasses.replace(
        data,
        train=images,
        reward=colored(data.reward, data.reward.labels),
        selection=colored(data.selection, data.selection.labels),
        statistics=channel_statistics(images, Normalization.TRAIN),
    )


def trained(
    config: CompareConfig, datas: Sequence[SearchData], schedule: Schedule
) -> list[ClassifierTrainer]:
    """Train one run on each of ``datas``, seeds from 0."""
    runs: list[ClassifierTrainer] = []
    for size in group_sizes(len(datas), _AT_ONCE):
        first = len(runs)
        group = [
            build_trainer(config.task, datas[seed], seed=seed)
            for seed in range(first, first + size)
        ]
        Population(group).replay([schedule] * size)
        runs += group
    return runs


def measure_colored(config: CompareConfig, data: Dataset, options: argparse.Namespace) -> None:
    """Print accuracy on aligned and conflicting images, and MacroStd between the two."""
    datas = [
        biased(data.seen, conflicts=options.conflicts, seed=seed)
        for seed in range(options.num_seeds)
    ]
    test = data.test
    other_N = other_colors(test.labels, stream_generator(0, Stream.EVALUATION))
    shown = colored(test, test.labels), colored(test, other_N)
    labels_N = torch.cat([test.labels] * 2)
    groups_N = torch.arange(2).repeat_interleave(len(test))
    reference: list[float] | None = None
    print("| schedule | aligned | conflicting | conflicting, against none | MacroStd |")
    print("|---|---:|---:|---:|---:|")
    for text in options.schedules:
        logits = [run.logits(*shown).cpu() for run in trained(config, datas, _schedule(text))]
        hits = [
            (rows.argmax(dim=1) == labels_N).double().view(2, -1).mean(dim=1) for rows in logits
        ]
        aligned, conflicting = torch.stack(hits).T.tolist()
        spread = [macro_std(rows, labels_N, groups=groups_N, num_groups=2) for rows in logits]
        reference = conflicting if reference is None else reference
        gain = paired_difference(conflicting, reference, seed=0)
        cells = [_text(_mean(values)) for values in (aligned, conflicting)]
        print(
            f"| {text} | {' | '.join(cells)} | {_text(gain)} | {_text(_mean(spread))} |", flush=True
        )


def measure_saliency(config: CompareConfig, data: Dataset, options: argparse.Namespace) -> None:
    """Print removal margins by saliency source, and the agreement of maps between seeds."""
    names = "salient half", "random half", "margin", "rank correlation", "common top quarter"
    print(f"| schedule | source | {' | '.join(names)} |")
    print("|---|---|" + "---:|" * len(names))
    for text in options.schedules:
        runs = trained(config, [data.seen] * options.num_seeds, _schedule(text))
        for name, source in _SOURCES.items():
            curves = [removal(run, source, data) for run in runs]
            half = curves[0].fractions.index(0.5)
            row = [
                _mean([curve.salient[half] for curve in curves]),
                _mean([curve.random[half] for curve in curves]),
                _mean([curve.margin for curve in curves]),
            ]
            cells = [cells_of(run, source, data.test) for run in runs]
            # Of disjoint pairs of seeds, so that the values are independent.
            pairs = [map_agreement(*pair) for pair in zip(cells[::2], cells[1::2], strict=False)]
            row.append(_mean([pair.rank_correlation for pair in pairs]))
            row.append(_mean([pair.top_quarter for pair in pairs]))
            print(f"| {text} | {name} | {' | '.join(map(_text, row))} |", flush=True)


def removal(run: ClassifierTrainer, source: SaliencySource, data: Dataset) -> RemovalCurves:
    """Return the accuracy of a run while cells of the test images are removed."""
    model = run.evaluated_model.eval()
    return removal_curves(
        lambda images: model(run.prepared(images)),
        lambda batch: source(model, run.prepared(batch.images), batch.labels),
        EvaluationImages.whole(data.test.images, data.test.labels),
        patch_size=-(-min(data.test.image_shape[1:]) // _GRID),
        fill=data.statistics.mean,
        seed=0,
    )


def cells_of(run: ClassifierTrainer, source: SaliencySource, split: Split) -> Tensor:
    """Return the maps of a split, as cells: (N, P)."""
    maps_NHW = source(run.evaluated_model.eval(), run.prepared(split.images), split.labels)
    return pool_cells(maps_NHW, _GRID).flatten(1)


def _schedule(text: str) -> Schedule:
    if text == "recommended":
        return Schedule.recommended()
    return build_schedule(text, EnvironmentConfig(), seed=0)


def _mean(values: Sequence[float]) -> Interval:
    return student_interval(
        torch.tensor(values, dtype=torch.float64)[:, None].numpy(), confidence=0.95
    )


def _text(interval: Interval) -> str:
    return f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("colored", "saliency"))
    parser.add_argument("--num-seeds", type=int, default=20)
    parser.add_argument("--conflicts", type=float, default=0.05)
    parser.add_argument("--schedules", nargs="+", default=_SCHEDULES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = CompareConfig.from_yaml(_TASK)
    measure = measure_colored if options.part == "colored" else measure_saliency
    measure(config, load_data(config.task.data), options)


if __name__ == "__main__":
    main()
