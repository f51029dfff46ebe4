"""The published CIFAR-10-C and CIFAR-100-C arrays, when the user has downloaded them.

The archives (https://zenodo.org/records/2535967 and 3555552) hold one array for each corruption,
(50000, 32, 32, 3) uint8: the 10,000 test images at severity 1, then at severity 2, and so on, and
`labels.npy`, (50000,).
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from automix.errors import DataError
from automix.evaluation.corruptions.registry import SEVERITIES, Corruption

_LABELS = "labels.npy"
_BYTES_AT_ONCE = 1 << 20

# MD5 sums of the files in the archives, as torch-uncertainty checks them (MIT licence,
# https://github.com/torch-uncertainty/torch-uncertainty).
PUBLISHED_SUMS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "CIFAR-10-C": MappingProxyType(
            {
                "gaussian_noise": "ecaf8b9a2399ffeda7680934c33405fd",
                "shot_noise": "3a7239bb118894f013d9bf1984be7f11",
                "impulse_noise": "2090e01c83519ec51427e65116af6b1a",
                "defocus_blur": "7d1322666342a0702b1957e92f6254bc",
                "glass_blur": "7361fb4019269e02dbf6925f083e8629",
                "motion_blur": "fffa5f852ff7ad299cfe8a7643f090f4",
                "zoom_blur": "6ea8e63f1c5cdee1517533840641641b",
                "snow": "bb238de8555123da9c282dea23bd6e55",
                "frost": "31f6ab3bce1d9934abfb0cc13656f141",
                "fog": "7b397314b5670f825465fbcd1f6e9ccd",
                "brightness": "0a81ef75e0b523c3383219c330a85d48",
                "contrast": "3c8262171c51307f916c30a3308235a8",
                "elastic_transform": "9421657c6cd452429cf6ce96cc412b5f",
                "pixelate": "0f14f7e2db14288304e1de10df16832f",
                "jpeg_compression": "2b9cc4c864e0193bb64db8d7728f8187",
                "labels": "c439b113295ed5254878798ffe28fd54",
            }
        ),
        "CIFAR-100-C": MappingProxyType(
            {
                "gaussian_noise": "ecc4d366eac432bdf25c024086f5e97d",
                "shot_noise": "b0a1fa6e1e465a747c1b204b1914048a",
                "impulse_noise": "3b3c210ddfa0b5cb918ff4537a429fef",
                "defocus_blur": "d923e3d9c585a27f0956e2f2ad832564",
                "glass_blur": "0bf384f38e5ccbf8dd479d9059b913e1",
                "motion_blur": "732a7e2e54152ff97c742d4c388c5516",
                "zoom_blur": "0204613400c034a81c4830d5df81cb82",
                "snow": "0237be164583af146b7b144e73b43465",
                "frost": "3a39c6823bdfaa0bf8b12fe7004b8117",
                "fog": "4efc7ebd5e82b028bdbe13048e3ea564",
                "brightness": "f22d7195aecd6abb541e27fca230c171",
                "contrast": "322bb385f1d05154ee197ca16535f71e",
                "elastic_transform": "a0792bd6581f6810878be71acedfc65a",
                "pixelate": "96c00c60f144539e14cffb02ddbd0640",
                "jpeg_compression": "c851b7f1324e1d2ffddeb76920576d11",
                "labels": "bb4026e9ce52996b95f439544568cdb2",
            }
        ),
    }
)


def verify_published(
    folder: Path, *, sums: Mapping[str, Mapping[str, str]] = PUBLISHED_SUMS
) -> str:
    """Read every array and labels once, and return which published archive they are of.

    Args:
        folder: holds the arrays under their published names.
        sums: MD5 sums of the files of each archive that may be there.

    Raises:
        DataError: a file is missing or is not that of the archive the labels are of.
    """
    found = _md5(folder / _LABELS)
    names = [name for name, files in sums.items() if files["labels"] == found]
    if not names:
        raise DataError(
            f"{folder / _LABELS}: expected the published file of {' or '.join(sums)}, "
            f"got another (MD5 {found})"
        )
    for corruption in Corruption:
        path = folder / f"{corruption.value}.npy"
        if (found := _md5(path)) != (wanted := sums[names[0]][corruption.value]):
            raise DataError(
                f"{path}: expected the published file of {names[0]} (MD5 {wanted}), "
                f"got another (MD5 {found})"
            )
    return names[0]


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with path.open("rb") as stream:
            while block := stream.read(_BYTES_AT_ONCE):
                digest.update(block)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataError(f"{path}: expected a readable NumPy array, got: {reason}") from None
    return digest.hexdigest()


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
