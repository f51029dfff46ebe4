"""Time and peak memory of every operator, as multiples of one blend of the batch.

    python -m benchmarks.operators --threads 1 --batches 128 256 --json operators.json
    python -m benchmarks.operators --against my_package.mixing:my_cutmix

The floor is ``torch.lerp(x, x[perm], 0.3)``. Our rows include the draws and the targets; the
saliency map is given. Memory is the largest extra amount in use during a call, in batches.
"""

import json
import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
import tyro

from benchmarks.contenders import (
    NUM_CLASSES,
    PAIRING,
    PAIRING_LIMIT,
    all_variants,
    floor,
    named_function,
    neighbors,
    our_call,
    pairing_call,
)
from benchmarks.inputs import Batch, cell_contrast, synthetic_batch
from benchmarks.measure import Call, keep_freed_memory, median_seconds, peak_bytes

FLOOR = "floor: lerp(x, x[perm])"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Time and peak memory of every operator, as multiples of one blend of the batch."""

    threads: int = 1
    """Threads of torch."""
    batches: tuple[int, ...] = (128, 256)
    """Batch sizes."""
    size: tuple[int, int] = (32, 32)
    """Rows and columns of an image."""
    channels: int = 3
    """Channels of an image."""
    rounds: int = 41
    """Times each function is run; the median counts."""
    only: tuple[str, ...] = ()
    """Our rows to time, by name; all if none is given."""
    ours_only: bool = False
    """Leave torchvision and timm out."""
    against: tuple[str, ...] = ()
    """Other functions to time, as module:function; called with images and integer targets."""
    device: str = "cpu"
    """Device of the batch."""
    json: Path | None = None
    """File for the figures."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        name: what was timed.
        batch: batch size.
        milliseconds: median time.
        multiple: that time over the floor's.
        limit: the multiple we promise, if any.
        memory: peak extra memory over the size of the batch.
    """

    name: str
    batch: int
    milliseconds: float
    multiple: float
    limit: float | None
    memory: float


def main(options: Options) -> None:
    """Measure, print a table, and write the figures."""
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    rows: list[Row] = []
    for count in options.batches:
        generator = torch.Generator(device=device).manual_seed(0)
        shape = (count, options.channels, *options.size)
        batch = synthetic_batch(shape, num_classes=NUM_CLASSES, generator=generator)
        contrast = [round(cell_contrast(batch.saliency, grid), 2) for grid in (4, 8)]
        print(
            f"\nbatch {count}, {options.channels} x {options.size[0]} x {options.size[1]}, "
            f"{options.threads} thread(s), {device}; coefficient of variation of the saliency "
            f"cells {contrast[0]} (4 x 4) and {contrast[1]} (8 x 8)\n"
        )
        measured = measure(batch, options, generator)
        print_table(measured)
        rows += measured
    if options.json is not None:
        facts = {"torch": torch.__version__, "options": asdict(options) | {"json": None}}
        figures = facts | {"rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def measure(batch: Batch, options: Options, generator: torch.Generator) -> list[Row]:
    """Return a row for each function, the floor first."""
    calls, limits = contenders(batch, options, generator)
    device = batch.images.device
    seconds = median_seconds(calls, rounds=options.rounds, device=device)
    batch_bytes = batch.images.numel() * batch.images.element_size()
    return [
        Row(
            name=name,
            batch=len(batch.images),
            milliseconds=1000 * seconds[name],
            multiple=seconds[name] / seconds[FLOOR],
            limit=limits.get(name),
            memory=peak_bytes(call, device) / batch_bytes,
        )
        for name, call in calls.items()
    ]


def contenders(
    batch: Batch, options: Options, generator: torch.Generator
) -> tuple[dict[str, Call], dict[str, float]]:
    """Return the functions to time, and the multiples that some of them must keep."""
    names = [*all_variants(), PAIRING]
    if unknown := sorted(set(options.only) - set(names)):
        raise ValueError(f"only: expected names among {', '.join(names)}; got {unknown[0]!r}")
    calls: dict[str, Call] = {FLOOR: floor(batch)}
    limits: dict[str, float] = {}
    for name, variant in all_variants().items():
        if options.only and name not in options.only:
            continue
        calls[name] = our_call(variant, batch, generator)
        if variant.limit is not None:
            limits[name] = variant.limit
    if not options.only or PAIRING in options.only:
        calls[PAIRING] = pairing_call(batch)
        limits[PAIRING] = PAIRING_LIMIT
    if not options.ours_only:
        calls |= neighbors(batch)
    for path in options.against:
        calls[path] = partial(named_function(path), batch.images, batch.targets)
    return calls, limits


def print_table(rows: list[Row]) -> None:
    """Print one line for each row."""
    width = max(len(row.name) for row in rows)
    print(f"{'':{width}}  {'ms':>8}  {'x floor':>8}  {'at most':>8}  {'memory':>8}")
    for row in rows:
        limit = "" if row.limit is None else f"{row.limit:g}"
        print(
            f"{row.name:{width}}  {row.milliseconds:8.3f}  {row.multiple:8.2f}  {limit:>8}  "
            f"{row.memory:8.2f}"
        )


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ImportError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
