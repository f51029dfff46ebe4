"""Training batches: layout over processes, order of an epoch, gather, augment, normalize.

Every batch is a function of (data, configuration, layout, key), so that a run can resume, and a
worker can read ahead, at any step without replaying what came before.
Shape suffixes: B images of a micro-batch, C channels, H rows, W columns.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor

from automix.configuration.data import AugmentConfig, Sampling
from automix.data.augment import (
    apply_augmentation,
    apply_resized_crop,
    draw_augmentation,
    draw_crop_boxes,
    draw_erased_boxes,
    erase_,
)
from automix.data.policies import apply_operations, draw_operations
from automix.data.splits import ChannelStatistics, Split, TrainingImages
from automix.errors import ConfigError
from automix.random_streams import Stream, stream_generator


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchKey:
    """Names one micro-batch of one step."""

    seed: int  # of the training run
    # Number of the step in the whole training run, from 0. The loop may train for several optimizer
    # steps on the batch of one (``saliency.refresh_every``).
    step: int
    # Number of the micro-batch of the step, from 0, counted over all processes.
    micro_batch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLayout:
    """The division of epochs into steps, and of steps into micro-batches of processes."""

    num_images: int  # images of the training split
    # Images of one optimizer step, over all processes and micro-batches; a multiple of
    # ``accumulation * world_size``, at most ``num_images``. Images of an epoch that do not fill a
    # step are skipped in that epoch.
    batch_size: int
    accumulation: int = 1  # micro-batches per step and process
    rank: int = 0  # number of this process, of ``world_size`` that train together
    world_size: int = 1

    @classmethod
    def fitting(
        cls, num_images: int, batch_size: int, *, accumulation: int, rank: int, world_size: int
    ) -> "BatchLayout":
        """Return a layout of ``batch_size``, or of one step per epoch if there are fewer images.

        Raises:
            ConfigError: the batch cannot be divided into equal micro-batches, or there are fewer
                images than micro-batches.
        """
        parts = accumulation * world_size
        if batch_size % parts:
            raise ConfigError(
                f"task.trainer.batch_size: expected a multiple of {parts} ({world_size} processes "
                f"x accumulation {accumulation}), got {batch_size}"
            )
        if num_images < parts:
            raise ConfigError(
                f"task.data: expected at least {parts} training images, one for each of "
                f"{world_size} processes x accumulation {accumulation}, got {num_images}"
            )
        return cls(
            num_images=num_images,
            batch_size=min(batch_size, num_images - num_images % parts),
            accumulation=accumulation,
            rank=rank,
            world_size=world_size,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one pass over the images."""
        return self.num_images // self.batch_size

    @property
    def micro_batch_size(self) -> int:
        """Images of one micro-batch of one process."""
        return self.batch_size // (self.accumulation * self.world_size)

    def key(self, seed: int, step: int, number: int = 0) -> BatchKey:
        """Return the key of micro-batch ``number``, 0 to accumulation - 1, of this process."""
        # Interleaved over ranks: R processes with accumulation n have the micro-batches of one
        # process with accumulation R n, in the same order.
        micro_batch = number * self.world_size + self.rank
        return BatchKey(seed=seed, step=step, micro_batch=micro_batch)

    def following(self, key: BatchKey) -> BatchKey:
        """Return the key that this process needs after ``key``, for reading ahead."""
        micro_batch = key.micro_batch + self.world_size
        if micro_batch < self.accumulation * self.world_size:
            return BatchKey(seed=key.seed, step=key.step, micro_batch=micro_batch)
        return self.key(key.seed, key.step + 1)

    def epoch(self, key: BatchKey) -> int:
        """Return the number of the epoch that ``key`` lies in, from 0."""
        return key.step // self.steps_per_epoch

    def places(self, key: BatchKey) -> slice:
        """Return the places of the images of ``key`` in the order of its epoch."""
        position = key.step % self.steps_per_epoch
        start = position * self.batch_size + key.micro_batch * self.micro_batch_size
        return slice(start, start + self.micro_batch_size)


class TrainingBatch(NamedTuple):
    """One micro-batch, ready for the network, on its device."""

    images: Tensor  # (B, C, H, W) float32, augmented and normalized
    labels: Tensor  # (B,) int64 class indices, or (B, K) float32 labels of 0 and 1
    indices: Tensor  # (B,) int64 indices of the images in the training split, on any device


