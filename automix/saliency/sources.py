"""Saliency sources: by name, cached over steps, and the spectral residual of the image alone.

Shape suffixes: B batch, C channels, H rows, W columns, K classes.
"""

import functools
from typing import TYPE_CHECKING, Protocol, TypedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automix.operator_info import SaliencyKind
from automix.saliency.attention import attention_rollout
from automix.saliency.gradient import (
    input_gradient,
    layer_gradient,
    normalized,
    reduced_gradient,
    resized,
)
from automix.saliency.losses import Loss

if TYPE_CHECKING:
    # Not at run time: whoever mixes in a loop of their own needs no configuration of ours.
    from automix.configuration.task import SaliencyConfig

_LUMA = (0.2989, 0.587, 0.114)
_BLUR_SIGMA = 3.0
_BLUR_RADIUS = 3
# The method looks at coarse structure; GuidedMixup's code resizes at the same limit.
_LARGEST_SIDE = 128


class SaliencySource(Protocol):
    """Anything that tells how much each pixel matters for the class of its image."""

    def __call__(self, model: nn.Module, images_BCHW: Tensor, targets: Tensor) -> Tensor:
        """Return (B, H, W) float32 maps, not negative, summing to 1 per image.

        Where nothing is salient (or something is not finite) the map is uniform.

        Args:
            model: a classifier, (B, C, H, W) to logits (B, K); its parameters, gradients, buffers
                and flags are the same afterwards, and so are the global random generators.
            images_BCHW: floating point, as the model takes them.
            targets: (B,) class indices or (B, K) soft targets.
        """
        ...


def build_source(config: "SaliencyConfig", *, loss: Loss | None = None) -> SaliencySource:
    """Return the source that ``config`` names; it computes maps in every call.

    `CachedSource` keeps them for ``refresh_every`` steps. ``loss`` is that of the gradients, the
    cross-entropy by default.
    """
    match config.source:
        case SaliencyKind.INPUT_GRADIENT:
            return functools.partial(input_gradient, statistics=config.statistics, loss=loss)
        case SaliencyKind.LAYER_GRADIENT:
            assert config.layer is not None
            return functools.partial(
                layer_gradient, layer=config.layer, statistics=config.statistics, loss=loss
            )
        case SaliencyKind.REDUCED_GRADIENT:
            return functools.partial(
                reduced_gradient,
                scale=config.scale or 0.5,
                statistics=config.statistics,
                loss=loss,
            )
        case SaliencyKind.ATTENTION_ROLLOUT:
            return functools.partial(attention_rollout, statistics=config.statistics)
        case SaliencyKind.SPECTRAL_RESIDUAL:
            # Of the image alone: neither the model nor the targets are looked at.
            return lambda model, images_BCHW, targets: spectral_residual(images_BCHW)


class CacheState(TypedDict):
    """The maps that are kept, (B, H, W), and the number of the batch they belong to."""

    batch: int
    maps: Tensor


class CachedSource:
    """A source that asks another one once for each batch, and keeps its maps in between.

    Example::

        cache = CachedSource(input_gradient, refresh_every=4)
        cache.hold(step // cache.refresh_every)
        maps = cache(model, images, labels)

    ``refresh_every`` is k, the number of steps that the training loop holds a batch. The loop does
    the holding; with 1 nothing is kept.
    """

    def __init__(self, source: SaliencySource, *, refresh_every: int) -> None:
        """Keep nothing yet.

        Raises:
            ValueError: ``refresh_every`` is below 1.
        """
        if refresh_every < 1:
            raise ValueError(f"refresh_every: expected 1 step or more, got {refresh_every}")
        self.source = source
        self.refresh_every = refresh_every
        self._batch: int | None = None
        self._kept: CacheState | None = None

    def hold(self, batch: int) -> None:
        """Say which images the next calls are about, by a number; maps are kept while it lasts."""
        self._batch = batch

    def __call__(self, model: nn.Module, images_BCHW: Tensor, targets: Tensor) -> Tensor:
        """Return (B, H, W) maps, see `automix.saliency.sources.SaliencySource`.

        Until `hold` is called for the first time they are computed in every call.
        """
        if self._batch is None or self.refresh_every == 1:
            return self.source(model, images_BCHW, targets)
        if self._kept is None or self._kept["batch"] != self._batch:
            maps = self.source(model, images_BCHW, targets)
            self._kept = CacheState(batch=self._batch, maps=maps)
        return self._kept["maps"]

    def clear(self) -> None:
        """Forget maps and batch."""
        self._batch = self._kept = None

    def state_dict(self) -> CacheState | None:
        """Return what a checkpoint has to hold, without copying it; None where nothing is kept."""
        return self._kept

    def load_state_dict(self, state: CacheState | None, *, device: torch.device) -> None:
        """Keep the maps of a checkpoint, on ``device``."""
        self.clear()
        if state is not None:
            self._kept = CacheState(batch=state["batch"], maps=state["maps"].to(device))


def spectral_residual(images_BCHW: Tensor) -> Tensor:
    """Return the spectral residual of each image (Hou and Zhang, CVPR 2007), blurred.

    What is left of the log amplitude spectrum after a 3x3 mean is taken off goes back to pixels
    with the phases kept. As GuidedMixup uses it (https://arxiv.org/abs/2306.16612): Gaussian blur
    of 7x7, sigma 3. Images with a side above 128 are shrunk for it; three channels are weighted as
    luma, others averaged. Maps, (B, H, W) float32, sum to 1 per image, and are uniform where they
    would be zero or not finite.
    """
    height, width = images_BCHW.shape[2:]
    with torch.no_grad(), torch.autocast(images_BCHW.device.type, enabled=False):
        gray = _gray(images_BCHW)
        if (largest := max(height, width)) > _LARGEST_SIDE:
            shrink = _LARGEST_SIDE / largest
            gray = resized(gray, max(1, round(height * shrink)), max(1, round(width * shrink)))
        return normalized(resized(_blurred(_residual(gray)), height, width))


def _gray(images_BCHW: Tensor) -> Tensor:
    images = images_BCHW.float()
    if images.shape[1] != len(_LUMA):
        return images.mean(dim=1)
    red, green, blue = images.unbind(dim=1)
    return _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue


def _residual(gray_BHW: Tensor) -> Tensor:
    spectrum = torch.fft.fft2(gray_BHW)
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
