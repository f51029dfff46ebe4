"""Packs: decoded images in one file, written once, verified by its hash, mapped into memory.

A pack is ``NAME.npy`` (images, NumPy's own format, never pickled) and ``NAME.json`` (labels, class
names, hash). The second is written last: a pack without it does not exist. ``NAME.verified`` says
which state of the two files has been hashed, so that not every process of every run reads it all.
"""

import contextlib
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from automix.configuration.base import Config
from automix.data.pools import ImagePool, ImagesDigest, images_checksum
from automix.data.sources.decode import in_order, refusing_bombs
from automix.data.splits import Split, format_bytes, main_memory
from automix.errors import CheckpointError, DataError
from automix.files import atomic_writer, write_json, write_text
from automix.readers import parse_json, read_bytes, read_text

_LOG = logging.getLogger(__name__)
_SECONDS_BETWEEN_MESSAGES = 10.0
# Times of files are as coarse as 2 s (FAT). A file that was written more recently than this may be
# written again without a change of its time: git has the same rule for its index.
_SECONDS_TO_SETTLE = 3.0
# Labels of 100 million images, and six numbers.
_MAX_RECORD_BYTES = 1_000_000_000
_MAX_STATE_BYTES = 10_000

Progress = Callable[[int, int], None]
"""Called with the number of images decoded so far and their total."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """The images of a pack that is to be made."""

    num_images: int  # at least 1
    shape: tuple[int, int, int]  # of every image, (C, H, W)
    class_names: tuple[str, ...]  # in label order
    # From the number of an image to its uint8 pixels and its label; thread-safe.
    read: Callable[[int], tuple[NDArray[np.uint8], int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackRequest:
    """A pack, and the way to make it if the cache does not have it."""

    name: str  # human-readable part of the file name
    key: str  # hash of everything the pixels depend on; 16 hex digits
    where: str  # origin of the images, for messages
    prepare: Callable[[], Decoding]  # looks at the source; only called if the pack has to be made
    remedy: str = "a smaller data.image_size needs less"  # advice if there is no room for it


class _Record(Config):
    """Content of ``NAME.json``."""

    format: Literal["automix-images"] = "automix-images"
    version: Literal[1] = 1
    source: str
    shape: tuple[int, int, int, int]
    class_names: tuple[str, ...]
    checksum: str
    labels: tuple[int, ...]


def packed_images(
    request: PackRequest, folder: Path, *, progress: Progress | None = None
) -> tuple[ImagePool, tuple[str, ...]]:
    """Return images and class names, decoded into the cache ``folder`` if it does not have them.

    Writing to the images does not reach the file. Two processes that need the same pack decode it
    once.

    Raises:
        DataError: an image is unreadable, or the cache folder cannot be written or is full.
    """
    base = folder / f"{request.name}-{request.key}"
    try:
        if pack := _load(base, request.where):
            return pack
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(base.with_suffix(".lock")):
            # Once more: the process that held the lock may have made it.
            if pack := _load(base, request.where):
                return pack
            with refusing_bombs():
                _write(base, request, progress)
            pack = _load(base, request.where)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataError(
            f"{folder}: expected a folder to keep decoded images in, got: {reason}"
        ) from None
    if pack is None:
        raise DataError(f"{base}.npy: expected the images just written, got something else")
    return pack


def _load(base: Path, where: str) -> tuple[ImagePool, tuple[str, ...]] | None:
    """Return a pack, or None if it is missing or damaged."""
    record_file, images_file = base.with_suffix(".json"), base.with_suffix(".npy")
    if not record_file.exists():
        return None
    try:
        # Before they are read: what is written from now on has another state.
        state = _state(images_file, record_file)
        record = _Record.model_validate_json(read_bytes(record_file, limit=_MAX_RECORD_BYTES))
        # Mapped: processes of one machine share one copy, and a set larger than the free memory is
        # paged in as needed. Copy-on-write ("c"), because torch warns about read-only memory.
        images = np.load(images_file, mmap_mode="c", allow_pickle=False)
        split = Split(
            images=torch.from_numpy(images),
            labels=torch.tensor(record.labels, dtype=torch.int64),
            num_classes=len(record.class_names),
        )
    # Whatever is wrong with it: the images themselves are still there.
    except Exception as error:
        _LOG.warning("%s: damaged (%s): decoding again", record_file, str(error).splitlines()[0])
        return None
    # Read in full unless exactly these files have been: a flipped bit would otherwise be trained on
    # in silence. Whoever changes a file changes its times.
    if not _is_verified(base, state):
        if images_checksum(split) != record.checksum:
            _LOG.warning("%s: damaged (its checksum is wrong): decoding again", images_file)
            return None
        _keep_verified(base, state)
    return ImagePool(split=split, checksum=record.checksum, where=where), record.class_names


def _state(*files: Path) -> list[list[int]]:
    """Return size and times, in nanoseconds, of each file."""
    facts = [file.stat() for file in files]
    return [[fact.st_size, fact.st_mtime_ns, fact.st_ctime_ns] for fact in facts]


def _is_verified(base: Path, state: list[list[int]]) -> bool:
    file = base.with_suffix(".verified")
    with contextlib.suppress(CheckpointError):
        text = read_text(file, limit=_MAX_STATE_BYTES)
        return bool(parse_json(text, source=str(file), error=CheckpointError) == state)
    return False


def _keep_verified(base: Path, state: list[list[int]]) -> None:
    newest = max(time_ns for _, *times in state for time_ns in times)
    if time.time_ns() - newest > _SECONDS_TO_SETTLE * 1e9:
        # A cache that others have made may not be writable: then it is hashed at every start.
        with contextlib.suppress(OSError):
            write_json(base.with_suffix(".verified"), state)


def _locked(file: Path) -> AbstractContextManager[object]:
    """Hold a lock between processes for a block; log it when another process holds it."""
    lock = FileLock(file)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        _LOG.info("%s: waiting for another process that decodes the same images", file)
        return lock.acquire()


def _write(base: Path, request: PackRequest, progress: Progress | None) -> None:
    decoding = request.prepare()
    shape = (decoding.num_images, *decoding.shape)
    _check_room(base.parent, request, math.prod(shape))
    _LOG.info("%s: decoding %d images into %s.npy", request.where, shape[0], base)
    started = time.monotonic()
    digest = ImagesDigest(shape)
    labels: list[int] = []
    # Image by image into the file: memory holds only what the threads have decoded ahead.
    with atomic_writer(base.with_suffix(".npy")) as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "|u1", "fortran_order": False, "shape": shape}
        )
        for pixels, label in _decoded(decoding, request.where, progress):
            stream.write(pixels.data)
            digest.add_pixels(pixels)
            labels.append(label)
    record = _Record(
        source=request.where,
        shape=shape,
        class_names=decoding.class_names,
        checksum=digest.finish(np.array(labels, dtype=np.int64)),
        labels=tuple(labels),
    )
    write_text(base.with_suffix(".json"), record.model_dump_json())
    _LOG.info("%s: decoded in %.1f s", request.where, time.monotonic() - started)


def _decoded(
    decoding: Decoding, where: str, progress: Progress | None
) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """Yield pixels and label of every image, and report progress."""
    total = decoding.num_images
    next_message = time.monotonic() + _SECONDS_BETWEEN_MESSAGES
    for done, (pixels, label) in enumerate(in_order(decoding.read, range(total)), start=1):
        assert pixels.shape == decoding.shape
        yield pixels, label
        if progress is not None:
            progress(done, total)
        if time.monotonic() > next_message:
            next_message += _SECONDS_BETWEEN_MESSAGES
            _LOG.info("%s: decoded %d of %d images", where, done, total)


def _check_room(folder: Path, request: PackRequest, num_bytes: int) -> None:
    """Refuse images that fit neither the disk nor, as the training split will, the memory."""
    rooms = {f"free space in {folder}": shutil.disk_usage(folder).free}
    if (memory := main_memory()) is not None:
        rooms["main memory"] = memory
    for room, available in rooms.items():
        if num_bytes > available:
            raise DataError(
                f"{request.where}: expected decoded images of at most {format_bytes(available)} "
                f"({room}), got {format_bytes(num_bytes)}; {request.remedy}"
            )
