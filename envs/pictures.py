"""Pictures of batches for `render`: many small images side by side.

Shape suffixes: B batch, C channels, H rows, W columns.
"""

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from automix.data.splits import ChannelStatistics

_MOST_IMAGES = 64
_SHORTEST_SIDE = 32
_BORDER = 2


def tiled(images_BCHW: Tensor, statistics: ChannelStatistics) -> NDArray[np.uint8]:
    """Return the first 64 normalized images as one (rows, columns, 3) picture.

    Small images are enlarged to at least 32 pixels a side, without smoothing.
    """
    images = images_BCHW[:_MOST_IMAGES].detach().float().cpu().numpy()
    mean, std = (np.array(values)[:, None, None] for values in (statistics.mean, statistics.std))
    pixels = np.rint((images * std + mean) * 255).clip(0, 255).astype(np.uint8)
    pixels = np.broadcast_to(pixels, (len(pixels), 3, *pixels.shape[2:]))
    factor = max(1, math.ceil(_SHORTEST_SIDE / min(pixels.shape[2:])))
    pixels = pixels.repeat(factor, axis=2).repeat(factor, axis=3)
    # A square of tiles, white where there is no image.
    height, width = (side + _BORDER for side in pixels.shape[2:])
    columns = math.ceil(math.sqrt(len(pixels)))
    rows = math.ceil(len(pixels) / columns)
    picture = np.full((rows * height + _BORDER, columns * width + _BORDER, 3), 255, np.uint8)
    for index, image in enumerate(pixels):
        top, left = _BORDER + index // columns * height, _BORDER + index % columns * width
        picture[top : top + height - _BORDER, left : left + width - _BORDER] = image.transpose(
            1, 2, 0
        )
    return picture
