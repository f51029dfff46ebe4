"""What a source hands over before the splits are cut."""

from dataclasses import dataclass

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


def images_checksum(split: Split) -> str:
    """Return the hash of the shape, every pixel and every label of a split on the CPU."""
    shape = repr(tuple(split.images.shape)).encode()
    return sha256_of(shape, split.images.numpy().tobytes(), split.labels.numpy().tobytes())
