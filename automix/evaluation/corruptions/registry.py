"""The corruptions by name, what each severity means, and applying one of them.

Shape suffixes: N images, C channels, H rows, W columns.
"""

import hashlib
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from automix.errors import DataError
from automix.evaluation.corruptions import blur_weather as blur
from automix.evaluation.corruptions import noise_digital as noise
from automix.evaluation.counter_random import SampleRandom
from automix.random_streams import Stream, derived_seed
from automix.readers import open_regular, parsing

SEVERITIES = (1, 2, 3, 4, 5)

# A file of CIFAR-C has 154 MB.
_MAX_ARRAY_BYTES = 1_000_000_000
_IMAGES_AT_ONCE = 256


class Corruption(StrEnum):
    """The corruptions of CIFAR-C; values are the names of its files."""

    GAUSSIAN_NOISE = "gaussian_noise"
    SHOT_NOISE = "shot_noise"
    IMPULSE_NOISE = "impulse_noise"
    DEFOCUS_BLUR = "defocus_blur"
    GLASS_BLUR = "glass_blur"
    MOTION_BLUR = "motion_blur"
    ZOOM_BLUR = "zoom_blur"
    SNOW = "snow"
    FROST = "frost"
    FOG = "fog"
    BRIGHTNESS = "brightness"
    CONTRAST = "contrast"
    ELASTIC_TRANSFORM = "elastic_transform"
    PIXELATE = "pixelate"
    JPEG_COMPRESSION = "jpeg_compression"


class CorruptionSpec(NamedTuple):
    """A function of float images in [0, 1], draws and parameters; its parameters by severity."""

    apply: Callable[..., Tensor]
    parameters: tuple[tuple[float, ...], ...]


def _spec(apply: Callable[..., Tensor], *parameters: tuple[float, ...]) -> CorruptionSpec:
    return CorruptionSpec(apply, parameters)


