"""Time of the 15 corruptions at 5 severities, and their distance from the clean images.

`python -m benchmarks.corruptions [FOLDER] [--images 1000] [--threads 2]`: FOLDER holds photographs
of one size at any depth, such as the test folder of CIFAR-10; without it synthetic images of 32 x
32 pixels are used. "x floor" is the multiple of turning the same bytes into floats and back, which
every corruption does, measured in the same run.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from automix.evaluation.corruptions.registry import SEVERITIES, Corruption, corrupt

_SUFFIXES = {".jpg", ".jpeg", ".png"}


def main() -> None:
    """Print one line per corruption, and the sum."""
    options = _options()
    torch.set_num_threads(options.threads)
    images = (
        _photographs(options.folder, options.images)
        if options.folder
        else _synthetic(options.images)
    )
    floor = _seconds(lambda: _floor(images))
    print(
        f"{len(images)} images of {tuple(images.shape[1:])}, {options.threads} threads, "
        f"torch {torch.__version__}; floor {floor:.3f} s"
    )
    print("| corruption | seconds for 5 severities | x floor | root mean square distance, 1 to 5 |")
    print("|---|---:|---:|---|")
    total = 0.0
    for corruption in Corruption:
        distances = []
        spent = 0.0
        for severity in SEVERITIES:
            started = time.perf_counter()
            result = corrupt(images, corruption, severity, seed=0)
            spent += time.perf_counter() - started
            distances.append(_distance(images, result))
        total += spent
        shown = ", ".join(f"{distance:.3f}" for distance in distances)
        order = "" if distances == sorted(distances) else " NOT ASCENDING"
        print(
            f"| {corruption.value} | {spent:.2f} | {spent / (5 * floor):.1f} | {shown}{order} |",
            flush=True,
        )
    print(f"| all 75 | {total:.1f} | {total / (75 * floor):.1f} | |")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def _photographs(folder: Path, count: int) -> Tensor:
    """Return ``count`` images spread evenly over the files of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    chosen = files[:: max(1, len(files) // count)][:count]
    pixels = [np.asarray(Image.open(file).convert("RGB")) for file in chosen]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()


def _synthetic(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bicubic").clamp(0, 1)
    return (smooth * 255).round().to(torch.uint8)


def _floor(images: Tensor) -> Tensor:
    return (images.float() / 255).mul(255).round().to(torch.uint8)


def _seconds(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(5):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return sorted(times)[2]


def _distance(images: Tensor, corrupted: Tensor) -> float:
    squares = (corrupted.float() - images.float()).div(255).square()
    return squares.mean(dim=(1, 2, 3)).sqrt().mean().item()


if __name__ == "__main__":
    main()
