"""Images with the statistics of photographs, made on the spot."""

import numpy as np
import torch
from torch import Tensor


def make_photos(
    num_images: int, *, height: int = 32, width: int = 32, channels: int = 3, seed: int = 0
) -> Tensor:
    """Return (N, C, H, W) uint8 images whose spectrum falls with the frequency, as in photographs.

    Channels share most of their structure, and a few sharp edges are added.
    """
    generator = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    falloff = 1 / np.maximum(np.hypot(rows, columns), 1 / max(height, width)) ** 1.2

    def field(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        white = generator.standard_normal((num_images, count, height, width))
        smooth = np.fft.irfft2(np.fft.rfft2(white) * falloff, s=(height, width))
        return np.asarray(smooth / smooth.std(axis=(1, 2, 3), keepdims=True))

    values = 0.5 + 0.16 * (field(1) + 0.4 * field(channels) + np.sign(field(1)))
    return torch.from_numpy((values.clip(0, 1) * 255).round().astype(np.uint8))
