"""From the training images of a data set to the batches that the loop asks for."""

import torch

from automix.data.batches import BatchPreparer
from automix.data.config import DataConfig
from automix.data.splits import SearchData, Split
from automix.data.streamed_batches import StreamedBatches, device_augmentation
from automix.data.streaming import StreamedSplit
from automix.data.training_batches import BatchLayout, ResidentBatches, TrainingBatches


def training_batches(
    data: SearchData,
    config: DataConfig,
    layout: BatchLayout,
    *,
    num_steps: int,
    device: torch.device | str,
) -> tuple[TrainingBatches, BatchPreparer]:
    """Return the batches of the training images, and what prepares images for evaluation.

    Args:
        data: its training images are in memory, or in files.
        config: what ``data`` was loaded with.
        layout: how epochs are cut into steps and shares.
        num_steps: of the whole training; nothing beyond is read ahead.
        device: where batches are wanted.
    """
    if isinstance(data.train, Split):
        preparer = BatchPreparer(data.statistics, config.augment, device=device)
        return ResidentBatches(data.train, preparer, layout), preparer
    assert isinstance(data.train, StreamedSplit)
    preparer = BatchPreparer(data.statistics, device_augmentation(config.augment), device=device)
    batches = StreamedBatches(
        data.train,
        preparer,
        layout,
        augment=config.augment,
        num_steps=num_steps,
        num_workers=config.loader_workers,
    )
    return batches, preparer
