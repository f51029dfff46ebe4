"""The corruptions by name, what each severity means, and applying one of them.

Shape suffixes: N images, C channels, H rows, W columns.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import torch
from torch import Tensor

from automix.evaluation.corruptions import blur, digital, jpeg, noise, weather
from automix.evaluation.counter_random import SampleRandom
from automix.random_streams import Stream, derived_seed

SEVERITIES = (1, 2, 3, 4, 5)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class CorruptionSpec:
    """How a corruption is made.

    Attributes:
        apply: takes float images in [0, 1], the draws, and the parameters of a severity.
        parameters: of severities 1 to 5.
    """

    apply: Callable[..., Tensor]
    parameters: tuple[tuple[float, ...], ...]


# Parameters are the published ones (https://arxiv.org/abs/1903.12261, the authors' script for
# CIFAR) for noise, zoom blur, fog, brightness, contrast, pixelate and JPEG. The others are ours:
# the published severities of glass blur, frost and the elastic transform are not ordered by
# distance from the clean image, nor are those of defocus blur on images of more than 32 pixels;
# 3 and 4 of motion blur are the same, and snow varies in seven ways at once.
CORRUPTIONS: Mapping[Corruption, CorruptionSpec] = MappingProxyType(
    {
        Corruption.GAUSSIAN_NOISE: CorruptionSpec(
            apply=noise.gaussian_noise, parameters=((0.04,), (0.06,), (0.08,), (0.09,), (0.1,))
        ),
        Corruption.SHOT_NOISE: CorruptionSpec(
            apply=noise.shot_noise, parameters=((500,), (250,), (100,), (75,), (50,))
        ),
        Corruption.IMPULSE_NOISE: CorruptionSpec(
            apply=noise.impulse_noise, parameters=((0.01,), (0.02,), (0.03,), (0.05,), (0.07,))
        ),
        Corruption.DEFOCUS_BLUR: CorruptionSpec(
            apply=blur.defocus_blur,
            parameters=((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.5), (1.5, 0.5)),
        ),
        Corruption.GLASS_BLUR: CorruptionSpec(
            apply=blur.glass_blur,
            parameters=((0.4, 0.4, 1), (0.4, 0.7, 1), (0.4, 1, 1), (0.4, 0.8, 2), (0.4, 1, 2)),
        ),
        Corruption.MOTION_BLUR: CorruptionSpec(
            apply=blur.motion_blur, parameters=((1,), (1.5,), (2,), (2.25,), (2.5,))
        ),
        Corruption.ZOOM_BLUR: CorruptionSpec(
            apply=blur.zoom_blur, parameters=((1.05,), (1.1,), (1.15,), (1.2,), (1.25,))
        ),
        Corruption.SNOW: CorruptionSpec(
            apply=weather.snow,
            parameters=(
                (0.1, 0.6, 3, 0.95),
                (0.1, 0.5, 4, 0.9),
                (0.15, 0.55, 4, 0.9),
                (0.25, 0.6, 6, 0.85),
                (0.3, 0.65, 12, 0.8),
            ),
        ),
        Corruption.FROST: CorruptionSpec(
            apply=weather.frost,
            parameters=((1, 0.2), (1, 0.3), (0.95, 0.4), (0.9, 0.5), (0.85, 0.6)),
        ),
        Corruption.FOG: CorruptionSpec(
            apply=weather.fog,
            parameters=((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        ),
        Corruption.BRIGHTNESS: CorruptionSpec(
            apply=weather.brightness, parameters=((0.05,), (0.1,), (0.15,), (0.2,), (0.3,))
        ),
        Corruption.CONTRAST: CorruptionSpec(
            apply=digital.contrast, parameters=((0.75,), (0.5,), (0.4,), (0.3,), (0.15,))
        ),
        Corruption.ELASTIC_TRANSFORM: CorruptionSpec(
            apply=digital.elastic_transform,
            parameters=(
                (0.8, 1.9, 0.8),
                (1.6, 1.6, 1.0),
                (2.4, 1.3, 1.2),
                (3.2, 1.3, 1.4),
                (3.2, 1.0, 1.6),
            ),
        ),
        Corruption.PIXELATE: CorruptionSpec(
            apply=digital.pixelate, parameters=((0.95,), (0.9,), (0.85,), (0.75,), (0.65,))
        ),
        Corruption.JPEG_COMPRESSION: CorruptionSpec(
            apply=jpeg.jpeg_compression, parameters=((80,), (65,), (58,), (50,), (40,))
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

    The same draws serve all severities, so a stronger one is the same noise or the same distortion
    made stronger.

    Args:
        images_NCHW: uint8, or floating in [0, 1]; any size and number of channels.
        corruption: which one.
        severity: 1 to 5.
        seed: names all draws.
        indices: (N,) int64 number of each image in its data set; 0 to N - 1 by default.

    Returns:
        (N, C, H, W) of the same dtype on the same device; bytes are rounded.

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
    spec = CORRUPTIONS[corruption]
    parameters = spec.parameters[severity - 1]
    draws_seed = derived_seed(seed, Stream.CORRUPTION, rank=list(Corruption).index(corruption))
    result = torch.empty_like(images_NCHW)
    for start in range(0, len(images_NCHW), _IMAGES_AT_ONCE):
        part = slice(start, start + _IMAGES_AT_ONCE)
        random = SampleRandom(seed=draws_seed, indices=indices[part])
        values = spec.apply(_as_unit(images_NCHW[part]), random, *parameters).clamp(0, 1)
        result[part] = _as_bytes(values) if images_NCHW.dtype == torch.uint8 else values
    return result


def _as_unit(images_BCHW: Tensor) -> Tensor:
    """Return float32 images in [0, 1]."""
    images = images_BCHW.float()
    return images / 255 if images_BCHW.dtype == torch.uint8 else images


def _as_bytes(images_BCHW: Tensor) -> Tensor:
    """Return images in [0, 1] as whole numbers from 0 to 255."""
    # Means of bytes often lie half-way between two. The nudge makes them all round up; without it
    # the last bit of a float, which depends on the size of the batch, would decide.
    return images_BCHW.mul(255).add(1e-3).round()
