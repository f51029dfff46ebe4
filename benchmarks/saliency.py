"""Cost of every saliency source as a fraction of a training step, and what its maps are worth.

    python -m benchmarks.saliency --data photographs --json saliency.json
    python -m benchmarks.saliency --data photographs --train-steps 2000 --state network.pt

Agreement is the overlap of the top quarter of cells with those of the input gradient; unrelated
maps agree to 0.25. The network is trained for a while first; maps grow old
while it is trained on with Mixup. Without a folder of
photographs (train/CLASS/*, test/CLASS/*) it is trained on the 8x8 digits.
"""

import dataclasses
import functools
import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
import tyro

from automix.configuration.data import AugmentConfig, DataConfig, DataSource
from automix.configuration.task import ModelConfig, SaliencyConfig
from automix.data.batches import BatchPreparer
from automix.data.load import load_data
from automix.models.build import build_model
from automix.operator_info import SaliencyKind, Statistics
from automix.saliency.gradient import input_gradient, layer_gradient, reduced_gradient
from automix.saliency.sources import SaliencySource, build_source
from benchmarks.measure import Call, median_seconds
from benchmarks.saliency_agreement import (
    GRIDS,
    Agreement,
    Training,
    agreement_of_held_maps,
    agreement_of_old_maps,
    agreement_of_sources,
    generator_of,
)