class TrainingBatches(Protocol):
    """Batches of the training loop: `ResidentBatches` or `StreamedBatches`.

    * ``batch(key)`` is a function of (data, configuration, layout, key). Keys mostly come in the
      order of ``layout.following``, so reading ahead pays; but after a reset or a resume any key
      may come, and gives the same bits.
    * The images are ``order[layout.places(key)]`` of ``EpochOrders.order(seed, epoch)``: with
      uniform sampling each image at most once per epoch over all processes.
    * Augmentation draws from ``augmentation_generator`` alone, or from generators seeded by
      `derived_seed` with the same seed, step and micro-batch (and the place of an image in it).
    * The host does not wait for the device, and a batch that was returned is never overwritten.
    """

    layout: BatchLayout  # fixed for the life of this object
    num_classes: int  # of the labels
    class_counts: Tensor  # (K,) int64 on the CPU, training images of each class

    def batch(self, key: BatchKey) -> TrainingBatch:
        """Return the micro-batch of ``key``, ``layout.micro_batch_size`` images."""
        ...


class ResidentBatches:
    """Batches of a split in the memory of the device or of the host, see `TrainingBatches`."""

    def __init__(
        self,
        split: Split,
        preparer: "BatchPreparer",
        layout: BatchLayout,
        *,
        sampling: Sampling = Sampling.UNIFORM,
    ) -> None:
        self.layout = layout
        self.num_classes = split.num_classes
        labels = split.labels.cpu()
        self.class_counts = class_counts(split)
        self._split = split
        self._preparer = preparer
        self._orders = EpochOrders(labels, sampling)
        # (seed, epoch) of the last order, and the order.
        self._order: tuple[tuple[int, int], Tensor] | None = None

    def batch(self, key: BatchKey) -> TrainingBatch:
        """Return the micro-batch of ``key``."""
        # 1. The order of the epoch, drawn once per epoch and sliced in every step.
        epoch = (key.seed, self.layout.epoch(key))
        if self._order is None or self._order[0] != epoch:
            # Moved once per epoch.
            order = self._orders.order(*epoch).to(self._split.device, non_blocking=True)
            self._order = epoch, order
        indices = self._order[1][self.layout.places(key)]
        # 2. Gather the bytes where the images are held; the preparer moves them.
        images, labels = self._split.take(indices)
        # 3. Augment and normalize on the device of the network.
        return self._preparer.batch(key, images, labels, indices)


def class_counts(split: TrainingImages) -> Tensor:
    """Return the number of images of each class, or with each label, (K,) int64 on the CPU."""
    labels = split.labels.cpu()
    if labels.ndim == 2:
        return labels.sum(dim=0).long()
    return labels.bincount(minlength=split.num_classes)


def epoch_order(num_images: int, *, seed: int, epoch: int) -> Tensor:
    """Return the permutation of the images, (num_images,) int64, that an epoch follows."""
    # Drawn on the CPU: randperm of an accelerator gives another permutation for the same seed.
    generator = stream_generator(seed, Stream.ORDER, epoch=epoch)
    return torch.randperm(num_images, generator=generator)


