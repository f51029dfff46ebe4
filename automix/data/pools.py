"""What a source hands over before the splits are cut."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from automix.data.splits import Split
from automix.files import sha256_of


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
