"""Shares of a training run, decoded by worker processes before they are asked for."""

import atexit
import logging
import multiprocessing
import os
import signal
import warnings
import weakref
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from automix.configuration.data import DEFAULT_CROP_RATIO, AugmentConfig
from automix.data.batches import (
    BatchKey,
    BatchLayout,
    BatchPreparer,
    TrainingBatch,
    augmentation_generator,
    epoch_order,
)
from automix.data.sources.decode import in_order, num_threads, refusing_bombs
from automix.data.sources.streamed_folder import StreamedSplit
from automix.errors import DataError
from automix.random_streams import Stream, stream_generator
from automix.worker_processes import end_with_parent

_log = logging.getLogger(__name__)
# Shares that each worker decodes ahead.
_SHARES_AHEAD = 2
# What reaches this process of one that was killed: torch's own error, or a broken connection.
_WORKER_ERRORS = (RuntimeError, OSError, EOFError)


class ShareReader(Dataset[Tensor | str]):
    """Reads the images of a share; what the workers run."""

    def __init__(self, split: StreamedSplit, layout: BatchLayout, augment: AugmentConfig) -> None:
        self._split = split
        self.layout = layout
        self._augment = augment

    def indices(self, key: BatchKey) -> Tensor:
        """Return which images the share consists of."""
        order = _epoch_order(self.layout.num_images, key.seed, self.layout.epoch(key))
        return order[self.layout.places(key)]

    def __getitem__(self, key: BatchKey) -> Tensor | str:
        """Return (B, C, H, W) uint8, or what is wrong with a file.

        An exception would reach the other process with the traceback as its text.
        """
        try:
            with refusing_bombs():
                return torch.stack([self._read(key, place) for place in self._places(key)])
        except DataError as error:
            return str(error)

    def read_with_threads(self, key: BatchKey) -> Tensor:
        """Return the same images, decoded by the threads of this process.

        Raises:
            DataError: a file is not a readable image.
        """
        with refusing_bombs():
            return torch.stack(
                list(in_order(lambda place: self._read(key, place), self._places(key)))
            )

    def _places(self, key: BatchKey) -> range:
        places = self.layout.places(key)
        return range(places.start, places.stop)

    def _read(self, key: BatchKey, place: int) -> Tensor:
        epoch = self.layout.epoch(key)
        index = int(_epoch_order(self.layout.num_images, key.seed, epoch)[place])
        generator = stream_generator(key.seed, Stream.CROP, epoch=epoch, step=place)
        return self._split.read_training(index, self._augment, generator)


@lru_cache(maxsize=2)
def _epoch_order(num_images: int, seed: int, epoch: int) -> Tensor:
    return epoch_order(num_images, seed=seed, epoch=epoch)


class _Keys(Sampler[BatchKey]):
    """The keys that are read ahead, from ``first`` to the end of the training."""

    def __init__(self, layout: BatchLayout, num_steps: int) -> None:
        self.layout = layout
        self.first: BatchKey | None = None
        self._num_steps = num_steps

    def __iter__(self) -> Iterator[BatchKey]:
        key = self.first
        assert key is not None
        end = max(self._num_steps, key.step + 1)
        while key.step < end:
            yield key
            key = self.layout.following(key)


class _Arriving(Protocol):
    """What a `DataLoader` with workers iterates with."""

    def __next__(self) -> Tensor | str: ...

    def _shutdown_workers(self) -> None: ...


