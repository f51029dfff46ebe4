"""Metadata of image files, read and removed by hand: Pillow gives up at the first damaged piece."""

import struct
import zlib
from collections.abc import Iterator

_ORIENTATION = 0x0112
_SHORT = 3
_TIFF_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_TIFF_HEADER = 8
# Of a table of tags: tag, type, count, and the value or where it is.
_TIFF_ENTRY = 12
# Tags that say how the pixels are stored; TIFF 6.0, sections 8 to 22.
_PIXEL_TAGS = frozenset(
    {
        254, 256, 257, 258, 259, 262, 266, 273, _ORIENTATION, 277, 278, 279, 284, 292, 293, 317,
        320, 322, 323, 324, 325, 332, 338, 339, 347, 512, 513, 514, 519, 520, 521, 529, 530, 531,
        532,
    }
)  # fmt: skip
_PNG = b"\x89PNG\r\n\x1a\n"
# Transparency is not among them: it is dropped in any case.
_PNG_CHUNKS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_JPEG = b"\xff\xd8\xff"
_EXIF = b"Exif\0\0"
_APP1, _APP14, _SCAN, _COMMENT = 0xE1, 0xEE, 0xDA, 0xFE
_APPLICATION = range(0xE0, 0xF0)


def orientation_in(exif: bytes) -> int | None:
    """Return the orientation that an EXIF block says in the usual form, whatever else is in it."""
    tiff = exif.removeprefix(_EXIF)
    order = _TIFF_ORDERS.get(tiff[:4])
    if order is None:
        return None
    for entry in _tiff_entries(tiff, order):
        tag, kind, number, value = struct.unpack(f"{order}HHIHxx", entry)
        if (tag, kind, number) == (_ORIENTATION, _SHORT, 1):
            return int(value)
    return None


def without_metadata(content: bytes) -> bytes | None:
    """Return a PNG, JPEG or TIFF file with nothing but its pixels and its orientation; else None.

    What is damaged in other ways stays so.
    """
    if content.startswith(_PNG):
        return _PNG + b"".join(_kept_chunks(content))
    if content.startswith(_JPEG):
        return content[:2] + b"".join(_kept_segments(content))
    if (order := _TIFF_ORDERS.get(content[:4])) is not None:
        return _with_pixel_tags(content, order)
    return None


def _tiff_entries(tiff: bytes, order: str) -> list[bytes]:
    """Return the entries of the first table of tags, those that are there in full."""
    if len(tiff) < _TIFF_HEADER:
        return []
    (start,) = struct.unpack(f"{order}I", tiff[4:8])
    (count,) = struct.unpack(f"{order}H", tiff[start : start + 2].ljust(2, b"\0"))
    table = tiff[start + 2 : start + 2 + count * _TIFF_ENTRY]
    ends = range(_TIFF_ENTRY, len(table) + 1, _TIFF_ENTRY)
    return [table[end - _TIFF_ENTRY : end] for end in ends]


def _with_pixel_tags(content: bytes, order: str) -> bytes | None:
    entries = _tiff_entries(content, order)
    if not entries:
        return None
    kept = [item for item in entries if struct.unpack(f"{order}H", item[:2])[0] in _PIXEL_TAGS]
    (start,) = struct.unpack(f"{order}I", content[4:8])
    # No longer than the table it replaces: nothing moves. The zeros say that no table follows.
    table = struct.pack(f"{order}H", len(kept)) + b"".join(kept) + bytes(4)
    return content[:start] + table + content[start + len(table) :]


def _kept_chunks(content: bytes) -> Iterator[bytes]:
    position = len(_PNG)
    while position + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[position : position + 8])
        chunk = content[position : position + length + 12]
        # Of EXIF, which comes in one chunk, what is whole.
        is_exif = kind == b"eXIf" and chunk[-4:] == struct.pack(">I", zlib.crc32(chunk[4:-4]))
        if kind in _PNG_CHUNKS or is_exif:
            yield chunk
        position += length + 12


def _kept_segments(content: bytes) -> Iterator[bytes]:
    position = 2
    while position + 4 <= len(content) and content[position] == _JPEG[0]:
        marker = content[position + 1]
        if marker == _JPEG[0]:
            # Any number of these may fill the space before a marker.
            position += 1
            continue
        if marker == _SCAN:
            break
        (length,) = struct.unpack(">H", content[position + 2 : position + 4])
        segment = content[position : position + 2 + length]
        # Adobe's says how colors are stored.
        is_needed = marker == _APP14 or (marker == _APP1 and segment[4:].startswith(_EXIF))
        if is_needed or marker not in (*_APPLICATION, _COMMENT):
            yield segment
        position += 2 + length
    yield content[position:]
