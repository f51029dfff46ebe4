"""Image files as Pillow opens them: formats, orientation, kinds of pixels; no metadata can fail.

Pixels and nothing else decide whether a picture can be read: an error in EXIF, XMP or text means
that there is none of it.
"""

import contextlib
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from automix.data.sources.metadata import orientation_in, without_metadata
from automix.errors import DataError

# By content, whatever the suffix. Pillow knows dozens, and would run Ghostscript for an EPS file.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "PPM", "GIF", "AVIF")
# Photographs with several pictures in them, of which the first counts, are JPEG files.
JPEG_FORMATS = frozenset({"JPEG", "MPO"})
_DEEP_MODES = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
GRAY_MODES = frozenset({"1", "L", "LA", "La", "I"}) | _DEEP_MODES
_COLOR_MODES = frozenset({"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"})
# Others are refused by name.
_KINDS = {"I": "integer pixels of 32 bits or with a sign", "F": "floating-point pixels"}
# What makes an image of each EXIF orientation upright; 1, and whatever is none, leaves it as it is.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_SIDES = frozenset({5, 6, 7, 8})
# Pillow has no common error for broken files: damage anywhere in them raises any of these.
_BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError,
    RuntimeError, struct.error, zlib.error,
)  # fmt: skip
# Tags of TIFF.
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC = 256, 257, 258, 262
_WHITE_IS_ZERO = 0
# Larger files are not looked through for the damage that keeps them from being read.
_LARGEST_SEARCHED = 2**28


@contextlib.contextmanager
def opened(file: Path) -> Iterator[Image.Image]:
    """Open an image of a supported kind, its pixels not yet decoded.

    Raises:
        DataError: here or in the block, the file is unreadable, truncated or enormous, or of
            another kind; the one line names it.
    """
    with _naming(file), file.open("rb") as stream, _identified(stream) as image:
        if image.format not in _FORMATS:
            raise ValueError(f"a file of the format {image.format}")
        # PNG and PNM files of 16 bits have the mode of 32-bit images in some versions of Pillow.
        is_deep = image.mode == "I" and image.format in ("PNG", "PPM")
        if image.mode not in (GRAY_MODES - {"I"}) | _COLOR_MODES and not is_deep:
            raise ValueError(_KINDS.get(image.mode, f"{image.mode} pixels"))
        _keep_metadata_apart(image)
        yield image


def _identified(stream: IO[bytes]) -> Image.Image:
    """Return the image in a stream, if need be without its metadata."""
    # A stream, not a path: Pillow maps plain TIFF files into memory where it has the path, with
    # height and width exchanged if they lie sideways.
    try:
        return Image.open(stream)
    except _BROKEN:
        stream.seek(0)
        pixels = without_metadata(stream.read(_LARGEST_SEARCHED))
        if pixels is None:
            raise
    return Image.open(io.BytesIO(pixels))


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return height and width of an opened image once it is upright, also after ``draft``."""
    height, width = _stored_size(image)
    return (width, height) if orientation(image) in _SWAPS_SIDES else (height, width)


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an opened image, 1 to 8; 1 where it has none."""
    if image.format == "PNG":
        # EXIF may follow the pixels, which are to blame for what goes wrong with them.
        image.load()
    block = image.info.get("exif")
    value = orientation_in(block) if isinstance(block, bytes) else None
    if value is None:
        try:
            # That of TIFF and XMP, too.
            value = image.getexif().get(ExifTags.Base.Orientation, 1)
        except Exception:
            # Pillow raises whatever its parsing runs into: TypeError, ZeroDivisionError, ...
            return 1
    # Rationals and floats that equal a number count as it does: so they do for Pillow.
    return next((number for number in _TURNS if number == value), 1)


def upright_pixels(image: Image.Image) -> Image.Image:
    """Decode an opened image; return it upright, with pixels of 8 bits per channel."""
    turn = _TURNS.get(orientation(image))
    pixels = _eight_bits(image)
    return pixels if turn is None else pixels.transpose(turn)


def _keep_metadata_apart(image: Image.Image) -> None:
    """Keep errors in the metadata that Pillow reads after the pixels from reaching the pixels."""
    read_rest: Callable[[], None] = image.load_end  # type: ignore[attr-defined]

    def load_end() -> None:
        # Of a PNG file it reads the chunks behind the pixels. Of a TIFF file it reads EXIF and
        # turns the image, which `upright_pixels` does for all formats.
        if image.format == "PNG":
            with contextlib.suppress(Exception):
                read_rest()

    if image.format in ("PNG", "TIFF"):
        # The hook that Pillow calls once all pixels are there.
        image.load_end = load_end  # type: ignore[attr-defined]


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """Return rows and columns of the pixels in the file."""
    if image.format == "TIFF":
        # Of TIFF alone, the size is that of the upright image in newer versions of Pillow.
        tags = image.tag_v2  # type: ignore[attr-defined]
        return int(tags[_HEIGHT]), int(tags[_WIDTH])
    return image.height, image.width


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode in _DEEP_MODES or image.mode == "I":
        tags = getattr(image, "tag_v2", {})
        # convert("L") would clip everything above 255 to white.
        values = np.asarray(_as_stored(image)).astype(np.int64).clip(0, 65535)
        eight = (values >> (4 if tags.get(_BITS) == (12,) else 8)).clip(0, 255).astype(np.uint8)
        # Which Pillow does for 8 bits, but not for 16.
        is_negative = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
        return Image.fromarray(255 - eight if is_negative else eight)
    if "transparency" in image.info:
        # Of a palette, whose transparent entries convert("RGB") warns about.
        return image.convert("RGBA")
    return _as_stored(image)


def _as_stored(image: Image.Image) -> Image.Image:
    # A copy has the size of its pixels; the image itself may have that of the upright one.
    return image.copy() if image.format == "TIFF" else image


@contextlib.contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Turn any error of a broken file into one line that names it."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(
            f"{file}: expected at most {Image.MAX_IMAGE_PIXELS} pixels, got more"
        ) from None
    except UnidentifiedImageError:
        raise DataError(f"{file}: expected an image, got something else") from None
    except _BROKEN as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{file}: expected a readable image, got: {reason}") from None
