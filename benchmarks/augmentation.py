"""Times augmentation policies of a batch against torchvision's, image by image.

`python -m benchmarks.augmentation` prints milliseconds per batch, the minimum of interleaved runs.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms import v2

from automix.configuration.data import AugmentConfig, AutoAugment
from automix.data.policies import apply_operations, draw_operations

_REPEATS = 15
_BATCHES = ((50, 1, 8), (128, 3, 32), (64, 3, 96))


def _batched(images: Tensor, policy: AutoAugment) -> Callable[[], object]:
    config, (height, width) = AugmentConfig(auto_augment=policy), images.shape[2:]
    generator = torch.Generator().manual_seed(0)

    def run() -> object:
        drawn = draw_operations(
            len(images), config, height=height, width=width, generator=generator
        )
        return apply_operations(images, drawn)

    return run


def _image_by_image(images: Tensor, transform: v2.Transform) -> Callable[[], object]:
    return lambda: torch.stack([transform(image) for image in images])


def main() -> None:
    """Print a row for each policy and shape of a batch."""
    torch.set_num_threads(1)
    policies = {
        AutoAugment.TRIVIALAUGMENT: v2.TrivialAugmentWide(),
        AutoAugment.RANDAUGMENT: v2.RandAugment(),
        AutoAugment.AUTOAUGMENT_IMAGENET: v2.AutoAugment(),
    }
    print("| policy | batch | batched, ms | image by image, ms | ratio |\n|---|---|---:|---:|---:|")
    for batch, channels, side in _BATCHES:
        images = torch.randint(256, (batch, channels, side, side)).byte()
        for policy, transform in policies.items():
            sides = _batched(images, policy), _image_by_image(images, transform)
            times: list[list[float]] = [[], []]
            for _ in range(_REPEATS):
                for run, seconds in zip(sides, times, strict=True):
                    started = time.perf_counter()
                    run()
                    seconds.append(time.perf_counter() - started)
            batched, reference = (1000 * min(seconds) for seconds in times)
            shape = f"{batch} x {channels} x {side} x {side}"
            ratio = reference / batched
            print(f"| {policy} | {shape} | {batched:.1f} | {reference:.1f} | {ratio:.1f} |")


if __name__ == "__main__":
    main()
