"""From stored bytes to what a network sees: epoch order, normalisation, batch preparation.

Shape suffixes: B batch, C channels, H rows, W columns.
"""

import torch
from torch import Generator, Tensor

from automix.data.augment import (
    AugmentDraws,
    apply_augmentation,
    apply_resized_crop,
    draw_augmentation,
    draw_crop_boxes,
)
from automix.data.config import AugmentConfig
from automix.data.splits import ChannelStatistics
from automix.random_streams import Stream, stream_generator


def epoch_order(
    num_images: int, *, seed: int, epoch: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Return the order in which an epoch visits the images: a function of (seed, epoch) alone.

    It is drawn on the CPU, so that it does not depend on the device, and moved once per epoch.

    Returns:
        (num_images,) int64, a permutation of 0 to num_images - 1.
    """
    generator = stream_generator(seed, Stream.ORDER, epoch=epoch)
    return torch.randperm(num_images, generator=generator).to(device, non_blocking=True)


class BatchPreparer:
    """Makes normalised float images of stored bytes, augmented for training.

    A batch that is held elsewhere is moved to the preparer's device first, as bytes: a quarter of
    the traffic of floats.
    """

    def __init__(
        self,
        statistics: ChannelStatistics,
        augment: AugmentConfig,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self._augment = augment
        self._is_identity = augment == AugmentConfig()
        # (x / 255 - mean) / std as one multiplication and one addition.
        mean = torch.tensor(statistics.mean, dtype=torch.float64).view(1, -1, 1, 1)
        std = torch.tensor(statistics.std, dtype=torch.float64).view(1, -1, 1, 1)
        self._scale = (1 / (255 * std)).float().to(self.device)
        self._shift = (-mean / std).float().to(self.device)

    def training(self, images_BCHW: Tensor, *, generator: Generator) -> Tensor:
        """Return randomly cropped and flipped, normalised images.

        Args:
            images_BCHW: uint8, any device.
            generator: source of the draws, on the preparer's device.

        Returns:
            (B, C, H, W) float32 on the preparer's device.
        """
        images = images_BCHW.to(self.device, non_blocking=True)
        if not self._is_identity:
            draws = draw_augmentation(len(images), self._augment, generator=generator)
            images = self._augmented(images, draws, generator)
        return self._normalised(images)

    def evaluation(self, images_BCHW: Tensor) -> Tensor:
        """Return normalised images, unchanged otherwise: (B, C, H, W) float32."""
        return self._normalised(images_BCHW.to(self.device, non_blocking=True))

    def to_bytes(self, images_BCHW: Tensor) -> Tensor:
        """Return normalised images as (B, C, H, W) uint8 again, for display: rounded, clamped."""
        values = (images_BCHW.to(self._scale.device) - self._shift) / self._scale
        return values.round_().clamp_(0, 255).to(torch.uint8)

    def _augmented(self, images: Tensor, draws: AugmentDraws, generator: Generator) -> Tensor:
        scale = self._augment.resized_crop_scale
        if scale is None:
            return apply_augmentation(
                images,
                draws,
                padding=self._augment.crop_padding,
                mode=self._augment.padding_mode,
            )
        heights, widths = (torch.full_like(draws.top, side) for side in images.shape[2:])
        ratio = self._augment.resized_crop_ratio
        boxes = draw_crop_boxes(heights, widths, scale=scale, ratio=ratio, generator=generator)
        return apply_resized_crop(images.float(), boxes, draws.flip)

    def _normalised(self, images_BCHW: Tensor) -> Tensor:
        return images_BCHW.float().mul_(self._scale).add_(self._shift)
