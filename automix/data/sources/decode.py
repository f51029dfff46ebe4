"""Image files to pixels: headers, decoding, scaling, and several files at a time.

Shape suffixes: C channels, H rows, W columns.
"""

import contextlib
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from math import ceil
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from automix.configuration.data import Interpolation
from automix.data.sources.image_files import (
    GRAY_MODES,
    JPEG_FORMATS,
    opened,
    upright_pixels,
    upright_size,
)
from automix.errors import DataError

# Those of torchvision's ImageFolder.
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Facts about an image that need no decoding: rows and columns once it is upright."""

    is_gray: bool
    height: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFormat:
    """Common format of the images of a dataset."""

    channels: int  # 1 (gray) or 3 (red, green, blue)
    height: int  # rows, in pixels
    width: int  # columns, in pixels
    resize: bool  # whether images are scaled and cut to this size, or must have it
    crop: float = 1.0  # fraction of the shorter side that is kept when they are scaled, in (0, 1]
    interpolation: Interpolation = Interpolation.BILINEAR  # filter that scales them

    def __repr__(self) -> str:
        """Return what the cache is named after: without the filter where it is the usual one."""
        filtered = self.interpolation is not Interpolation.BILINEAR
        return (
            f"ImageFormat(channels={self.channels!r}, height={self.height!r}, "
            f"width={self.width!r}, resize={self.resize!r}, crop={self.crop!r}"
            f"{f', interpolation={self.interpolation.value!r}' if filtered else ''})"
        )

    @property
    def filter(self) -> Image.Resampling:
        """Pillow's name of the interpolation."""
        return Image.Resampling[self.interpolation.name]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns."""
        return self.channels, self.height, self.width


class PixelBox(NamedTuple):
    """A part of an upright image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def common_format(
    files: Sequence[Path],
    size: tuple[int, int] | None,
    interpolation: Interpolation | None = None,
) -> ImageFormat:
    """Read all headers (of at least one file) and choose a format: gray if all images are gray.

    Raises:
        DataError: a file is unreadable or enormous, or sizes differ and ``size`` is None.
    """
    is_gray = True
    first: Header | None = None
    with refusing_bombs():
        for file, header in zip(files, in_order(read_header, files), strict=True):
            is_gray = is_gray and header.is_gray
            first = first or header
            if size is None and (header.height, header.width) != (first.height, first.width):
                raise DataError(
                    f"{file}: expected {first.height} x {first.width} pixels as {files[0]} has, "
                    f"got {header.height} x {header.width}; data.image_size brings all to one size"
                )
    assert first is not None
    height, width = size or (first.height, first.width)
    return ImageFormat(
        channels=1 if is_gray else 3,
        height=height,
        width=width,
        resize=size is not None,
        interpolation=interpolation or Interpolation.BILINEAR,
    )


def read_header(file: Path) -> Header:
    """Return color and size of an image without decoding it.

    Raises:
        DataError: the file is not a readable image of 1, 8 or 16 bits, or it is enormous.
    """
    with opened(file) as image:
        height, width = upright_size(image)
        return Header(is_gray=image.mode in GRAY_MODES, height=height, width=width)


def read_image(file: Path, image_format: ImageFormat) -> NDArray[np.uint8]:
    """Decode an image, upright, to (C, H, W) uint8.

    Transparency is dropped, 16-bit images keep their upper 8 bits, and of several frames the first
    is used.

    Raises:
        DataError: the file is unreadable, truncated or enormous, or has another size.
    """
    with opened(file) as image:
        if image_format.resize and image.format in JPEG_FORMATS:
            # A JPEG decodes several times faster at 1/2, 1/4 or 1/8 of its size. Twice the
            # requested size is kept for the filter, as Pillow's own thumbnail does.
            side = 2 * max(image_format.height, image_format.width)
            image.draft(None, (side, side))
        return to_format(upright_pixels(image), image_format)


