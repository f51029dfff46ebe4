"""Images as pixels, and their files: free of Matplotlib, which a replay does not load.

Shape suffixes: C channels, H rows, W columns.
"""

import io
import warnings
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

Pixels = NDArray[np.uint8]
"""(H, W, 3)."""

# Of a picture that is read from the folder of a run, which may come from others.
_LARGEST_SIDE: Final = 4096
_QUALITY: Final = 80


def photograph(image_CHW: Tensor) -> Pixels:
    """Return as pixels an image of (1 | 3 | 4, H, W) uint8, or floating point in [0, 1].

    A fourth channel is left out.

    Raises:
        ValueError: another number of channels, or values outside [0, 1].
    """
    if image_CHW.dim() != 3 or image_CHW.shape[0] not in {1, 3, 4}:
        raise ValueError(
            f"expected an image of shape (1, 3 or 4, H, W), got {tuple(image_CHW.shape)}"
        )
    image = image_CHW[:3].permute(1, 2, 0).expand(-1, -1, 3).cpu()
    if not image.is_floating_point():
        return np.ascontiguousarray(image.numpy(), dtype=np.uint8)
    values = image.float().numpy()
    # Interpolation overshoots by a little; normalized images are out by far more.
    if values.min() < -0.01 or values.max() > 1.01:
        raise ValueError(
            f"expected pixels in [0, 1], before normalization, got {values.min():g} to "
            f"{values.max():g}"
        )
    return as_bytes(255 * values.clip(0, 1))


def as_bytes(values: ArrayLike) -> Pixels:
    """Return values in [0, 255] as rounded bytes."""
    return np.rint(values).astype(np.uint8, copy=False)


def enlarged(pixels: Pixels, side: int) -> Pixels:
    """Return pixels repeated a whole number of times, the longer side near ``side``.

    Small images keep their exact pixels, each as a square. Larger ones are averaged down.
    """
    longest = max(pixels.shape[:2])
    if longest <= side:
        factor = max(1, round(side / longest))
        return pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    height, width = (max(1, round(size * side / longest)) for size in pixels.shape[:2])
    small = Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.uint8)


def png(pixels: Pixels) -> bytes:
    """Return pixels as PNG; equal pixels give equal bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def webp(pixels: Pixels) -> bytes:
    """Return pixels as a small, lossy WebP; equal pixels give equal bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="webp", quality=_QUALITY, method=6)
    return buffer.getvalue()


def read_webp(content: bytes) -> Pixels:
    """Return the pixels of a WebP.

    Raises:
        ValueError: it is none, is damaged, or has a side above 4,096.
    """
    try:
        # The sides stand in the header: what is too large is not decoded.
        with warnings.catch_warnings(), Image.open(io.BytesIO(content), formats=["webp"]) as image:
            warnings.simplefilter("error")
            if max(image.size) > _LARGEST_SIDE:
                raise ValueError(f"expected sides up to {_LARGEST_SIDE}, got {max(image.size)}")
            return np.asarray(image.convert("RGB"), dtype=np.uint8)
    except (OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"expected a WebP, got: {reason}") from None
