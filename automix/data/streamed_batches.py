"""Training batches of images in files, decoded ahead by worker processes.

Shape suffixes: B images of a micro-batch, C channels, H rows, W columns.
"""

import atexit
import logging
import multiprocessing
import os
import signal
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from automix.configuration.data import DEFAULT_CROP_RATIO, AugmentConfig, Sampling
from automix.data.batches import (
    BatchKey,
    BatchLayout,
    BatchPreparer,
    EpochOrders,
    TrainingBatch,
    class_counts,
)
from automix.data.sources.decode import in_order, num_threads, refusing_bombs
from automix.data.splits import StreamedSplit
from automix.errors import DataError
from automix.random_streams import Stream, stream_generator
from automix.worker_processes import apart_from_script, end_with_parent

MapFunction: TypeAlias = Callable[[Callable[[int], Tensor], Iterable[int]], Iterable[Tensor]]

_LOG = logging.getLogger(__name__)
# Micro-batches that each worker decodes ahead.
_BATCHES_AHEAD = 2
# A killed worker reaches this process as torch's own error or as a broken connection.
_WORKER_ERRORS = (RuntimeError, OSError, EOFError)


class StreamedBatches:
    """Batches of a `StreamedSplit`, see `TrainingBatches`.

    Worker processes read ahead in the order of ``layout.following``; any other key makes them start
    again there. `close` ends them, as does the end of this process.
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
        sampling: Sampling = Sampling.UNIFORM,
    ) -> None:
        """Start nothing yet: workers start with the first batch.

        The preparer is made with `device_augmentation`, ``augment`` is the whole augmentation.
        Beyond ``num_steps`` nothing is read ahead. With 0 workers this process decodes, with None
        it has one for each core.
        """
        self.layout = layout
        self.num_classes = split.num_classes
        self.class_counts = class_counts(split)
        self._labels = split.labels
        self._preparer = preparer
        self._reader = MicroBatchReader(split, layout, augment, EpochOrders(split.labels, sampling))
        self._keys = _KeysAhead(layout, num_steps)
        self._num_workers = _usable_workers(num_workers)
        self._loader: DataLoader[Tensor | str] | None = None
        # torch's iterator over decoded micro-batches; ending its workers is a private method.
        self._arriving: Any = None
        self._next: BatchKey | None = None
        _OPEN.add(self)

    def batch(self, key: BatchKey) -> TrainingBatch:
        """Return the micro-batch of ``key``.

        Raises:
            DataError: a file is not a readable image, or the workers ended twice.
        """
        images = self._decoded(key) if self._num_workers else self._reader.read(key, in_order)
        indices = self._reader.indices(key)
        return self._preparer.batch(key, images, self._labels[indices], indices)

    def close(self) -> None:
        """End the workers; the next batch starts new ones."""
        if self._arriving is not None:
            # Its destructor does this, but a reference, in a traceback say, may keep it alive.
            self._arriving._shutdown_workers()
        self._arriving = self._loader = self._next = None

    def _decoded(self, key: BatchKey) -> Tensor:
        # Twice: the kernel may have killed a worker for want of memory that is free by now. The key
        # names the batch completely, so the new workers give the same bits.
        for is_last in (False, True):
            try:
                images = self._from_workers(key)
                break
            except _WORKER_ERRORS as error:
                self.close()
                reason = str(error).partition("\n")[0]
            if is_last:
                raise DataError(
                    "data.loader_workers: expected processes that decode images and keep running, "
                    "got some that ended early, for want of memory or of space in /dev/shm "
                    f"perhaps: {reason}"
                )
            _LOG.warning("decoding processes ended early (%s): starting them again", reason)
        if isinstance(images, str):
            self.close()
            raise DataError(images)
        return images

    def _from_workers(self, key: BatchKey) -> Tensor | str:
        if self._arriving is None or key != self._next:
            # Persistent workers stay; a new iterator drops what they have decoded ahead.
            self._keys.first = key
            with warnings.catch_warnings():
                # torch warns about more workers than cores, when the loader is made and when it is
                # iterated; the number is the user's choice.
                warnings.filterwarnings("ignore", message="This DataLoader will create")
                if self._loader is None:
                    self._loader = self._new_loader()
                with apart_from_script():
                    self._arriving = iter(self._loader)
        images: Tensor | str = next(self._arriving)
        self._next = self.layout.following(key)
        return images

    def _new_loader(self) -> DataLoader[Tensor | str]:
        # Never plain fork: this process has threads, whose locks a child would inherit locked, and
        # an accelerator cannot be used after it. Spawn imports torch in every worker, which takes
        # seconds each; the fork server imports it once and forks from there.
        method = "spawn"
        if "forkserver" in multiprocessing.get_all_start_methods():
            method = "forkserver"
            multiprocessing.get_context(method).set_forkserver_preload([__name__])
        return DataLoader(
            self._reader,
            # The sampler yields keys of whole micro-batches: nothing is collated.
            batch_size=None,
            sampler=self._keys,
            num_workers=self._num_workers,
            # Page-locked memory, from which a copy to an accelerator does not block the host.
            pin_memory=self._preparer.device.type != "cpu",
            worker_init_fn=_prepare_worker,
            multiprocessing_context=method,
            # Without a generator it would draw from the global one.
            generator=torch.Generator(),
            prefetch_factor=_BATCHES_AHEAD,
            persistent_workers=True,
        )


class MicroBatchReader(Dataset[Tensor | str]):
    """Reads the images of a micro-batch from their files; it runs in the workers."""

    def __init__(
        self,
        split: StreamedSplit,
        layout: BatchLayout,
        augment: AugmentConfig,
        orders: EpochOrders,
    ) -> None:
        self._split = split
        self._orders = orders
        self._layout = layout
        self._augment = augment

    def indices(self, key: BatchKey) -> Tensor:
        """Return the indices of the images of ``key``, (B,) int64."""
        return self._orders.order(key.seed, self._layout.epoch(key))[self._layout.places(key)]

    def __getitem__(self, key: BatchKey) -> Tensor | str:
        """Return (B, C, H, W) uint8, or the message about a broken file."""
        # As text: an exception would reach the other process with its traceback as the message.
        try:
            return self.read(key, map)
        except DataError as error:
            return str(error)

    def read(self, key: BatchKey, mapping: MapFunction) -> Tensor:
        """Return (B, C, H, W) uint8, decoded one by one (`map`) or by threads (`in_order`).

        Raises:
            DataError: a file is not a readable image.
        """
        epoch, places = self._layout.epoch(key), self._layout.places(key)
        order = self._orders.order(key.seed, epoch)

        def image_at(place: int) -> Tensor:
            # The crop is named by the place in the epoch's order, not by the micro-batch: it does
            # not depend on the number of processes, micro-batches or workers.
            generator = stream_generator(key.seed, Stream.CROP, epoch=epoch, step=place)
            return self._split.read_training(int(order[place]), self._augment, generator)

        with refusing_bombs():
            return torch.stack(list(mapping(image_at, range(places.start, places.stop))))


class _KeysAhead(Sampler[BatchKey]):
    """The keys from ``first`` to the end of the training run."""

    def __init__(self, layout: BatchLayout, num_steps: int) -> None:
        self.first: BatchKey | None = None
        self._layout = layout
        self._num_steps = num_steps

    def __iter__(self) -> Iterator[BatchKey]:
        key = self.first
        assert key is not None
        end = max(self._num_steps, key.step + 1)
        while key.step < end:
            yield key
            key = self._layout.following(key)


def _prepare_worker(_: int) -> None:
    # The training process decides when to stop: it finishes its step after a signal, for which it
    # needs its workers, and a scheduler sends the signal to every process of a job.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_with_parent()


def _usable_workers(requested: int | None) -> int:
    if multiprocessing.current_process().daemon:
        _LOG.info("images are decoded in the training process: a daemonic one can have no workers")
        return 0
    if requested is not None:
        return requested
    # torchrun starts this many training processes on this machine, which divide its cores.
    return max(1, num_threads() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def device_augmentation(augment: AugmentConfig) -> AugmentConfig:
    """Return the augmentation without the resized crop, which workers make."""
    return augment.model_copy(
        update={"resized_crop_scale": None, "resized_crop_ratio": DEFAULT_CROP_RATIO}
    )


_OPEN: "weakref.WeakSet[StreamedBatches]" = weakref.WeakSet()


def _close_all() -> None:
    for batches in list(_OPEN):
        batches.close()


# Before multiprocessing's own hook, which waits for children that ignore its SIGTERM: hooks run
# last registered first, and multiprocessing registers with its import.
atexit.register(_close_all)
