"""AutoAugment, RandAugment, TrivialAugment and color jitter of a whole batch, drawn by key.

The policies and strengths are torchvision's; its own classes draw from the global generator and
take one image at a time. Draws and their application are separate, as for crops and flips.
Shape suffixes: B images, C channels, H rows, W columns.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from automix.configuration.data import AugmentConfig, AutoAugment
from automix.data.pixel_operations import GEOMETRIC, OPERATIONS, geometric_matrix, moved

IDENTITY = "Identity"
_BINS = 31  # of the strengths of RandAugment and TrivialAugment
_AUTOAUGMENT_BINS = 10
_RANDAUGMENT_OPS, _RANDAUGMENT_MAGNITUDE = 2, 9
_JITTERED = ("Brightness", "Contrast", "Color", "Hue")


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnOperations:
    """One operation for each image of a batch, on the CPU."""

    names: tuple[str, ...]  # operations that numbers stand for; `IDENTITY` does nothing
    number: Tensor  # (B,) int64
    strength: Tensor  # (B,) float32, in the unit of the operation


def draw_operations(
    num_images: int, config: AugmentConfig, *, height: int, width: int, generator: Generator
) -> list[DrawnOperations]:
    """Draw what is done to each image, in order; the generator is on the CPU.

    On the CPU the host knows how many images each operation has, and waits for no device.
    """
    drawn: list[DrawnOperations] = []
    match config.auto_augment:
        case None:
            pass
        case AutoAugment.RANDAUGMENT:
            count = config.randaugment_ops or _RANDAUGMENT_OPS
            magnitude = config.randaugment_magnitude
            level = _RANDAUGMENT_MAGNITUDE if magnitude is None else magnitude
            table = _table("RandAugment", _BINS, height, width)
            for _ in range(count):
                drawn.append(_uniform(num_images, table, generator, level=level))
        case AutoAugment.TRIVIALAUGMENT:
            table = _table("TrivialAugmentWide", _BINS, height, width)
            drawn.append(_uniform(num_images, table, generator))
        case policy:
            drawn += _autoaugment(num_images, policy, height, width, generator)
    if config.color_jitter is not None:
        drawn += _jitter(num_images, config.color_jitter, generator)
    return drawn


def apply_operations(images_BCHW: Tensor, drawn: list[DrawnOperations]) -> Tensor:
    """Return uint8 images after the operations that were drawn; shape and device are the same."""
    for operations in drawn:
        images_BCHW = _applied(images_BCHW, operations)
    return images_BCHW


def _applied(images: Tensor, drawn: DrawnOperations) -> Tensor:
    # One call for each operation that some image has, however many images have it.
    result, device = images.clone(), images.device
    positions: list[Tensor] = []
    matrices: list[Tensor] = []
    for number in sorted(set(drawn.number.tolist())):
        name = drawn.names[number]
        indices = (drawn.number == number).nonzero().squeeze(1)
        strength = drawn.strength[indices]
        if name in GEOMETRIC:
            positions.append(indices)
            matrices.append(geometric_matrix(name, strength, *images.shape[2:]))
        elif name != IDENTITY:
            here = indices.to(device, non_blocking=True)
            changed = OPERATIONS[name](
                images.index_select(0, here), strength.to(device, non_blocking=True)
            )
            result.index_copy_(0, here, changed)
    if positions:
        here = torch.cat(positions).to(device, non_blocking=True)
        matrix = torch.cat(matrices).to(device, non_blocking=True)
        result.index_copy_(0, here, moved(images.index_select(0, here), matrix))
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """The operations of a policy, their strengths by level, and which of them have a sign."""

    names: tuple[str, ...]
    strengths: Tensor  # (operations, levels) float32
    signed: Tensor  # (operations,) bool


def _table(policy: str, num_bins: int, height: int, width: int) -> _Table:
    # Imported here: it takes a second, and most runs have no need of it.
    from torchvision.transforms import v2  # noqa: PLC0415

    space: dict[str, Any] = getattr(v2, policy)._AUGMENTATION_SPACE
    levels = [strengths(num_bins, height, width) for strengths, _ in space.values()]
    none = torch.zeros(num_bins)
    return _Table(
        names=tuple(space),
        strengths=torch.stack([none if row is None else row.float() for row in levels]),
        signed=torch.tensor([is_signed for _, is_signed in space.values()]),
    )


def _uniform(
    num_images: int, table: _Table, generator: Generator, *, level: int | None = None
) -> DrawnOperations:
    number = torch.randint(len(table.names), (num_images,), generator=generator)
    levels = torch.randint(table.strengths.shape[1], (num_images,), generator=generator)
    if level is not None:
        levels = torch.full_like(levels, level)
    coin = torch.randint(2, (num_images,), generator=generator)
    return _with_strength(table, number, levels, coin)


def _with_strength(table: _Table, number: Tensor, levels: Tensor, coin: Tensor) -> DrawnOperations:
    sign = torch.where(table.signed[number] & coin.bool(), -1.0, 1.0)
    strength = table.strengths[number, levels] * sign
    return DrawnOperations(names=table.names, number=number, strength=strength)


def _autoaugment(
    num_images: int, policy: AutoAugment, height: int, width: int, generator: Generator
) -> list[DrawnOperations]:
    from torchvision.transforms import v2  # noqa: PLC0415

    table = _table("AutoAugment", _AUTOAUGMENT_BINS, height, width)
    names = (*table.names, IDENTITY)
    kind = v2.AutoAugmentPolicy(policy.value.removeprefix("autoaugment_"))
    pairs = v2.AutoAugment(kind)._policies
    # A pair of operations, each done with its probability at its level.
    chosen = torch.randint(len(pairs), (num_images,), generator=generator)
    uniform = torch.rand(2, num_images, generator=generator)
    coins = torch.randint(2, (2, num_images), generator=generator)
    drawn = []
    for place in (0, 1):
        rows = [pair[place] for pair in pairs]
        number = torch.tensor([table.names.index(name) for name, _, _ in rows])[chosen]
        probability = torch.tensor([probability for _, probability, _ in rows])[chosen]
        level = torch.tensor([level or 0 for _, _, level in rows])[chosen]
        operations = _with_strength(table, number, level, coins[place])
        number = torch.where(uniform[place] <= probability, number, len(table.names))
        drawn.append(DrawnOperations(names=names, number=number, strength=operations.strength))
    return drawn


def _jitter(
    num_images: int, ranges: tuple[float, float, float, float], generator: Generator
) -> list[DrawnOperations]:
    # Four operations in an order of its own for each image: of a random number for each, the ranks.
    uniform = torch.rand(2, 4, num_images, generator=generator)
    order = uniform[0].argsort(dim=0)
    low = torch.tensor([-min(half, 1.0) for half in ranges])[:, None]
    high = torch.tensor(ranges)[:, None]
    strengths = low + (high - low) * uniform[1]
    drawn = []
    for numbers in order:
        strength = strengths.gather(0, numbers[None]).squeeze(0)
        drawn.append(DrawnOperations(names=_JITTERED, number=numbers, strength=strength))
    return drawn
