"""Splits of a dataset, stored or streamed, and statistics of their pixels.

Shape suffixes: N images, C channels, H rows, W columns.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from automix.configuration.data import Normalization
from automix.errors import DataError

# Where Linux says what a container may use: control groups, version 2 and 1.
_MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_UNITS = ("KiB", "MiB", "GiB", "TiB")


def main_memory() -> int | None:
    """Return the main memory that this process may use, in bytes; None where nobody tells."""
    if not hasattr(os, "sysconf"):
        return None
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in _MEMORY_LIMITS:
        try:
            limit = file.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if limit.isdecimal():
            available = min(available, int(limit))
    return available


def format_bytes(count: int) -> str:
    """Return a size in the largest binary unit that it has one of: ``44.0 MiB``, ``22 B``."""
    if count < 1024:
        return f"{count} B"
    power = min((count.bit_length() - 1) // 10, len(_UNITS))
    return f"{count / 1024**power:.1f} {_UNITS[power - 1]}"


class StoredImages(Protocol):
    """Images with labels that are read in order, for evaluation; `Split` is one of them."""

    @property
    def labels(self) -> Tensor:
        """(N,) int64, 0 to num_classes - 1."""
        ...

    @property
    def num_classes(self) -> int:
        """Number of classes, at least 1."""
        ...

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> Tensor:
        """Return images ``start`` to ``stop - 1``, (B, C, H, W) uint8, on any device.

        Successive calls read successive images, so that an implementation may read ahead.
        """
        ...


class TrainingImages(Protocol):
    """Images with labels to train on: a `Split` in memory, or files that are read when needed."""

    @property
    def labels(self) -> Tensor:
        """(N,) int64, 0 to num_classes - 1."""
        ...

    @property
    def num_classes(self) -> int:
        """Number of classes, at least 1."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of every image: (C, H, W)."""
        ...

    @property
    def num_bytes(self) -> int:
        """Memory that the images and labels take, in bytes."""
        ...

    @property
    def device(self) -> torch.device:
        """Where labels are and indices have to be."""
        ...

    def __len__(self) -> int: ...

    def to(self, device: torch.device | str) -> "TrainingImages":
        """Return the same images on ``device``, if they are held in memory."""
        ...

    def subset(self, indices: Tensor) -> "Split":
        """Return the images at ``indices``, (M,) int64, as evaluation sees them."""
        ...

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return (images, labels) at ``indices``, as evaluation sees them."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Images and their classes, all on one device.

    Attributes:
        images: (N, C, H, W) uint8, 0 to 255.
        labels: (N,) int64, 0 to num_classes - 1.
        num_classes: number of classes of the dataset, at least 1.
    """

    images: Tensor
    labels: Tensor
    num_classes: int

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != torch.uint8:
            raise ValueError(
                f"expected images of shape (N, C, H, W) and dtype uint8, "
                f"got {tuple(self.images.shape)} and {self.images.dtype}"
            )
        if self.labels.shape != self.images.shape[:1] or self.labels.dtype != torch.int64:
            raise ValueError(
                f"expected labels of shape ({len(self.images)},) and dtype int64, "
                f"got {tuple(self.labels.shape)} and {self.labels.dtype}"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def device(self) -> torch.device:
        """Where the images are."""
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
        """Return the same images on ``device``; no copy when they are there already."""
        return Split(
            images=self.images.to(device),
            labels=self.labels.to(device),
            num_classes=self.num_classes,
        )

    def subset(self, indices: Tensor) -> "Split":
        """Return a copy of the images at ``indices``, (M,) int64 on the device of the split."""
        return Split(
            images=self.images.index_select(0, indices),
            labels=self.labels.index_select(0, indices),
            num_classes=self.num_classes,
        )

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return (images, labels) at ``indices``: one batch.

        Args:
            indices: (B,) int64 on the device of the split.
        """
        return self.images.index_select(0, indices), self.labels.index_select(0, indices)

    def read(self, start: int, stop: int) -> Tensor:
        """Return the images from ``start`` up to ``stop``, without a copy."""
        return self.images[start:stop]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelStatistics:
    """Mean and standard deviation per channel, of values in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SearchData:
    """What a search may see: there is no test split here, so none can leak.

    Attributes:
        train: images to train classifiers on.
        reward: images that the reward is measured on.
        selection: images that finished schedules are compared on.
        class_names: name of each class, in label order.
        statistics: what images are normalized with.
        fingerprint: hash of every pixel, label and split assignment; equal on every machine. Of
            images that are read from their files while training, names and sizes count instead.
    """

    train: TrainingImages
    reward: Split
    selection: Split
    class_names: tuple[str, ...]
    statistics: ChannelStatistics
    fingerprint: str

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of every image: (C, H, W)."""
        return self.train.image_shape

    @property
    def num_bytes(self) -> int:
        """Memory of all splits, in bytes."""
        return self.train.num_bytes + self.reward.num_bytes + self.selection.num_bytes

    def to(self, device: torch.device | str) -> "SearchData":
        """Return the same data with all images on ``device``."""
        return SearchData(
            train=self.train.to(device),
            reward=self.reward.to(device),
            selection=self.selection.to(device),
            class_names=self.class_names,
            statistics=self.statistics,
            fingerprint=self.fingerprint,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DataSet:
    """Everything: what a search may see, and the test images that it may not.

    Attributes:
        name: source of the images, for messages and reports.
        seen: the splits for training, reward and selection.
        test: images for the final evaluation only.
    """

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
        """What images are normalized with."""
        return self.seen.statistics

    @property
    def fingerprint(self) -> str:
        """Hash of every pixel, label and split assignment; equal on every machine."""
        return self.seen.fingerprint

    @property
    def num_bytes(self) -> int:
        """Memory of all splits, in bytes."""
        return self.seen.num_bytes + self.test.num_bytes

    def for_search(self) -> SearchData:
        """Return the data without its test split.

        Raises:
            DataError: the reward or the selection split is empty.
        """
        for name, split in (("reward", self.seen.reward), ("selection", self.seen.selection)):
            if not len(split):
                raise DataError(f"data.{name}_size: expected more than 0 for a search, got 0")
        return self.seen

    def to(self, device: torch.device | str) -> "DataSet":
        """Return the same data with all images on ``device``."""
        return DataSet(name=self.name, seen=self.seen.to(device), test=self.test.to(device))


# The constants of torchvision's pretrained networks (references/classification/presets.py).
_IMAGENET = ChannelStatistics(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
_IMAGES_AT_ONCE = 1024


def channel_statistics(train: Split, normalization: Normalization) -> ChannelStatistics:
    """Return what images are normalized with.

    Raises:
        DataError: ImageNet's constants are wanted for images that do not have 3 channels.
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
    return _measured(train.images)


def _measured(images_NCHW: Tensor) -> ChannelStatistics:
    # Counts of byte values are exact integers; a sum of floats would depend on its order.
    histogram = torch.zeros(images_NCHW.shape[1], 256, dtype=torch.int64)
    for start in range(0, len(images_NCHW), _IMAGES_AT_ONCE):
        chunk = images_NCHW[start : start + _IMAGES_AT_ONCE]
        for channel in range(len(histogram)):
            histogram[channel] += torch.bincount(chunk[:, channel].flatten(), minlength=256)
    weights = histogram.double() / histogram.sum(dim=1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = weights @ values
    variance = (weights * (values - mean[:, None]).square()).sum(dim=1)
    # A channel of one color has nothing to scale.
    std = torch.where(variance > 0, variance.sqrt(), 1.0)
    return ChannelStatistics(mean=tuple(mean.tolist()), std=tuple(std.tolist()))
