"""Splits of a dataset, in memory or in files, their pixel statistics, and memory sizes.

Shape suffixes: N images, B batch, C channels, H rows, W columns.
"""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Generator, Tensor

from automix.configuration.data import AugmentConfig, DataConfig, Normalization
from automix.data.augment import draw_crop_boxes
from automix.data.sources.decode import (
    ImageFormat,
    PixelBox,
    in_order,
    read_crop,
    read_image,
    refusing_bombs,
)
from automix.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Images and labels in memory, all on one device.

    Raises:
        ValueError: shapes or dtypes are different, or labels do not count from 0.
    """

    images: Tensor  # (N, C, H, W) uint8, 0 to 255
    labels: Tensor  # (N,) int64, 0 to num_classes - 1; or (N, K) float32, labels of 0 and 1
    num_classes: int  # of the dataset, at least 1; a split may lack some of them

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != torch.uint8:
            raise ValueError(
                f"expected images of shape (N, C, H, W) and dtype uint8, "
                f"got {tuple(self.images.shape)} and {self.images.dtype}"
            )
        if self.labels.ndim == 2:
            self._check_rows()
            return
        if self.labels.shape != self.images.shape[:1] or self.labels.dtype != torch.int64:
            raise ValueError(
                f"expected labels of shape ({len(self.images)},) and dtype int64, "
                f"got {tuple(self.labels.shape)} and {self.labels.dtype}"
            )
        # On the host only: a device would have to be waited for, and was checked on the way there.
        if self.labels.numel() and self.labels.device.type == "cpu":
            lowest, highest = map(int, self.labels.aminmax())
            if lowest < 0 or highest >= self.num_classes:
                raise ValueError(
                    f"expected labels from 0 to {self.num_classes - 1}, got {lowest} to {highest}"
                )

    def _check_rows(self) -> None:
        expected = (len(self.images), self.num_classes)
        if self.labels.shape != expected or self.labels.dtype != torch.float32:
            raise ValueError(
                f"expected labels of shape {expected} and dtype float32, "
                f"got {tuple(self.labels.shape)} and {self.labels.dtype}"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def device(self) -> torch.device:
        """Device of images and labels."""
        return self.images.device

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of every image: (C, H, W)."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    @property
    def num_bytes(self) -> int:
        """Memory of images and labels, in bytes."""
        return self.images.nbytes + self.labels.nbytes

    def to(self, device: torch.device | str) -> "Split":
        """Return the split on ``device``; no copy when it is there already."""
        images, labels = self.images.to(device), self.labels.to(device)
        return dataclasses.replace(self, images=images, labels=labels)

    def subset(self, indices: Tensor) -> "Split":
        """Return a copy of the images at ``indices``, (M,) int64 on the device of the split."""
        images, labels = self.take(indices)
        return dataclasses.replace(self, images=images, labels=labels)

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return (images, labels) at ``indices``, (B,) int64 on the device of the split."""
        return self.images.index_select(0, indices), self.labels.index_select(0, indices)

    def read(self, start: int, stop: int) -> Tensor:
        """Return images ``start`` to ``stop - 1``, without a copy."""
        return self.images[start:stop]