def read_crop(
    file: Path, image_format: ImageFormat, box_in: Callable[[int, int], PixelBox]
) -> NDArray[np.uint8]:
    """Decode an image, upright, and scale a part of it to (C, H, W) uint8.

    ``box_in`` is called once, with height and width of the upright image.

    Raises:
        DataError: the file is unreadable, truncated or enormous.
    """
    with opened(file) as image:
        # 1. The box, from the header: its size decides how much has to be decoded.
        height, width = upright_size(image)
        box = box_in(height, width)
        shrink = min(box.height / image_format.height, box.width / image_format.width) / 2
        if shrink >= 2 and image.format in JPEG_FORMATS:
            # As in `read_image`; Pillow takes the nearest of 1/2, 1/4 and 1/8 that is no smaller.
            image.draft(None, (ceil(image.width / shrink), ceil(image.height / shrink)))
        # 2. Decode, upright. The box is in pixels of the full size: scale it along.
        pixels = _converted(upright_pixels(image), image_format)
        across, down = pixels.width / width, pixels.height / height
        left, top = int(box.left * across), int(box.top * down)
        right = max(left + 1, round((box.left + box.width) * across))
        bottom = max(top + 1, round((box.top + box.height) * down))
        # 3. Cut, then scale: the filter of `resize(box=...)` takes in pixels from beyond the box.
        cut = pixels.crop((left, top, right, bottom)).resize(
            (image_format.width, image_format.height), image_format.filter
        )
        return _channels_first(cut)


def to_format(image: Image.Image, image_format: ImageFormat) -> NDArray[np.uint8]:
    """Convert a decoded image to (C, H, W) uint8.

    Resizing scales the image to cover the requested size and cuts the rest off evenly.

    Raises:
        ValueError: the image has another size, and the format does not resize.
    """
    image = _converted(image, image_format)
    height, width = image_format.height, image_format.width
    if image_format.resize and (image.size != (width, height) or image_format.crop != 1):
        # The border that is left out on each side, as a fraction of it.
        bleed = (1 - image_format.crop) / 2
        image = ImageOps.fit(image, (width, height), image_format.filter, bleed=bleed)
    if image.size != (width, height):
        raise ValueError(f"expected {height} x {width} pixels, got {image.height} x {image.width}")
    return _channels_first(image)


def _converted(image: Image.Image, image_format: ImageFormat) -> Image.Image:
    mode = "L" if image_format.channels == 1 else "RGB"
    # Pillow copies where there is nothing to convert: 324 MB of the 81 million pixels of a picture.
    return image if image.mode == mode else image.convert(mode)


@contextlib.contextmanager
def refusing_bombs() -> Iterator[None]:
    """Make an image with more pixels than Pillow considers safe an error instead of a warning.

    Warning filters belong to the whole process, so this wraps the loop over the files and not the
    reading of one in a thread.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        # Damaged metadata that does not touch the pixels.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        yield


def _channels_first(image: Image.Image) -> NDArray[np.uint8]:
    # Pillow stores the channels of a pixel together, torch expects whole planes: reordered once
    # here, while the image is in the processor's cache, and never again in training.
    pixels = np.asarray(image, dtype=np.uint8).reshape(image.height, image.width, -1)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


Item = TypeVar("Item")
Result = TypeVar("Result")

_MAX_THREADS = 16
# A task of one image costs as much to hand over as a small image costs to decode.
_ITEMS_PER_TASK = 16
_TASKS_AHEAD = 4


def in_order(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield ``function(item)`` for each item, in order, computed by several threads.

    At most a few dozen results per thread wait at any time, so memory is bounded. The first error,
    in the order of the items, is raised; the tasks that have not started are dropped.
    """
    # Threads are enough: Pillow releases the interpreter lock while it decodes and scales.
    threads = num_threads()
    remaining = iter(items)
    waiting: deque[Future[list[Result]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        try:
            while True:
                while len(waiting) < threads * _TASKS_AHEAD:
                    block = list(islice(remaining, _ITEMS_PER_TASK))
                    if not block:
                        break
                    # `map` waits for its thread: nothing is computed before `list` asks for it.
                    waiting.append(pool.submit(list, map(function, block)))
                if not waiting:
                    return
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def num_threads() -> int:
    """Return the number of threads to decode with: one per core this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(cores, _MAX_THREADS)
