"""Saliency without a network: what is unusual in an image's spectrum."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automix.saliency.maps import normalised, resized

_LUMA = (0.2989, 0.587, 0.114)
_BLUR_SIGMA = 3.0
_BLUR_RADIUS = 3
# The method looks at coarse structure; GuidedMixup's code resizes at the same limit.
_LARGEST_SIDE = 128


def spectral_residual(images_BCHW: Tensor) -> Tensor:
    """Return the spectral residual of each image (Hou and Zhang, CVPR 2007), blurred.

    What is left of the log amplitude spectrum after a 3x3 mean is taken off goes back to pixels
    with the phases kept. As GuidedMixup uses it (https://arxiv.org/abs/2306.16612): Gaussian blur
    of 7x7, sigma 3. Images with a side above 128 are shrunk for it.

    Args:
        images_BCHW: floating point; three channels are weighted as luma, others averaged.

    Returns:
        (B, H, W) float32, sums to 1 per image; uniform where it is zero or not finite.
    """
    height, width = images_BCHW.shape[2:]
    with torch.no_grad(), torch.autocast(images_BCHW.device.type, enabled=False):
        grey = _grey(images_BCHW)
        if (largest := max(height, width)) > _LARGEST_SIDE:
            shrink = _LARGEST_SIDE / largest
            grey = resized(grey, max(1, round(height * shrink)), max(1, round(width * shrink)))
        return normalised(resized(_blurred(_residual(grey)), height, width))


@dataclass(frozen=True, slots=True)
class SpectralResidual:
    """`spectral_residual` as a source; neither the model nor the targets are looked at."""

    def __call__(self, model: nn.Module, images_BCHW: Tensor, targets: Tensor) -> Tensor:
        """Return (B, H, W) maps, see `automix.saliency.types.SaliencySource`."""
        return spectral_residual(images_BCHW)


def _grey(images_BCHW: Tensor) -> Tensor:
    images = images_BCHW.float()
    if images.shape[1] != len(_LUMA):
        return images.mean(dim=1)
    red, green, blue = images.unbind(dim=1)
    return _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue


def _residual(grey_BHW: Tensor) -> Tensor:
    spectrum = torch.fft.fft2(grey_BHW)
    # The small constant is that of the published code: log of an empty frequency stays finite.
    amplitude = (spectrum.abs().square() + 1e-10).sqrt()
    log = amplitude.log()
    mean = F.avg_pool2d(F.pad(log[:, None], (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    residual = (log - mean.squeeze(1)).exp()
    pixels: Tensor = torch.fft.ifft2(spectrum * (residual / amplitude)).abs()
    return pixels


def _blurred(maps_BHW: Tensor) -> Tensor:
    """Gaussian blur; the border is mirrored, or repeated where a side is too short to mirror."""
    position = torch.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1, device=maps_BHW.device)
    kernel = torch.exp(-position.float().square() / (2 * _BLUR_SIGMA**2))
    kernel = kernel / kernel.sum()
    mode = "reflect" if min(maps_BHW.shape[1:]) > _BLUR_RADIUS else "replicate"
    padded = F.pad(maps_BHW[:, None], (_BLUR_RADIUS,) * 4, mode=mode)
    rows = F.conv2d(padded, kernel.view(1, 1, -1, 1))
    return F.conv2d(rows, kernel.view(1, 1, 1, -1)).squeeze(1)
