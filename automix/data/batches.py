"""Training batches of resident images: layout over processes, order, augmentation, normalization.

Shape suffixes: B batch, C channels, H rows, W columns.

Shape suffixes: B images of a share, C channels, H rows, W columns.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor

from automix.configuration.data import AugmentConfig
from automix.data.augment import (
    AugmentDraws,
    apply_augmentation,
    apply_resized_crop,
    draw_augmentation,
    draw_crop_boxes,
)
from automix.data.splits import ChannelStatistics, Split
from automix.errors import ConfigError
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
    """Makes normalized float images of stored bytes, augmented for training.

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
        """Return randomly cropped and flipped, normalized images.

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
        return self._normalized(images)

    def evaluation(self, images_BCHW: Tensor) -> Tensor:
        """Return normalized images, unchanged otherwise: (B, C, H, W) float32."""
        return self._normalized(images_BCHW.to(self.device, non_blocking=True))

    def to_bytes(self, images_BCHW: Tensor) -> Tensor:
        """Return normalized images as (B, C, H, W) uint8 again, for display: rounded, clamped."""
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

    def _normalized(self, images_BCHW: Tensor) -> Tensor:
        return images_BCHW.float().mul_(self._scale).add_(self._shift)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchKey:
    """Names one share of the images of one step.

    Attributes:
        seed: of the training.
        step: number of the step in the whole training run, from 0. The loop may train for several
            optimizer steps on the batch of one.
        share: number of the share of the step, from 0.
    """

    seed: int
    step: int
    share: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLayout:
    """How epochs are cut into steps, and steps into the shares of processes and micro-batches.

    Attributes:
        num_images: images of the training split.
        batch_size: images of one optimizer step, over all processes and micro-batches; a multiple
            of ``accumulation * world_size``, at most ``num_images``. Images of an epoch that do not
            fill a step are left out of that epoch.
        accumulation: micro-batches per step and process.
        rank: number of this process among those that train together.
        world_size: number of those processes.
    """

    num_images: int
    batch_size: int
    accumulation: int = 1
    rank: int = 0
    world_size: int = 1

    @classmethod
    def fitting(
        cls, num_images: int, batch_size: int, *, accumulation: int, rank: int, world_size: int
    ) -> "BatchLayout":
        """Return a layout of ``batch_size``, or of one step per epoch if there are fewer images.

        Raises:
            ConfigError: the batch cannot be shared evenly, or there is not an image for each share.
        """
        shares = accumulation * world_size
        if batch_size % shares:
            raise ConfigError(
                f"task.trainer.batch_size: expected a multiple of {shares} ({world_size} processes "
                f"x accumulation {accumulation}), got {batch_size}"
            )
        if num_images < shares:
            raise ConfigError(
                f"task.data: expected at least {shares} training images, one for each of "
                f"{world_size} processes x accumulation {accumulation}, got {num_images}"
            )
        return cls(
            num_images=num_images,
            batch_size=min(batch_size, num_images - num_images % shares),
            accumulation=accumulation,
            rank=rank,
            world_size=world_size,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one pass over the images."""
        return self.num_images // self.batch_size

    @property
    def share_size(self) -> int:
        """Images of one share."""
        return self.batch_size // (self.accumulation * self.world_size)

    def key(self, seed: int, step: int, micro_batch: int = 0) -> BatchKey:
        """Return the key of a micro-batch of this process."""
        return BatchKey(seed=seed, step=step, share=micro_batch * self.world_size + self.rank)

    def following(self, key: BatchKey) -> BatchKey:
        """Return the key that this process asks for after ``key``, for those that read ahead."""
        share = key.share + self.world_size
        if share < self.accumulation * self.world_size:
            return BatchKey(seed=key.seed, step=key.step, share=share)
        return self.key(key.seed, key.step + 1)

    def epoch(self, key: BatchKey) -> int:
        """Return the number of the epoch that ``key`` lies in, from 0."""
        return key.step // self.steps_per_epoch

    def places(self, key: BatchKey) -> slice:
        """Return where in the order of its epoch the images of ``key`` are."""
        position = key.step % self.steps_per_epoch
        start = position * self.batch_size + key.share * self.share_size
        return slice(start, start + self.share_size)


class TrainingBatch(NamedTuple):
    """One share of a step, ready for the network, on its device.

    Attributes:
        images: (B, C, H, W) float32, augmented and normalized.
        labels: (B,) int64 class indices.
        indices: (B,) int64, which images of the training split these are; where they are is up to
            the implementation.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor


class TrainingBatches(Protocol):
    """Where the training loop gets its batches from.

    What every implementation promises:

    * ``batch(key)`` is a function of (data, configuration, layout, key). Keys come in the order of
      ``layout.following`` most of the time, so reading ahead pays; but after a reset or a resume
      any key may come, and must give the same bits as it would have given in a row. Where batches
      are held for several optimizer steps (``saliency.refresh_every``), keys come again.
    * The images are ``order[layout.places(key)]`` of ``epoch_order(seed, epoch)``: each image at
      most once per epoch over all processes.
    * Random changes draw from ``augmentation_generator`` alone, or from generators seeded by
      `derived_seed` with the same seed, step and share (and the place of an image within it).
    * The host does not wait for the device, and the batch may be overwritten by nobody: it stays
      valid while the caller keeps it.
    """

    @property
    def layout(self) -> BatchLayout:
        """How epochs are cut; fixed for the life of this object."""
        ...

    @property
    def num_classes(self) -> int:
        """Number of classes of the labels."""
        ...

    def batch(self, key: BatchKey) -> TrainingBatch:
        """Return the share that ``key`` names, ``layout.share_size`` images."""
        ...


def augmentation_generator(key: BatchKey, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator for the random changes of the images of ``key``."""
    return stream_generator(
        key.seed, Stream.AUGMENTATION, rank=key.share, step=key.step, device=device
    )


class ResidentBatches:
    """Batches of a split that is held in memory, the device's or the host's."""

    def __init__(self, split: Split, preparer: BatchPreparer, layout: BatchLayout) -> None:
        """Draw from ``split``, augmented and normalized by ``preparer`` on its device."""
        self.layout = layout
        self.num_classes = split.num_classes
        self._split = split
        self._preparer = preparer
        self._order: tuple[int, int, Tensor] | None = None

    def batch(self, key: BatchKey) -> TrainingBatch:
        """Return the share that ``key`` names, see `TrainingBatches`."""
        indices = self._epoch_order(key)[self.layout.places(key)]
        images, labels = self._split.take(indices)
        device = self._preparer.device
        generator = augmentation_generator(key, device)
        return TrainingBatch(
            images=self._preparer.training(images, generator=generator),
            labels=labels.to(device, non_blocking=True),
            indices=indices,
        )

    def _epoch_order(self, key: BatchKey) -> Tensor:
        epoch = self.layout.epoch(key)
        if self._order is None or self._order[:2] != (key.seed, epoch):
            order = epoch_order(
                self.layout.num_images, seed=key.seed, epoch=epoch, device=self._split.device
            )
            self._order = key.seed, epoch, order
        return self._order[2]
