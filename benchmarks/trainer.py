"""Images per second of `ClassifierTrainer` against a loop written by hand.

    python -m benchmarks.trainer --batch-size 64 --json trainer.json
    python -m benchmarks.trainer --only "no mixing" mixup cutmix --batch-size 128 --rounds 5
    python -m benchmarks.trainer --batch-size 1024 --precision bf16 --channels-last --compile

The loop by hand trains the same network with the same optimizer in the same precision on one batch
of float tensors that never changes; it mixes nothing, and knows neither epochs nor augmentation.
The trainer takes uint8 images, crops and flips them, normalizes, mixes, and counts. Rounds of all
rows are interleaved, and a row's ratio is the median over the rounds of its time over that of the
loop by hand in the same round.
"""

import dataclasses
import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import tyro

from automix.training.trainer import training_device
from benchmarks.measure import clock_for, keep_freed_memory, wait_for
from benchmarks.trainer_loops import (
    Options,
    Steps,
    all_cases,
    bare_loop,
    flops_per_step,
    matmul_rate,
    trainer_of,
)

BARE = "loop by hand"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        name: what was timed.
        multiple: its time over that of the loop by hand, median over the rounds.
        spread: half the distance between the quartiles of that.
        images_per_second: from its median time.
        matmul_fraction: its arithmetic without mixing and saliency, over that of matrix products.
        limit: largest multiple that we promise, if any.
    """

    name: str
    multiple: float
    spread: float
    images_per_second: float
    matmul_fraction: float
    limit: float | None


def main(options: Options) -> None:
    """Measure, print a table, and write the figures."""
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    device = training_device()
    chosen = {
        name: case for name, case in all_cases().items() if not options.only or name in options.only
    }
    calls: dict[str, Steps] = {BARE: bare_loop(options, device)}
    calls |= {name: trainer_of(case, options, device) for name, case in chosen.items()}
    periods = {name: case.period for name, case in chosen.items()}
    seconds = interleaved_seconds(calls, options, device, periods)
    flops, rate = flops_per_step(options, device), matmul_rate(options, device)
    rows = [
        row_of(name, seconds, options, limit=chosen[name].limit if name in chosen else None)
        for name in calls
    ]
    rows = [
        dataclasses.replace(
            row, matmul_fraction=flops / options.batch_size * row.images_per_second / rate
        )
        for row in rows
    ]
    print(
        f"{options.model.name}, batch {options.batch_size}, {options.size} x {options.size}, "
        f"{options.precision}, {options.threads} thread(s), {device}, torch {torch.__version__}; "
        f"{flops / options.batch_size / 1e9:.2f} GFLOP per image, "
        f"matrix products reach {rate / 1e9:.0f} GFLOP/s"
    )
    print_table(rows)
    if options.json is not None:
        figures = {
            "options": dataclasses.asdict(options) | {"model": options.model.model_dump()},
            "device": str(device),
            "torch": torch.__version__,
            "rows": [dataclasses.asdict(row) for row in rows],
        }
        text = json.dumps(figures, indent=1, default=str) + "\n"
        options.json.write_text(text, encoding="utf-8")


def interleaved_seconds(
    calls: Mapping[str, Steps],
    options: Options,
    device: torch.device,
    periods: Mapping[str, int],
) -> dict[str, list[float]]:
    """Time all rows in turn, round by round; the first round is for warming up."""
    clock = clock_for(device)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(options.rounds + 1):
        for name, steps in calls.items():
            count = options.steps * periods.get(name, 1)
            wait_for(device)
            started = clock()
            steps(count)
            wait_for(device)
            if number:
                seconds[name].append((clock() - started) / count)
    return seconds


def row_of(
    name: str, seconds: Mapping[str, list[float]], options: Options, *, limit: float | None
) -> Row:
    """Return the figures of one row; the fraction of matrix products is left to the caller."""
    ratios = [time / bare for time, bare in zip(seconds[name], seconds[BARE], strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (0.0, 0.0, 0.0)
    return Row(
        name=name,
        multiple=statistics.median(ratios),
        spread=(high - low) / 2,
        images_per_second=options.batch_size / statistics.median(seconds[name]),
        matmul_fraction=0.0,
        limit=limit,
    )


def print_table(rows: list[Row]) -> None:
    """Print one line for each row."""
    width = max(len(row.name) for row in rows)
    head = f"{'x by hand':>10}  {'+-':>6}  {'at most':>8}  {'images/s':>9}  {'of matmul':>9}"
    print(f"{'':{width}}  {head}")
    for row in rows:
        limit = "" if row.limit is None else f"{row.limit:g}"
        print(
            f"{row.name:{width}}  {row.multiple:10.3f}  {row.spread:6.3f}  {limit:>8}  "
            f"{row.images_per_second:9.1f}  {row.matmul_fraction:9.2f}"
        )


if __name__ == "__main__":
    main(tyro.cli(Options))