class ImageFiles:
    """Paths of many files, as text and ends in two tensors.

    Tensors reach a worker through shared memory: a million paths are not copied for each of them.
    """

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        """Keep ``names``, paths below ``root``."""
        encoded = [os.fsencode(name) for name in names]
        ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        self._root = root
        # torch.frombuffer refuses an empty buffer.
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
    """Images in files and their labels, on the CPU, which `StreamedBatches` trains on.

    Evaluation sees the images in the format ``evaluated``: scaled, and cut at the center.
    """

    files: ImageFiles
    labels: Tensor
    num_classes: int
    evaluated: ImageFormat

    def __len__(self) -> int:
        return len(self.files)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of every image in a batch: (C, H, W)."""
        return self.evaluated.shape

    @property
    def num_bytes(self) -> int:
        """Memory that is held, that of the labels, in bytes."""
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
        """Return the images at ``indices``, (M,) int64, in memory, prepared as for evaluation."""
        images, labels = self.take(indices)
        return Split(images=images, labels=labels, num_classes=self.num_classes)

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return (images, labels) at ``indices``, prepared as for evaluation: uint8.

        Raises:
            DataError: a file is not a readable image.
        """
        images = torch.empty((len(indices), *self.image_shape), dtype=torch.uint8)
        with refusing_bombs():
            decoded = in_order(
                lambda index: read_image(self.files[index], self.evaluated), indices.tolist()
            )
            for image, pixels in zip(images, decoded, strict=True):
                image.copy_(torch.from_numpy(pixels))
        return images, self.labels[indices]

    def read_training(self, index: int, augment: AugmentConfig, generator: Generator) -> Tensor:
        """Return image number ``index``, (C, H, W) uint8, with the resized crop of ``augment``.

        The rest of the augmentation is left to the device; the generator is on the CPU.

        Raises:
            DataError: the file is not a readable image.
        """
        if augment.resized_crop_scale is None:
            # The margin that evaluation may cut off is for models trained on random crops.
            whole = dataclasses.replace(self.evaluated, crop=1.0)
            return torch.from_numpy(read_image(self.files[index], whole))
        scale, ratio = augment.resized_crop_scale, augment.resized_crop_ratio

        def box_in(height: int, width: int) -> PixelBox:
            sides = torch.tensor([height]), torch.tensor([width])
            boxes = draw_crop_boxes(*sides, scale=scale, ratio=ratio, generator=generator)
            return PixelBox(*map(int, (boxes.top, boxes.left, boxes.height, boxes.width)))

        return torch.from_numpy(read_crop(self.files[index], self.evaluated, box_in))