STEP = "plain training step"
_HOLDS = (2, 4, 8)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Cost of every saliency source as a fraction of a training step, and its agreement."""

    data: Path | None = None
    """Folder of photographs, train/CLASS/* and test/CLASS/*; the digits if none is given."""
    images_per_class: int = 300
    """Training images kept per class."""
    model: ModelConfig = field(default_factory=lambda: ModelConfig(name="preact_resnet18"))
    """The network."""
    batch_size: int = 128
    """Images per step."""
    threads: int = 1
    """Threads of torch."""
    rounds: int = 7
    """Times each function is timed; the median counts."""
    train_steps: int = 100
    """Steps before the agreement is measured."""
    learning_rate: float = 0.05
    """Learning rate at first; it falls linearly to a twentieth."""
    ageing_rate: float = 0.01
    """Learning rate while maps grow old."""
    state: Path | None = None
    """File that the network is read from, if there is one, and kept in every 50 steps: an
    interrupted run resumes from there."""
    num_batches: int = 4
    """Batches that the agreement is averaged over."""
    ages: tuple[int, ...] = (4, 16, 64)
    """Steps on other images after which a batch's maps are compared again."""
    layers: tuple[str, ...] = ("stage1", "stage2", "stage3")
    """Layers of the layer gradient."""
    json: Path | None = None
    """File for the figures."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        name: of the source.
        step_fraction: its time over that of a training step; None where it is not a source to time.
        agreement: with the input gradient, per side of the grid.
    """

    name: str
    step_fraction: float | None
    agreement: tuple[float, ...]


def main(options: Options) -> None:
    """Measure, print, and write the figures."""
    torch.set_num_threads(options.threads)
    training, test_accuracy = trained(options)
    print(f"{options.model.name}, accuracy {test_accuracy:.2f}, torch {torch.__version__}")
    sources = all_sources(options.layers)
    rows = cost_and_agreement(training, sources, options)
    print(table(rows))
    if options.json:
        figures = {
            "options": dataclasses.asdict(options) | {"model": options.model.model_dump()},
            "torch": torch.__version__,
            "test_accuracy": test_accuracy,
            "grids": GRIDS,
            "rows": [dataclasses.asdict(row) for row in rows],
        }
        options.json.write_text(json.dumps(figures, indent=2, default=str) + "\n")


def trained(options: Options) -> tuple[Training, float]:
    """Return a training run after its first steps, and the accuracy reached on the test images."""
    if options.data is None:
        data_config = DataConfig()
    else:
        data_config = DataConfig(
            source=DataSource.FOLDER,
            path=options.data,
            labels_per_class=options.images_per_class,
            reward_size=0,
            selection_size=0,
            augment=AugmentConfig(crop_padding=4, horizontal_flip=True),
        )
    data = load_data(data_config)
    model = build_model(
        options.model,
        num_classes=data.num_classes,
        channels=data.train.image_shape[0],
        generator=generator_of(0),
    )
    training = Training(
        model,
        data.train.subset(torch.arange(len(data.train))),
        BatchPreparer(data.statistics, data_config.augment),
        batch_size=options.batch_size,
    )
    if options.state is not None and options.state.exists():
        training.load(options.state)
    while training.num_steps < options.train_steps:
        training.rate = options.learning_rate * max(
            0.05, 1 - training.num_steps / options.train_steps
        )
        training.step(training.next_batch(), mixes=False)
        is_last = training.num_steps == options.train_steps
        if options.state is not None and (is_last or training.num_steps % 50 == 0):
            training.save(options.state)
            print(f"{training.num_steps} of {options.train_steps} steps", flush=True)
    training.rate = options.ageing_rate
    return training, training.accuracy(data.test)


def all_sources(layers: tuple[str, ...]) -> dict[str, SaliencySource]:
    """Return every source by the name it has in the table."""
    sources: dict[str, SaliencySource] = {
        "input_gradient": input_gradient,
        "input_gradient, running statistics": functools.partial(
            input_gradient, statistics=Statistics.RUNNING
        ),
    }
    for layer in layers:
        sources[f"layer_gradient, {layer}"] = functools.partial(layer_gradient, layer=layer)
    for scale in (0.75, 0.5):
        name = f"reduced_gradient, scale {scale}"
        sources[name] = functools.partial(reduced_gradient, scale=scale)
    spectral = build_source(SaliencyConfig(source=SaliencyKind.SPECTRAL_RESIDUAL))
    return sources | {"spectral_residual": spectral}


def cost_and_agreement(
    training: Training, sources: Mapping[str, SaliencySource], options: Options
) -> list[Row]:
    """Measure all sources, then maps that are held or grow old."""
    fractions = step_fractions(training, sources, options.rounds)
    fresh = agreement_of_sources(training, sources, num_batches=options.num_batches)
    rows = [
        Row(name=name, step_fraction=fractions[name], agreement=fresh[name].by_grid)
        for name in sources
    ]
    held = agreement_of_held_maps(training, num_steps=max(_HOLDS), num_batches=options.num_batches)
    for steps in _HOLDS:
        rows.append(
            Row(
                name=f"input_gradient, refreshed every {steps} steps",
                step_fraction=fractions["input_gradient"] / steps,
                agreement=_mean_over_ages(held[:steps]),
            )
        )
    old = agreement_of_old_maps(training, ages=options.ages)
    rows += [
        Row(
            name=f"map after {age} steps on other images",
            step_fraction=None,
            agreement=value.by_grid,
        )
        for age, value in old.items()
    ]
    return rows


def step_fractions(
    training: Training, sources: Mapping[str, SaliencySource], rounds: int
) -> dict[str, float]:
    """Return each source's time over that of a training step without mixing."""
    batch = training.next_batch()
    calls: dict[str, Call] = {STEP: partial(training.step, batch, mixes=False)}
    for name, source in sources.items():
        calls[name] = partial(source, training.model, *batch)
    seconds = median_seconds(calls, rounds=rounds, device=batch[0].device)
    return {name: value / seconds[STEP] for name, value in seconds.items()}


def _mean_over_ages(agreements: list[Agreement]) -> tuple[float, ...]:
    columns = zip(*(value.by_grid for value in agreements), strict=True)
    return tuple(statistics.fmean(column) for column in columns)


def table(rows: list[Row]) -> str:
    """Return the rows as text."""
    head = f"{'source':44} {'fraction of a step':>18}"
    lines = [head + "".join(f"{f'{grid}x{grid} cells':>12}" for grid in GRIDS)]
    for row in rows:
        fraction = "" if row.step_fraction is None else f"{row.step_fraction:.3f}"
        figures = "".join(f"{value:12.2f}" for value in row.agreement)
        lines.append(f"{row.name:44} {fraction:>18}{figures}")
    return "\n".join(lines)


if __name__ == "__main__":
    main(tyro.cli(Options))
