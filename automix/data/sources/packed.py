"""Decoded images in one file: written once, checked by its hash, mapped into memory.

A pack is ``NAME.npy`` (images, NumPy's own format, never pickled) and ``NAME.json`` (labels, class
names, hash). The second is written last: a pack without it does not exist.
"""

import contextlib
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from pydantic import ValidationError

from automix.configuration.base import Config
from automix.data.pools import ImagesDigest, Pool, images_checksum
from automix.data.sources.decode import in_order, refusing_bombs
from automix.data.splits import Split, format_bytes, main_memory
from automix.errors import DataError
from automix.files import atomic_writer, write_text

_log = logging.getLogger(__name__)
_SECONDS_BETWEEN_MESSAGES = 10.0

Progress = Callable[[int, int], None]
"""Called with the number of images decoded so far and their total."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How to make the images of a pack.

    Attributes:
        num_images: how many there are, at least 1.
        shape: channels, rows and columns of every image.
        class_names: name of each class, in label order.
        read: from the number of an image to its (C, H, W) uint8 pixels and its label; called from
            several threads.
    """

    num_images: int
    shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    read: Callable[[int], tuple[NDArray[np.uint8], int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackRequest:
    """Which pack is wanted, and how to make it where it is not there.

    Attributes:
        name: part of the file name, for people.
        key: hash of everything the pixels depend on; 16 hex digits.
        where: file or folder the images come from, for messages.
        prepare: looks at the source; only called where the pack has to be made.
        remedy: what to do where there is no room for it.
    """

    name: str
    key: str
    where: str
    prepare: Callable[[], Decoding]
    remedy: str = "a smaller data.image_size needs less"


class _Record(Config):
    """What ``NAME.json`` holds."""

    format: Literal["automix-images"] = "automix-images"
    version: Literal[1] = 1
    source: str
    shape: tuple[int, int, int, int]
    class_names: tuple[str, ...]
    checksum: str
    labels: tuple[int, ...]


def packed_images(
    request: PackRequest, folder: Path, *, progress: Progress | None = None
) -> tuple[Pool, tuple[str, ...]]:
    """Return images and class names, from the cache where it has them.

    The images are mapped into memory copy-on-write: processes share one copy, and writing to the
    tensor does not reach the file. Two processes that want the same pack decode it once.

    Args:
        request: the pack.
        folder: where packs are kept; created where it is missing.
        progress: told about decoding as it goes.

    Raises:
        DataError: an image is unreadable, or the cache folder cannot be written or is full.
    """
    base = folder / f"{request.name}-{request.key}"
    try:
        if found := _load(base, request.where):
            return found
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(base.with_suffix(".lock")):
            if found := _load(base, request.where):
                return found
            with refusing_bombs():
                _write(base, request, progress)
            made = _load(base, request.where)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataError(
            f"{folder}: expected a folder to keep decoded images in, got: {reason}"
        ) from None
    if made is None:
        raise DataError(f"{base}.npy: expected the images just written, got something else")
    return made


def _load(base: Path, where: str) -> tuple[Pool, tuple[str, ...]] | None:
    """Return a pack, or None where it is missing or damaged."""
    record_file, images_file = base.with_suffix(".json"), base.with_suffix(".npy")
    if not record_file.exists():
        return None
    try:
        record = _Record.model_validate_json(record_file.read_bytes())
        # Mode "c" is copy-on-write: torch warns about memory it must not write to.
        images = np.load(images_file, mmap_mode="c", allow_pickle=False)
        split = Split(
            images=torch.from_numpy(images),
            labels=torch.tensor(record.labels, dtype=torch.int64),
            num_classes=len(record.class_names),
        )
    except (OSError, ValueError, TypeError, EOFError, ValidationError) as error:
        _log.warning("%s: damaged (%s): decoding again", record_file, str(error).splitlines()[0])
        return None
    if images_checksum(split) != record.checksum:
        _log.warning("%s: damaged (its checksum is wrong): decoding again", images_file)
        return None
    return Pool(split=split, checksum=record.checksum, where=where), record.class_names


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold a lock between processes; says so when another process holds it."""
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _log.info("%s: waiting for another process that decodes the same images", file)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _write(base: Path, request: PackRequest, progress: Progress | None) -> None:
    decoding = request.prepare()
    shape = (decoding.num_images, *decoding.shape)
    _check_room(base.parent, request, math.prod(shape))
    _log.info("%s: decoding %d images into %s.npy", request.where, shape[0], base)
    started = time.monotonic()
    digest = ImagesDigest(shape)
    labels: list[int] = []
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
    _log.info("%s: decoded in %.1f s", request.where, time.monotonic() - started)


def _decoded(
    decoding: Decoding, where: str, progress: Progress | None
) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """Yield pixels and label of every image, and report on the way."""
    total = decoding.num_images
    next_message = time.monotonic() + _SECONDS_BETWEEN_MESSAGES
    for done, (pixels, label) in enumerate(in_order(decoding.read, range(total)), start=1):
        assert pixels.shape == decoding.shape
        yield pixels, label
        if progress is not None:
            progress(done, total)
        if time.monotonic() > next_message:
            next_message += _SECONDS_BETWEEN_MESSAGES
            _log.info("%s: decoded %d of %d images", where, done, total)


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