# Parameters are the published ones (Hendrycks and Dietterich 2019, https://arxiv.org/abs/1903.12261,
# the authors' script for CIFAR) for noise, zoom blur, fog, brightness, contrast, pixelate and JPEG.
# The others are ours: the published severities of glass blur, frost and the elastic transform are
# not ordered by distance from the clean image, nor are those of defocus blur on images of more than
# 32 pixels; 3 and 4 of motion blur are the same, and snow varies in seven ways at once.
CORRUPTIONS: Mapping[Corruption, CorruptionSpec] = MappingProxyType(
    {
        Corruption.GAUSSIAN_NOISE: _spec(
            noise.gaussian_noise, (0.04,), (0.06,), (0.08,), (0.09,), (0.1,)
        ),
        Corruption.SHOT_NOISE: _spec(noise.shot_noise, (500,), (250,), (100,), (75,), (50,)),
        Corruption.IMPULSE_NOISE: _spec(
            noise.impulse_noise, (0.01,), (0.02,), (0.03,), (0.05,), (0.07,)
        ),
        Corruption.DEFOCUS_BLUR: _spec(
            blur.defocus_blur, (0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.5), (1.5, 0.5)
        ),
        Corruption.GLASS_BLUR: _spec(
            blur.glass_blur,
            *((0.4, 0.4, 1), (0.4, 0.7, 1), (0.4, 1, 1), (0.4, 0.8, 2), (0.4, 1, 2)),
        ),
        Corruption.MOTION_BLUR: _spec(blur.motion_blur, (1,), (1.5,), (2,), (2.25,), (2.5,)),
        Corruption.ZOOM_BLUR: _spec(blur.zoom_blur, (1.05,), (1.1,), (1.15,), (1.2,), (1.25,)),
        Corruption.SNOW: _spec(
            blur.snow,
            (0.1, 0.6, 3, 0.95),
            (0.1, 0.5, 4, 0.9),
            (0.15, 0.55, 4, 0.9),
            (0.25, 0.6, 6, 0.85),
            (0.3, 0.65, 12, 0.8),
        ),
        Corruption.FROST: _spec(
            blur.frost, (1, 0.2), (1, 0.3), (0.95, 0.4), (0.9, 0.5), (0.85, 0.6)
        ),
        Corruption.FOG: _spec(blur.fog, (0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        Corruption.BRIGHTNESS: _spec(blur.brightness, (0.05,), (0.1,), (0.15,), (0.2,), (0.3,)),
        Corruption.CONTRAST: _spec(noise.contrast, (0.75,), (0.5,), (0.4,), (0.3,), (0.15,)),
        Corruption.ELASTIC_TRANSFORM: _spec(
            noise.elastic_transform,
            (0.8, 1.9, 0.8),
            (1.6, 1.6, 1.0),
            (2.4, 1.3, 1.2),
            (3.2, 1.3, 1.4),
            (3.2, 1.0, 1.6),
        ),
        Corruption.PIXELATE: _spec(noise.pixelate, (0.95,), (0.9,), (0.85,), (0.75,), (0.65,)),
        Corruption.JPEG_COMPRESSION: _spec(
            noise.jpeg_compression, (80,), (65,), (58,), (50,), (40,)
        ),
    }
)


@torch.no_grad()
def corrupt(
    images_NCHW: Tensor,
    corruption: Corruption,
    severity: int,
    *,
    seed: int,
    indices: Tensor | None = None,
) -> Tensor:
    """Return corrupted images; what happens to one depends on ``seed`` and its index alone.

    Images are uint8, or floating in [0, 1], of any size and number of channels; the result has
    their dtype and device, and bytes are rounded. ``indices``, (N,) int64, are their numbers in
    their dataset, 0 to N - 1 by default. The same draws serve all severities, so a stronger one is
    the same noise or the same distortion made stronger.

    Raises:
        ValueError: the severity, the shapes or the dtype do not fit.
    """
    if severity not in SEVERITIES:
        raise ValueError(f"severity: expected 1 to 5, got {severity}")
    if images_NCHW.ndim != 4 or not (
        images_NCHW.dtype == torch.uint8 or images_NCHW.is_floating_point()
    ):
        raise ValueError(
            "images: expected uint8 or floating of shape (N, C, H, W), "
            f"got {images_NCHW.dtype} of shape {tuple(images_NCHW.shape)}"
        )
    if indices is None:
        indices = torch.arange(len(images_NCHW), device=images_NCHW.device)
    if indices.shape != images_NCHW.shape[:1]:
        raise ValueError(
            f"indices: expected one for each of {len(images_NCHW)} images, "
            f"got shape {tuple(indices.shape)}"
        )
    is_stored = images_NCHW.dtype == torch.uint8
    spec = CORRUPTIONS[corruption]
    parameters = spec.parameters[severity - 1]
    draws_seed = derived_seed(seed, Stream.CORRUPTION, rank=list(Corruption).index(corruption))
    # In parts, so that the memory of a corruption does not grow with the dataset.
    result = torch.empty_like(images_NCHW)
    for start in range(0, len(images_NCHW), _IMAGES_AT_ONCE):
        part = slice(start, start + _IMAGES_AT_ONCE)
        random = SampleRandom(seed=draws_seed, indices=indices[part])
        images = images_NCHW[part].float()
        images = images / 255 if is_stored else images
        values = spec.apply(images, random, *parameters).clamp(0, 1)
        # Means of bytes often lie half-way between two. The nudge makes them all round up; without
        # it the last bit of a float, which depends on the size of the batch, would decide.
        result[part] = values.mul(255).add(1e-3).round() if is_stored else values
    return result


_LABELS = "labels.npy"

# MD5 sums of the files of CIFAR-10-C and CIFAR-100-C, as checked by torch-uncertainty (MIT
# license, https://github.com/torch-uncertainty/torch-uncertainty).
_SUMS = """
gaussian_noise    ecaf8b9a2399ffeda7680934c33405fd ecc4d366eac432bdf25c024086f5e97d
shot_noise        3a7239bb118894f013d9bf1984be7f11 b0a1fa6e1e465a747c1b204b1914048a
impulse_noise     2090e01c83519ec51427e65116af6b1a 3b3c210ddfa0b5cb918ff4537a429fef
defocus_blur      7d1322666342a0702b1957e92f6254bc d923e3d9c585a27f0956e2f2ad832564
glass_blur        7361fb4019269e02dbf6925f083e8629 0bf384f38e5ccbf8dd479d9059b913e1
motion_blur       fffa5f852ff7ad299cfe8a7643f090f4 732a7e2e54152ff97c742d4c388c5516
zoom_blur         6ea8e63f1c5cdee1517533840641641b 0204613400c034a81c4830d5df81cb82
snow              bb238de8555123da9c282dea23bd6e55 0237be164583af146b7b144e73b43465
frost             31f6ab3bce1d9934abfb0cc13656f141 3a39c6823bdfaa0bf8b12fe7004b8117
fog               7b397314b5670f825465fbcd1f6e9ccd 4efc7ebd5e82b028bdbe13048e3ea564
brightness        0a81ef75e0b523c3383219c330a85d48 f22d7195aecd6abb541e27fca230c171
contrast          3c8262171c51307f916c30a3308235a8 322bb385f1d05154ee197ca16535f71e
elastic_transform 9421657c6cd452429cf6ce96cc412b5f a0792bd6581f6810878be71acedfc65a
pixelate          0f14f7e2db14288304e1de10df16832f 96c00c60f144539e14cffb02ddbd0640
jpeg_compression  2b9cc4c864e0193bb64db8d7728f8187 c851b7f1324e1d2ffddeb76920576d11
labels            c439b113295ed5254878798ffe28fd54 bb4026e9ce52996b95f439544568cdb2
"""
_SUMS_BY_FILE = {name: sums for name, *sums in map(str.split, _SUMS.split("\n")[1:-1])}
PUBLISHED_SUMS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        archive: MappingProxyType({name: sums[index] for name, sums in _SUMS_BY_FILE.items()})
        for index, archive in enumerate(("CIFAR-10-C", "CIFAR-100-C"))
    }
)
"""MD5 sum of each file by archive."""


