"""Labeled images before they are split, and their stratified, seeded assignment to splits."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from automix.configuration.data import DataConfig
from automix.data.splits import Split
from automix.errors import DataError
from automix.files import sha256_of
from automix.random_streams import Stream, stream_generator

# A fraction times a count can land just below the integer it stands for: 0.29 * 100 < 29.
_ROUNDING = 1e-9


class ClassLabels(NamedTuple):
    """The labels of a pool, all that an assignment depends on besides the configuration."""

    labels: Tensor  # (N,) int64 on the CPU, 0 to len(class_names) - 1
    class_names: Sequence[str]  # name of each class
    where: str  # file or folder of the images, for messages
    pool: int = 0  # 0 for the training images, 1 for those of val/, so that they draw independently


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImagePool:
    """The images of one part of a source, the hash of their pixels and labels, and their origin."""

    split: Split
    checksum: str
    where: str

    def labels(self, class_names: Sequence[str], pool: int = 0) -> ClassLabels:
        """Return the labels for the assignment."""
        return ClassLabels(self.split.labels, class_names, self.where, pool)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SourceImages:
    """All images of a source; splits of the parts that it lacks (None) are cut from ``train``."""

    train: ImagePool
    val: ImagePool | None
    test: ImagePool | None
    class_names: tuple[str, ...]

    def checksum(self) -> str:
        """Return a hash of every pixel, label and class name."""
        parts = [pool.checksum if pool else "" for pool in (self.train, self.val, self.test)]
        return sha256_of(*(part.encode() for part in (*parts, *self.class_names)))


class ImagesDigest:
    """SHA-256 of shape, pixels and labels, updated image by image or all at once."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._digest = hashlib.sha256(repr(tuple(shape)).encode())

    def add_pixels(self, pixels: NDArray[np.uint8]) -> None:
        """Add one image or many, C-contiguous; they are not copied."""
        self._digest.update(pixels.reshape(-1).data)

    def finish(self, labels: NDArray[np.int64]) -> str:
        """Add the labels and return 64 hex digits."""
        # Little-endian whatever the machine, so that fingerprints can be compared between machines.
        self._digest.update(labels.astype("<i8").tobytes())
        return self._digest.hexdigest()


def images_checksum(split: Split) -> str:
    """Return the hash of a split on the CPU."""
    digest = ImagesDigest(tuple(split.images.shape))
    digest.add_pixels(split.images.numpy())
    return digest.finish(split.labels.numpy())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Assignment:
    """Ascending (M,) int64 indices of the images of each split, by the part they are cut from."""

    from_train: Mapping[str, Tensor]
    from_val: Mapping[str, Tensor]

    def hash(self) -> str:
        """Return a hash of every split's name and indices."""
        indices = dict(self.from_train) | dict(self.from_val)
        return sha256_of(
            *(name.encode() + part.numpy().tobytes() for name, part in sorted(indices.items()))
        )


def assign(
    train: ClassLabels, val: ClassLabels | None, config: DataConfig, *, has_test: bool
) -> Assignment:
    """Assign images to the training, reward and selection splits, and to test without ``has_test``.

    Raises:
        DataError: a class has too few images.
    """
    reward_size, selection_size = config.part_sizes(has_val=val is not None)
    held_out = {"reward": reward_size, "selection": selection_size}
    # Parts are dealt in this order, and each starts where the one before it ended. Test first and
    # train last, so that the number of training images changes no held-out split: results with
    # different labels_per_class are measured on the same images.
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


def stratified_parts(
    pool: ClassLabels, sizes: Mapping[str, int | float], *, rest: str | None, seed: int
) -> dict[str, Tensor]:
    """Deal every class out into named, disjoint parts; return their ascending int64 indices.

    ``sizes`` are counts or fractions per class, in the order they are dealt. ``rest`` names a part
    that gets all remaining images, at least one of each class; None: they belong to no part.

    Raises:
        DataError: a class has fewer images than its parts need.
    """
    dealt: defaultdict[str, list[Tensor]] = defaultdict(list)
    for label, class_name in enumerate(pool.class_names):
        members = (pool.labels == label).nonzero().squeeze(1)
        counts = {name: part_count(size, len(members)) for name, size in sizes.items()}
        needed = counts if rest is None else counts | {rest: 1}
        if sum(needed.values()) > len(members):
            listed = ", ".join(f"{name} {count}" for name, count in needed.items())
            raise DataError(
                f"{pool.where}: expected at least {sum(needed.values())} images of class "
                f"'{class_name}' ({listed}), got {len(members)}"
            )
        if rest is not None:
            counts[rest] = len(members) - sum(counts.values())
        # A generator for each class: images added to one class leave the others where they were.
        generator = stream_generator(seed, Stream.SPLIT, epoch=pool.pool, step=label)
        shuffled = members[torch.randperm(len(members), generator=generator)]
        start = 0
        for name, count in counts.items():
            dealt[name].append(shuffled[start : start + count])
            start += count
    # Ascending, so that files are read and packs are copied front to back.
    return {name: torch.cat(indices).sort().values for name, indices in dealt.items()}


def part_count(size: int | float, num_images: int) -> int:
    """Return the number of a class's ``num_images`` that a part of ``size`` (see above) gets."""
    if isinstance(size, int):
        return size
    # Down, because rounding up in several parts could ask for more images than there are; but a
    # part that is not empty has every class, or accuracy on it would ignore the rare ones.
    return max(1, int(size * num_images + _ROUNDING)) if size > 0 else 0