TrainingImages: TypeAlias = Split | StreamedSplit


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelStatistics:
    """Mean and standard deviation per channel, of values in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SearchData:
    """The data that a search has access to: it has no test split, so none can leak."""

    train: TrainingImages  # images to train classifiers on
    reward: Split  # images that the reward is measured on
    selection: Split  # images that finished schedules are compared on
    class_names: tuple[str, ...]  # name of each class, in label order
    statistics: ChannelStatistics  # mean and standard deviation that images are normalized with
    # Hash of every pixel, label and split assignment, equal on every machine. Of streamed images
    # the names and sizes of the files are hashed instead of the pixels.
    fingerprint: str

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return len(self.class_names)

    @property
    def has_label_rows(self) -> bool:
        """Whether each image has a row of labels, several of which may be 1, and no class."""
        return self.train.labels.ndim == 2

    @property
    def num_alternatives(self) -> int:
        """Number of answers that a decision is between: the classes, or yes and no for a label."""
        return 2 if self.has_label_rows else self.num_classes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of every image: (C, H, W)."""
        return self.train.image_shape

    @property
    def num_bytes(self) -> int:
        """Memory of all splits, in bytes."""
        return self.train.num_bytes + self.reward.num_bytes + self.selection.num_bytes

    def to(self, device: torch.device | str) -> "SearchData":
        """Return the data with all images on ``device``."""
        return dataclasses.replace(
            self,
            train=self.train.to(device),
            reward=self.reward.to(device),
            selection=self.selection.to(device),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """All splits of the source ``name``: those of a search, and the test split."""

    name: str
    seen: SearchData
    test: Split

    @property
    def train(self) -> TrainingImages:
        """Images to train on."""
        return self.seen.train

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return self.seen.num_classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each class, in label order."""
        return self.seen.class_names

    @property
    def statistics(self) -> ChannelStatistics:
        """Mean and standard deviation that images are normalized with."""
        return self.seen.statistics

    @property
    def fingerprint(self) -> str:
        """Hash of every pixel, label and split assignment, see `SearchData`."""
        return self.seen.fingerprint

    def for_search(self) -> SearchData:
        """Return the data without its test split.

        Raises:
            DataError: the reward or the selection split is empty.
        """
        for name, split in (("reward", self.seen.reward), ("selection", self.seen.selection)):
            if not len(split):
                raise DataError(f"data.{name}_size: expected more than 0 for a search, got 0")
        return self.seen


# The constants of torchvision's pretrained networks (references/classification/presets.py).
_IMAGENET = ChannelStatistics(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
_IMAGES_AT_ONCE = 1024


def configured_statistics(train: Split, config: DataConfig) -> ChannelStatistics:
    """Return the mean and standard deviation that ``config`` gives, or names.

    Raises:
        DataError: constants are given for images with another number of channels.
    """
    if config.mean is None or config.std is None:
        return channel_statistics(train, config.normalization)
    channels = train.images.shape[1]
    if channels == 1:
        # Gray pixels are those of every color.
        mean, std = (sum(values) / len(values) for values in (config.mean, config.std))
        return ChannelStatistics(mean=(mean,), std=(std,))
    if channels != len(config.mean):
        raise DataError(
            f"data.mean: expected {channels} values for images of {channels} channels, got "
            f"{len(config.mean)}"
        )
    return ChannelStatistics(mean=config.mean, std=config.std)


def channel_statistics(train: Split, normalization: Normalization) -> ChannelStatistics:
    """Return the mean and standard deviation per channel that images are normalized with.

    Raises:
        DataError: ImageNet's constants are requested for images that do not have 3 channels.
    """
    channels = train.images.shape[1]
    if normalization is Normalization.NONE:
        return ChannelStatistics(mean=(0.0,) * channels, std=(1.0,) * channels)
    if normalization is Normalization.IMAGENET:
        if channels != len(_IMAGENET.mean):
            raise DataError(
                f"data.normalization: expected images of 3 channels for 'imagenet', got {channels}"
            )
        return _IMAGENET
    return _measured_statistics(train.images)


def _measured_statistics(images_NCHW: Tensor) -> ChannelStatistics:
    # Counts of the 256 byte values are exact integers, so the result is the same for every chunk
    # size, order and machine; a running sum of floats would depend on all three. In chunks, because
    # flattening one channel copies it.
    histogram = torch.zeros(images_NCHW.shape[1], 256, dtype=torch.int64)
    for start in range(0, len(images_NCHW), _IMAGES_AT_ONCE):
        chunk = images_NCHW[start : start + _IMAGES_AT_ONCE]
        for channel in range(len(histogram)):
            histogram[channel] += torch.bincount(chunk[:, channel].flatten(), minlength=256)
    # mean = sum_v p(v) v and var = sum_v p(v) (v - mean)^2 over the values v = 0, 1/255, ..., 1.
    weights = histogram.double() / histogram.sum(dim=1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = weights @ values
    variance = (weights * (values - mean[:, None]).square()).sum(dim=1)
    # A channel of one color has nothing to scale.
    std = torch.where(variance > 0, variance.sqrt(), 1.0)
    return ChannelStatistics(mean=tuple(mean.tolist()), std=tuple(std.tolist()))


# Linux states the memory limit of a container here: control groups, versions 2 and 1.
_MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_UNITS = ("KiB", "MiB", "GiB", "TiB")


def main_memory() -> int | None:
    """Return the main memory that this process may use, in bytes; None if it is unknown."""
    if not hasattr(os, "sysconf"):
        return None
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # sysconf reports the memory of the host, of which a container may use less.
    for file in _MEMORY_LIMITS:
        try:
            limit = file.read_text(encoding="ascii").strip()
        except OSError:
            continue
        # Without a limit the file says "max".
        if limit.isdecimal():
            available = min(available, int(limit))
    return available


def format_bytes(count: int) -> str:
    """Return a size in the largest binary unit that it has one of: ``44.0 MiB``, ``22 B``."""
    if count < 1024:
        return f"{count} B"
    power = min((count.bit_length() - 1) // 10, len(_UNITS))
    return f"{count / 1024**power:.1f} {_UNITS[power - 1]}"