def balanced_order(labels_N: Tensor, *, seed: int, epoch: int) -> Tensor:
    """Return as many indices of each class, (N,) int64 in random order, for an epoch.

    Classes have N // K or one more. Within a class, no image comes again before all have come.
    """
    generator = stream_generator(seed, Stream.ORDER, epoch=epoch)
    present = sorted(set(labels_N.tolist()))
    count_each, rest = divmod(len(labels_N), len(present))
    # Another few classes of each epoch have one image more.
    has_more = (torch.randperm(len(present), generator=generator) < rest).tolist()
    parts = []
    for label, extra in zip(present, has_more, strict=True):
        members = (labels_N == label).nonzero().squeeze(1)
        count = count_each + extra
        rounds = [
            members[torch.randperm(len(members), generator=generator)]
            for _ in range(-(-count // len(members)))
        ]
        parts += [order[: count - i * len(members)] for i, order in enumerate(rounds)]
    order = torch.cat(parts)
    return order[torch.randperm(len(order), generator=generator)]


class EpochOrders:
    """Orders of the images of a split by (seed, epoch), the last two of which are kept."""

    def __init__(self, labels_N: Tensor, sampling: Sampling) -> None:
        """Order as many images as there are labels, on the CPU."""
        self._labels, self._sampling = labels_N, sampling
        # Two, because reading ahead crosses into the next epoch before the training process does.
        self._kept: dict[tuple[int, int], Tensor] = {}

    def order(self, seed: int, epoch: int) -> Tensor:
        """Return the indices, (num_images,) int64 on the CPU, that an epoch follows."""
        if (seed, epoch) not in self._kept:
            if self._sampling is Sampling.BALANCED:
                order = balanced_order(self._labels, seed=seed, epoch=epoch)
            else:
                order = epoch_order(len(self._labels), seed=seed, epoch=epoch)
            last = list(self._kept.items())[-1:]
            self._kept = dict(last) | {(seed, epoch): order}
        return self._kept[seed, epoch]


def augmentation_generator(key: BatchKey, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator for the augmentation of the images of ``key``."""
    return stream_generator(
        key.seed, Stream.AUGMENTATION, rank=key.micro_batch, step=key.step, device=device
    )


class BatchPreparer:
    """Turns stored bytes into normalized float32 images on ``device``, augmented for training."""

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
        # (x / 255 - mean) / std = x * scale + shift: one multiplication and one addition per pixel.
        mean = torch.tensor(statistics.mean, dtype=torch.float64).view(1, -1, 1, 1)
        std = torch.tensor(statistics.std, dtype=torch.float64).view(1, -1, 1, 1)
        self._scale = (1 / (255 * std)).float().to(self.device)
        self._shift = (-mean / std).float().to(self.device)

    def batch(
        self, key: BatchKey, images_BCHW: Tensor, labels_B: Tensor, indices_B: Tensor
    ) -> TrainingBatch:
        """Return the micro-batch of ``key`` from its stored bytes."""
        if self._is_identity:
            images = self.evaluation(images_BCHW)
        else:
            images = self.training(
                images_BCHW,
                generator=augmentation_generator(key, self.device),
                operations=stream_generator(
                    key.seed, Stream.PIXEL_OPERATIONS, rank=key.micro_batch, step=key.step
                ),
            )
        labels = labels_B.to(self.device, non_blocking=True)
        return TrainingBatch(images=images, labels=labels, indices=indices_B)

    def training(
        self, images_BCHW: Tensor, *, generator: Generator, operations: Generator | None = None
    ) -> Tensor:
        """Return augmented, normalized images.

        ``generator``, on the preparer's device, is that of crops, flips and erased boxes,
        ``operations``, on the CPU, that of operations on pixels, which need it.
        """
        config = self._augment
        # Moved as bytes, a quarter of the traffic of floats.
        images = images_BCHW.to(self.device, non_blocking=True)
        if self._is_identity:
            return self._normalized(images)
        images = self._augmented(images, generator)
        height, width = images.shape[2:]
        if config.changes_pixels:
            assert operations is not None
            drawn = draw_operations(
                len(images), config, height=height, width=width, generator=operations
            )
            # A resized crop interpolates; the operations are defined on bytes.
            images = apply_operations(
                images if images.dtype == torch.uint8 else images.round().to(torch.uint8), drawn
            )
        images = self._normalized(images)
        if config.random_erasing == 0:
            return images
        boxes = draw_erased_boxes(
            len(images), config.random_erasing, height=height, width=width, generator=generator
        )
        return erase_(images, boxes)

    def evaluation(self, images_BCHW: Tensor) -> Tensor:
        """Return normalized images, unchanged otherwise."""
        return self._normalized(images_BCHW.to(self.device, non_blocking=True))

    def to_bytes(self, images_BCHW: Tensor) -> Tensor:
        """Return normalized images as (B, C, H, W) uint8 again, for display: rounded, clamped."""
        values = (images_BCHW.to(self._scale.device) - self._shift) / self._scale
        return values.round_().clamp_(0, 255).to(torch.uint8)

    def _augmented(self, images: Tensor, generator: Generator) -> Tensor:
        config = self._augment
        draws = draw_augmentation(len(images), config, generator=generator)
        if config.resized_crop_scale is None:
            return apply_augmentation(
                images, draws, padding=config.crop_padding, mode=config.padding_mode
            )
        heights, widths = (torch.full_like(draws.top, side) for side in images.shape[2:])
        scale, ratio = config.resized_crop_scale, config.resized_crop_ratio
        boxes = draw_crop_boxes(heights, widths, scale=scale, ratio=ratio, generator=generator)
        return apply_resized_crop(images.float(), boxes, draws.flip)

    def _normalized(self, images_BCHW: Tensor) -> Tensor:
        return images_BCHW.float().mul_(self._scale).add_(self._shift)
