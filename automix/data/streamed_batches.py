"""Training batches of images that worker processes decode from their files, ahead of time.

Workers read and cut single images; what can be done for a whole batch at once (padded crop, flip,
normalisation, mixing) is done on the device. What an image looks like in an epoch is a function of
(seed, epoch, its place in the epoch's order), so neither the number of workers nor the number of
processes or micro-batches changes it, and any step can be read without those before it.
"""

from automix.data.batches import BatchPreparer
from automix.data.config import DEFAULT_CROP_RATIO, AugmentConfig
from automix.data.reading_ahead import ReadingAhead, ShareReader
from automix.data.streaming import StreamedSplit
from automix.data.training_batches import (
    BatchKey,
    BatchLayout,
    TrainingBatch,
    augmentation_generator,
)


def device_augmentation(augment: AugmentConfig) -> AugmentConfig:
    """Return what is left to do on the device once workers have made the resized crop."""
    return augment.model_copy(
        update={"resized_crop_scale": None, "resized_crop_ratio": DEFAULT_CROP_RATIO}
    )


class StreamedBatches:
    """Batches of a `StreamedSplit`, see `TrainingBatches`.

    Worker processes read ahead in the order of ``layout.following``; asking for any other key
    makes them start again there. `close` ends them, as does the end of this process.
    """

    def __init__(
        self,
        split: StreamedSplit,
        preparer: BatchPreparer,
        layout: BatchLayout,
        *,
        augment: AugmentConfig,
        num_steps: int,
        num_workers: int | None = None,
    ) -> None:
        """Start nothing yet: workers start with the first batch.

        Args:
            split: the training images.
            preparer: made with `device_augmentation`; its device is that of the batches.
            layout: how epochs are cut.
            augment: the whole augmentation.
            num_steps: of the training; nothing beyond is read ahead.
            num_workers: processes that decode; 0 decodes in this process, when a batch is asked
                for. None: one for each core of this process.
        """
        self.layout = layout
        self.num_classes = split.num_classes
        self._preparer = preparer
        self._labels = split.labels
        self._reader = ShareReader(split, layout, augment)
        self._loader = ReadingAhead(
            self._reader,
            num_steps=num_steps,
            num_workers=num_workers,
            pin_memory=preparer.device.type != "cpu",
        )

    def batch(self, key: BatchKey) -> TrainingBatch:
        """Return the share that ``key`` names, see `TrainingBatches`.

        Raises:
            DataError: a file is not a readable image, or the workers ended twice.
        """
        images = self._loader.share(key)
        device = self._preparer.device
        indices = self._reader.indices(key)
        return TrainingBatch(
            images=self._preparer.training(images, generator=augmentation_generator(key, device)),
            labels=self._labels[indices].to(device, non_blocking=True),
            indices=indices,
        )

    def close(self) -> None:
        """End the workers; the next batch starts new ones."""
        self._loader.close()
