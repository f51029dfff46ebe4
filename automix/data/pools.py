"""Labeled images before they are split, and the stratified, seeded assignment to splits."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from automix.configuration.data import DataConfig
from automix.data.splits import Split
from automix.errors import DataError
from automix.files import sha256_of
from automix.random_streams import Stream, stream_generator


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pool:
    """The images of one part of a source.

    Attributes:
        split: images and labels.
        checksum: hash of every pixel and label.
        where: file or folder they come from, for messages.
    """

    split: Split
    checksum: str
    where: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pools:
    """The images of a source.

    Attributes:
        train: images to cut the training split from.
        val: images to cut reward and selection from; None: they are cut from ``train``.
        test: images for the final evaluation; None: they are cut from ``train``.
        class_names: name of each class, in label order.
    """

    train: Pool
    val: Pool | None
    test: Pool | None
    class_names: tuple[str, ...]

    def checksum(self) -> str:
        """Return a hash of every pixel, label and class name."""
        parts = [pool.checksum if pool else "" for pool in (self.train, self.val, self.test)]
        return sha256_of(*(part.encode() for part in (*parts, *self.class_names)))


class ImagesDigest:
    """The hash of shape, pixels and labels, fed image by image or all at once.

    It does not depend on the machine: labels count as little-endian 64-bit integers.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._digest = hashlib.sha256(repr(tuple(shape)).encode())

    def add_pixels(self, pixels: NDArray[np.uint8]) -> None:
        """Add one image or many, C-contiguous; they are not copied."""
        self._digest.update(pixels.reshape(-1).data)

    def finish(self, labels: NDArray[np.int64]) -> str:
        """Add the labels and return 64 hex digits."""
        self._digest.update(labels.astype("<i8").tobytes())
        return self._digest.hexdigest()


def images_checksum(split: Split) -> str:
    """Return the hash of a split on the CPU."""
    digest = ImagesDigest(tuple(split.images.shape))
    digest.add_pixels(split.images.numpy())
    return digest.finish(split.labels.numpy())


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Assignment:
    """Which image belongs to which split.

    Attributes:
        from_train: ascending (M,) int64 indices into the training images, by split.
        from_val: indices into the images of val/, by split; empty where there are none.
    """

    from_train: Mapping[str, Tensor]
    from_val: Mapping[str, Tensor]

    def hash(self) -> str:
        """Return a hash of every split's name and indices."""
        indices = dict(self.from_train) | dict(self.from_val)
        return sha256_of(
            *(name.encode() + part.numpy().tobytes() for name, part in sorted(indices.items()))
        )


def assign(train: Labels, val: Labels | None, config: DataConfig, *, has_test: bool) -> Assignment:
    """Decide which images are for training, reward, selection and test.

    Args:
        train: the training images.
        val: images to cut reward and selection from; None: they are cut from ``train``.
        config: sizes and seed.
        has_test: whether there are test images of their own; else they are cut from ``train``.

    Raises:
        DataError: a class has too few images.
    """
    reward_size, selection_size = config.part_sizes(has_val=val is not None)
    held_out = {"reward": reward_size, "selection": selection_size}
    sizes: dict[str, int | float] = {} if has_test else {"test": config.test_part_size}
    if val is None:
        sizes |= held_out
    rest: str | None = "train"
    if config.labels_per_class is not None:
        sizes["train"], rest = config.labels_per_class, None
    return Assignment(
        from_train=stratified_parts(train, sizes, rest=rest, seed=config.split_seed),
        from_val=stratified_parts(val, held_out, rest=None, seed=config.split_seed) if val else {},
    )


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
