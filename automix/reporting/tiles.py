"""Single pictures of a contact sheet, as (H, W, 3) uint8 arrays and as PNG.

Shape suffixes: C channels, H rows, W columns.
"""

import base64
import io

import numpy as np
from matplotlib import colormaps
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor

from automix.reporting.palette import OWN_COLOUR, PARTNER_COLOUR

Pixels = NDArray[np.uint8]

_TOLERANCE = 0.01


def photograph(image_CHW: Tensor) -> Pixels:
    """Return an image as pixels.

    Args:
        image_CHW: (1 | 3 | 4, H, W), uint8, or floating point in [0, 1]; a fourth channel is left
            out.

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
    if values.min() < -_TOLERANCE or values.max() > 1 + _TOLERANCE:
        raise ValueError(
            f"expected pixels in [0, 1], before normalisation, got {values.min():g} to "
            f"{values.max():g}"
        )
    return _bytes(255 * values.clip(0, 1))


def heat_map(saliency_HW: Tensor) -> Pixels:
    """Return a saliency map in colours, dark for nothing, relative to its own maximum."""
    values = np.nan_to_num(saliency_HW.detach().float().cpu().numpy()).clip(min=0)
    values = values / (values.max() or 1)
    return _bytes(255 * colormaps["magma"](values)[..., :3])


def mask_map(mask_HW: Tensor) -> Pixels:
    """Return a mask of partner weights as a blend from the own to the partner's colour."""
    weight = mask_HW.detach().float().cpu().numpy().clip(0, 1)[..., None]
    own, partner = (np.array(rgb(colour)) for colour in (OWN_COLOUR, PARTNER_COLOUR))
    return _bytes(own * (1 - weight) + partner * weight)


def _bytes(values: ArrayLike) -> Pixels:
    return np.rint(values).astype(np.uint8, copy=False)


def rgb(colour: str) -> tuple[int, int, int]:
    """Return ``#rrggbb`` as three numbers in [0, 255]."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


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


def data_uri(content: bytes) -> str:
    """Return PNG bytes as an address that needs no file."""
    return "data:image/png;base64," + base64.b64encode(content).decode()
