"""Training images that stay in their files until a batch needs them.

Shape suffixes: N images, C channels, H rows, W columns.
"""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from automix.data.augment import draw_crop_boxes
from automix.data.config import AugmentConfig
from automix.data.decode import ImageFormat, PixelBox, read_crop, read_image, refusing_bombs
from automix.data.parallel import in_order
from automix.data.splits import Split


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
        num_classes: number of classes of the data set, at least 1.
        evaluated: what evaluation makes of an image: scaled, and cut at the centre.
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
