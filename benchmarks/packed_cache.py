"""Time to open a pack of decoded images: hashed in full, and found verified.

    python -m benchmarks.packed_cache --images 50000

The pack has images of noise. Rounds of both are interleaved; the median counts.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from automix.data.sources import packed
from automix.data.sources.packed import Decoding, PackRequest, packed_images
from benchmarks.measure import median_seconds


@dataclass(frozen=True, kw_only=True)
class Options:
    """Time to open a pack of decoded images, hashed in full and found verified."""

    images: int = 50_000
    """Images of the pack."""
    size: int = 32
    """Rows and columns of an image."""
    rounds: int = 9
    """Times each is timed."""
    json: Path | None = None
    """File for the figures."""


def main(options: Options) -> None:
    """Measure, print, and write the figures."""
    torch.set_num_threads(1)
    shape = (3, options.size, options.size)
    pixels = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    decoding = Decoding(
        num_images=options.images,
        shape=shape,
        class_names=("a", "b"),
        read=lambda number: (pixels, number % 2),
    )
    request = PackRequest(name="noise", key="0" * 16, where="noise", prepare=lambda: decoding)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        packed_images(request, folder)
        record = next(folder.glob("*.npy")).with_suffix(".verified")

        def hashed() -> None:
            record.unlink(missing_ok=True)
            packed_images(request, folder)

        # The pack is new, and new ones are not trusted; here nobody else writes.
        packed._SECONDS_TO_SETTLE = -1.0
        calls = {"hashed": hashed, "verified": lambda: packed_images(request, folder)}
        seconds = median_seconds(calls, rounds=options.rounds, device=torch.device("cpu"))
    megabytes = options.images * pixels.size / 1e6
    print(f"{options.images:,} images of {options.size} x {options.size}, {megabytes:,.0f} MB")
    for state, value in seconds.items():
        print(f"{state}: {1000 * value:.1f} ms")
    if options.json is not None:
        options.json.write_text(json.dumps(seconds, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Options, description=Options.__doc__))
