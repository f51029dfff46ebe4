"""Stratified, seeded assignment of images to splits.

Every class is shuffled with a generator of its own, a hash of (seed, pool, class), and dealt out
in order: a part keeps its images when the size of a later part changes, so the test split does
not depend on the reward split, and the training images for 10 labels per class are among those
for 20.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from automix.errors import DataError
from automix.random_streams import Stream, stream_generator

# A share times a count lands just below the whole number it stands for: 0.29 * 100 < 29.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """The classes of a pool of images, and what to call them in messages.

    Attributes:
        labels: (N,) int64 on the CPU, 0 to len(class_names) - 1.
        class_names: name of each class.
        where: file or folder of the images.
        pool: number that keeps the draws of different pools apart.
    """

    labels: Tensor
    class_names: Sequence[str]
    where: str
    pool: int = 0


def part_count(size: int | float, num_images: int) -> int:
    """Return how many of a class's images a part gets.

    Args:
        size: a count (int), or a share in [0, 1) (float), which is rounded down; a share above 0
            gives at least 1 image.
        num_images: images of the class.
    """
    if isinstance(size, int):
        return size
    return max(1, int(size * num_images + _ROUNDING)) if size > 0 else 0


def stratified_parts(
    pool: Labels, sizes: Mapping[str, int | float], *, rest: str | None, seed: int
) -> dict[str, Tensor]:
    """Deal every class out into named parts.

    Args:
        pool: the images to deal out.
        sizes: count or share per class of each part, in the order they are dealt.
        rest: name of a part that gets all remaining images, at least one of each class; None: they
            belong to no part.
        seed: the same seed gives the same parts.

    Returns:
        Ascending (M,) int64 indices of each part; the parts are disjoint.

    Raises:
        DataError: a class has fewer images than its parts need.
    """
    dealt: dict[str, list[Tensor]] = {name: [] for name in sizes}
    if rest is not None:
        dealt[rest] = []
    for label, class_name in enumerate(pool.class_names):
        members = (pool.labels == label).nonzero().squeeze(1)
        counts = {name: part_count(size, len(members)) for name, size in sizes.items()}
        _check_enough(pool, class_name, counts if rest is None else counts | {rest: 1}, members)
        if rest is not None:
            counts[rest] = len(members) - sum(counts.values())
        generator = stream_generator(seed, Stream.SPLIT, epoch=pool.pool, step=label)
        shuffled = members[torch.randperm(len(members), generator=generator)]
        start = 0
        for name, count in counts.items():
            dealt[name].append(shuffled[start : start + count])
            start += count
    return {name: torch.cat(indices).sort().values for name, indices in dealt.items()}


def _check_enough(
    pool: Labels, class_name: str, needed: Mapping[str, int], members: Tensor
) -> None:
    if sum(needed.values()) > len(members):
        listed = ", ".join(f"{name} {count}" for name, count in needed.items())
        raise DataError(
            f"{pool.where}: expected at least {sum(needed.values())} images of class "
            f"'{class_name}' ({listed}), got {len(members)}"
        )