def verify_published(
    folder: Path, *, sums: Mapping[str, Mapping[str, str]] = PUBLISHED_SUMS
) -> str:
    """Read every array and the labels once, and return the name of their published archive.

    ``sums`` are the MD5 sums of the files of each archive that may be in the folder.

    Raises:
        DataError: a file is missing or is not that of the archive the labels are of.
    """
    # The labels of the two archives differ, so they say which sums the arrays must have.
    digest = _md5(folder / _LABELS)
    names = [name for name, files in sums.items() if files["labels"] == digest]
    if not names:
        raise DataError(
            f"{folder / _LABELS}: expected the published file of {' or '.join(sums)}, "
            f"got another (MD5 {digest})"
        )
    for corruption in Corruption:
        path = folder / f"{corruption.value}.npy"
        if (digest := _md5(path)) != (expected := sums[names[0]][corruption.value]):
            raise DataError(
                f"{path}: expected the published file of {names[0]} (MD5 {expected}), "
                f"got another (MD5 {digest})"
            )
    return names[0]


def _md5(path: Path) -> str:
    with open_regular(path, limit=_MAX_ARRAY_BYTES, error=DataError) as stream:
        digest = hashlib.file_digest(stream, partial(hashlib.md5, usedforsecurity=False))
    return digest.hexdigest()


def read_published(folder: Path, corruption: Corruption, severity: int) -> tuple[Tensor, Tensor]:
    """Return (images, labels) of one corruption at one severity, in the order of the test set.

    Images are (N, C, H, W) uint8, labels (N,) int64. Only that part of the file is read.

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
    # A file holds the test set five times, in order of severity.
    num_images = len(images) // len(SEVERITIES)
    part = slice((severity - 1) * num_images, severity * num_images)
    images_NCHW = torch.from_numpy(np.array(images[part])).permute(0, 3, 1, 2).contiguous()
    return images_NCHW, torch.from_numpy(labels[part].astype(np.int64))


def _open(path: Path) -> NDArray[np.generic]:
    """Map an array without reading it."""
    with (
        open_regular(path, limit=_MAX_ARRAY_BYTES, error=DataError),
        parsing(str(path), "a NumPy array", error=DataError),
    ):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: expected one NumPy array, got an archive of several")
    return array
