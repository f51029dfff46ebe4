"""Training images that stay in their files until a batch needs them.

Shape suffixes: N images, C channels, H rows, W columns.
"""

import dataclasses
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from automix.configuration.data import AugmentConfig, DataConfig, Normalization
from automix.data.augment import draw_crop_boxes
from automix.data.pools import Labels, Pool, assign, images_checksum
from automix.data.sources.decode import (
    ImageFormat,
    PixelBox,
    in_order,
    read_crop,
    read_image,
    refusing_bombs,
)
from automix.data.sources.folder import FolderListing, LabeledFile, files_key
from automix.data.sources.packed import Decoding, PackRequest, Progress, packed_images
from automix.data.splits import DataSet, SearchData, Split, channel_statistics
from automix.files import sha256_of
from automix.random_streams import Stream, stream_generator


class ImageFiles:
    """Paths of many files, in two tensors: a million of them reach a worker without a copy."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        """Keep ``names``, paths below ``root``."""
        encoded = [os.fsencode(name) for name in names]
        ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        self._root = root
        self._text = torch.frombuffer(bytearray(b"".join(encoded) or b"\0"), dtype=torch.uint8)
        self._ends = torch.from_numpy(ends)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Path:
        """Return the path of file number ``index``."""
        start = int(self._ends[index - 1]) if index else 0
        name = self._text[start : int(self._ends[index])].numpy().tobytes()
        return self._root / os.fsdecode(name)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StreamedSplit:
    """Images in files and their classes; `StreamedBatches` trains on them.

    Attributes:
        files: where the images are.
        labels: (N,) int64 on the CPU, 0 to num_classes - 1.
        num_classes: number of classes of the dataset, at least 1.
        evaluated: what evaluation makes of an image: scaled, and cut at the center.
    """

    files: ImageFiles
    labels: Tensor
    num_classes: int
    evaluated: ImageFormat

    def __len__(self) -> int:
        return len(self.files)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of every image as it is fed: (C, H, W)."""
        return self.evaluated.shape

    @property
    def num_bytes(self) -> int:
        """Memory that is held: that of the labels, in bytes."""
        return self.labels.nbytes

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return self.labels.device

    def to(self, device: torch.device | str) -> "StreamedSplit":
        """Return the split itself: files have no device."""
        del device
        return self

    def subset(self, indices: Tensor) -> Split:
        """Return the images at ``indices``, (M,) int64, as evaluation sees them, in memory."""
        images, labels = self.take(indices)
        return Split(images=images, labels=labels, num_classes=self.num_classes)

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return (images, labels) at ``indices`` as evaluation sees them: uint8, not augmented.

        Raises:
            DataError: a file is not a readable image.
        """
        images = torch.empty((len(indices), *self.image_shape), dtype=torch.uint8)
        with refusing_bombs():
            decoded = in_order(self._read_evaluated, indices.tolist())
            for image, pixels in zip(images, decoded, strict=True):
                image.copy_(pixels)
        return images, self.labels[indices]

    def read_training(self, index: int, augment: AugmentConfig, generator: Generator) -> Tensor:
        """Return image number ``index``, cut at random if ``augment`` says so and scaled.

        Args:
            index: of the image.
            augment: its resized crop is made here; the rest is left to the device.
            generator: on the CPU; advanced only where there is a crop.

        Returns:
            (C, H, W) uint8.

        Raises:
            DataError: the file is not a readable image.
        """
        if augment.resized_crop_scale is None:
            # The margin that evaluation may leave out is for images that are cut in training.
            wanted = dataclasses.replace(self.evaluated, crop=1.0)
            return torch.from_numpy(read_image(self.files[index], wanted))
        scale, ratio = augment.resized_crop_scale, augment.resized_crop_ratio

        def box_in(height: int, width: int) -> PixelBox:
            sides = torch.tensor([height]), torch.tensor([width])
            boxes = draw_crop_boxes(*sides, scale=scale, ratio=ratio, generator=generator)
            return PixelBox(*map(int, (boxes.top, boxes.left, boxes.height, boxes.width)))

        return torch.from_numpy(read_crop(self.files[index], self.evaluated, box_in))

    def _read_evaluated(self, index: int) -> Tensor:
        return torch.from_numpy(read_image(self.files[index], self.evaluated))


_log = logging.getLogger(__name__)
# Means of so many photographs are off by about 0.003, deviations by less.
_IMAGES_MEASURED = 2048


def streamed_data(
    config: DataConfig, listing: FolderListing, *, progress: Progress | None = None
) -> DataSet:
    """Return the splits of a folder whose training images are not decoded.

    The splits hold the same files as those of the decoded folder. Images are read in color; mean
    and deviation per channel are those of at most 2,048 training images.

    Args:
        config: with an ``image_size``.
        listing: its files.
        progress: told about the decoding of held-out images.

    Raises:
        DataError: a class has too few images, a held-out image is unreadable, or the cache folder
            cannot be written.
    """
    assert config.target_size is not None
    height, width = config.target_size
    wanted = ImageFormat(
        channels=3, height=height, width=width, resize=True, crop=config.evaluation_crop
    )
    train_labels = _labels(listing, "train", 0)
    has_val = "val" in listing.parts
    assignment = assign(
        train_labels, _labels(listing, "val", 1) if has_val else None, config, has_test=True
    )
    held_out = _Packs(config, listing, wanted, progress)
    source = "val" if has_val else "train"
    parts = assignment.from_val if has_val else assignment.from_train
    reward, selection = (
        held_out.split(name, [listing.parts[source][index] for index in parts[name].tolist()])
        for name in ("reward", "selection")
    )
    test = held_out.split("test", listing.parts["test"])
    indices = assignment.from_train["train"]
    train = StreamedSplit(
        files=ImageFiles(
            listing.root, [listing.parts["train"][index].name for index in indices.tolist()]
        ),
        labels=train_labels.labels[indices],
        num_classes=len(listing.class_names),
        evaluated=wanted,
    )
    seen = SearchData(
        train=train,
        reward=reward.split,
        selection=selection.split,
        class_names=listing.class_names,
        statistics=channel_statistics(_measured(train, config), config.normalization),
        fingerprint=_fingerprint(listing, assignment.hash(), (reward, selection, test)),
    )
    return DataSet(name=config.source.value, seen=seen, test=test.split)


class _Packs:
    """Decodes held-out images into the cache folder, as evaluation sees them."""

    def __init__(
        self,
        config: DataConfig,
        listing: FolderListing,
        wanted: ImageFormat,
        progress: Progress | None,
    ) -> None:
        self._folder = config.cache_folder
        self._listing = listing
        self._wanted = wanted
        self._progress = progress

    def split(self, name: str, files: Sequence[LabeledFile]) -> Pool:
        where = f"{self._listing.root} ({name} images)"
        if not files:
            return self._empty(where)

        def read(index: int) -> tuple[NDArray[np.uint8], int]:
            file = files[index]
            return read_image(self._listing.root / file.name, self._wanted), file.label

        request = PackRequest(
            name=f"folder-{name}",
            key=files_key(files, self._wanted),
            where=where,
            prepare=lambda: Decoding(
                num_images=len(files),
                shape=self._wanted.shape,
                class_names=self._listing.class_names,
                read=read,
            ),
            remedy=f"a smaller data.image_size or fewer {name} images need less",
        )
        return packed_images(request, self._folder, progress=self._progress)[0]

    def _empty(self, where: str) -> Pool:
        split = Split(
            images=torch.empty((0, *self._wanted.shape), dtype=torch.uint8),
            labels=torch.empty(0, dtype=torch.int64),
            num_classes=len(self._listing.class_names),
        )
        return Pool(split=split, checksum=images_checksum(split), where=where)


def _labels(listing: FolderListing, part: str, number: int) -> Labels:
    return Labels(
        labels=torch.tensor([file.label for file in listing.parts[part]], dtype=torch.int64),
        class_names=listing.class_names,
        where=str(listing.root / part),
        pool=number,
    )


def _measured(train: StreamedSplit, config: DataConfig) -> Split:
    """Return the images that mean and deviation are measured on."""
    if config.normalization is not Normalization.TRAIN:
        return train.subset(torch.empty(0, dtype=torch.int64))
    generator = stream_generator(config.split_seed, Stream.STATISTICS)
    chosen = torch.randperm(len(train), generator=generator)[:_IMAGES_MEASURED]
    if len(chosen) < len(train):
        _log.info("mean and deviation are those of %d training images", len(chosen))
    return train.subset(chosen.sort().values)


def _fingerprint(listing: FolderListing, assignment: str, pools: Sequence[Pool]) -> str:
    """Return a hash of every name, size and label, and of the pixels of held-out images."""
    lines = [
        f"{file.name}\0{file.label}\0{file.size}"
        for part in sorted(listing.parts)
        for file in listing.parts[part]
    ]
    text = "\n".join(lines).encode(errors="surrogateescape")
    checksums = (pool.checksum.encode() for pool in pools)
    return sha256_of(b"streamed", text, assignment.encode(), *checksums)[:16]