class ReadingAhead:
    """A `DataLoader` that goes on from wherever it is asked to."""

    def __init__(
        self, reader: ShareReader, *, num_steps: int, num_workers: int | None, pin_memory: bool
    ) -> None:
        """Start nothing yet.

        Args:
            reader: reads a share.
            num_steps: of the training; nothing beyond is read ahead.
            num_workers: 0 reads in this process; None: one for each core of this process.
            pin_memory: whether shares are wanted in page-locked memory.
        """
        self._reader = reader
        self._keys = _Keys(reader.layout, num_steps)
        self._num_workers = _possible_workers(num_workers)
        self._pin_memory = pin_memory
        self._loader: DataLoader[Tensor | str] | None = None
        self._arriving: _Arriving | None = None
        self._next: BatchKey | None = None
        _OPEN.add(self)

    def share(self, key: BatchKey) -> Tensor:
        """Return the images of ``key``, (B, C, H, W) uint8, and read on behind it.

        Raises:
            DataError: a file is not a readable image, or the workers ended twice.
        """
        if not self._num_workers:
            return self._reader.read_with_threads(key)
        try:
            arrived = self._arrived(key)
        except _WORKER_ERRORS as error:
            reason = str(error).partition("\n")[0]
            _log.warning("decoding processes ended early (%s): starting them again", reason)
            self.close()
            arrived = self._arrived_again(key)
        if isinstance(arrived, str):
            self.close()
            raise DataError(arrived)
        return arrived

    def close(self) -> None:
        """End the workers, if there are any."""
        if self._arriving is not None:
            # What its destructor does; but somebody, a traceback say, may keep it alive.
            self._arriving._shutdown_workers()
        self._arriving = self._loader = self._next = None

    def _arrived(self, key: BatchKey) -> Tensor | str:
        if self._arriving is None or key != self._next:
            self._keys.first = key
            if self._loader is None:
                self._loader = self._new_loader()
            self._arriving = _iterator(self._loader)
        arrived = next(self._arriving)
        self._next = self._keys.layout.following(key)
        return arrived

    def _arrived_again(self, key: BatchKey) -> Tensor | str:
        try:
            return self._arrived(key)
        except _WORKER_ERRORS as error:
            self.close()
            raise DataError(
                "data.loader_workers: expected processes that decode images and keep running, got "
                f"some that ended early, for want of memory or of space in /dev/shm perhaps: "
                f"{str(error).partition(chr(10))[0]}"
            ) from None

    def _new_loader(self) -> DataLoader[Tensor | str]:
        # Never plain fork: this process has threads, and an accelerator forbids it. The fork server
        # has torch imported once for all workers.
        method = "spawn"
        if "forkserver" in multiprocessing.get_all_start_methods():
            method = "forkserver"
            multiprocessing.get_context(method).set_forkserver_preload([__name__])
        with warnings.catch_warnings():
            # Of more workers than cores: whoever asks for them gets them.
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            return self._configured(method)

    def _configured(self, method: str) -> DataLoader[Tensor | str]:
        return DataLoader(
            self._reader,
            batch_size=None,
            sampler=self._keys,
            num_workers=self._num_workers,
            collate_fn=_as_it_is,
            pin_memory=self._pin_memory,
            worker_init_fn=_prepare_worker,
            multiprocessing_context=method,
            # Without one it would draw from the global generator.
            generator=torch.Generator(),
            prefetch_factor=_SHARES_AHEAD,
            persistent_workers=True,
        )


def _iterator(loader: DataLoader[Tensor | str]) -> _Arriving:
    with warnings.catch_warnings():
        # It checks the number again.
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        return cast("_Arriving", iter(loader))


def _as_it_is(share: Any) -> Any:
    return share


def _prepare_worker(_: int) -> None:
    """Leave it to the training process when to stop: it finishes its step after a signal."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_with_parent()


def _possible_workers(wanted: int | None) -> int:
    if multiprocessing.current_process().daemon:
        _log.info("images are decoded in the training process: a daemonic one can have no workers")
        return 0
    if wanted is not None:
        return wanted
    # torchrun starts so many training runs on this machine.
    return max(1, num_threads() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


_OPEN: "weakref.WeakSet[ReadingAhead]" = weakref.WeakSet()


def _close_all() -> None:
    for loader in list(_OPEN):
        loader.close()


# Runs before multiprocessing waits for its children, which do not heed its SIGTERM.
atexit.register(_close_all)


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
