"""The published CIFAR-10-C and CIFAR-100-C arrays, when the user has downloaded them.

The archives (https://zenodo.org/records/2535967 and 3555552) hold one array for each corruption,
(50000, 32, 32, 3) uint8: the 10,000 test images at severity 1, then at severity 2, and so on, and
`labels.npy`, (50000,).
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from automix.errors import DataError
from automix.evaluation.corruptions.registry import SEVERITIES, Corruption

_LABELS = "labels.npy"


def read_published(folder: Path, corruption: Corruption, severity: int) -> tuple[Tensor, Tensor]:
    """Return (images, labels) of one corruption at one severity, in the order of the test set.

    Only that part of the file is read.

    Args:
        folder: holds the arrays under their published names.
        corruption: which one.
        severity: 1 to 5.

    Returns:
        (N, C, H, W) uint8 and (N,) int64, on the CPU.

    Raises:
        DataError: a file is missing, is not an array, or does not have the published layout.
        ValueError: the severity is not 1 to 5.
    """
    if severity not in SEVERITIES:
        raise ValueError(f"severity: expected 1 to 5, got {severity}")
    images_path, labels_path = folder / f"{corruption.value}.npy", folder / _LABELS
    images, labels = _open(images_path), _open(labels_path)
    if images.ndim != 4 or images.dtype != np.uint8 or len(images) % len(SEVERITIES):
        raise DataError(
            f"{images_path}: expected uint8 images of shape (5 N, H, W, C), "
            f"got {images.dtype} of shape {images.shape}"
        )
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise DataError(
            f"{labels_path}: expected one integer for each of {len(images)} images, "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    num_images = len(images) // len(SEVERITIES)
    part = slice((severity - 1) * num_images, severity * num_images)
    images_NCHW = torch.from_numpy(np.array(images[part])).permute(0, 3, 1, 2).contiguous()
    return images_NCHW, torch.from_numpy(labels[part].astype(np.int64))


def _open(path: Path) -> NDArray[np.generic]:
    """Map an array without reading it."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataError(f"{path}: expected a readable NumPy array, got: {reason}") from None
    except (ValueError, EOFError):
        raise DataError(f"{path}: expected a NumPy array, got a file of another kind") from None
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: expected one NumPy array, got an archive of several")
    return array
